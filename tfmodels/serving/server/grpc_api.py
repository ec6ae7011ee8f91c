"""TF Serving's gRPC API for one export: PredictionService and ModelService."""

from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import any_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfmodels.serving.server.batching import Overloaded
from tfmodels.serving.server.served import BadRequest, NoSuchSignature

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_THREADS = 16
_DEFAULT_SECONDS = 60.0  # for a request that sets no deadline


def make_server(served, address):
    """A gRPC server of a `Served`, and the port that it listens on.

    Args:
        served: a `Served`.
        address: str, host:port; port 0 takes a free one.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(_THREADS, "grpc"),
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Predictions(served), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(served), server)
    try:
        return server, server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error


def _check_model(spec, served, context):
    version = spec.version.value if spec.HasField("version") else served.version
    if spec.name != served.name or version != served.version:
        context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {spec.name} {version}")


class _Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, served):
        self._served = served

    def Predict(self, request, context):
        served = self._served
        _check_model(request.model_spec, served, context)
        signature = request.model_spec.signature_name or "serving_default"
        try:
            values = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            seconds = context.time_remaining()
            future = served.submit(signature, values)
            outputs = future.result(_DEFAULT_SECONDS if seconds is None else min(seconds, _DEFAULT_SECONDS))
        except futures.TimeoutError:
            future.cancel()
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "The deadline has passed.")
        except Overloaded as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except NoSuchSignature as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except (BadRequest, ValueError, TypeError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = served.name
        response.model_spec.signature_name = signature
        response.model_spec.version.value = served.version
        for name, value in outputs.items():
            if not request.output_filter or name in request.output_filter:
                response.outputs[name].CopyFrom(tf.make_tensor_proto(np.asarray(value)))
        return response

    def GetModelMetadata(self, request, context):
        _check_model(request.model_spec, self._served, context)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self._served.card["signatures"].items():
            found = signatures.signature_def[name]
            found.method_name = "tensorflow/serving/predict"
            for side in ("inputs", "outputs"):
                for key, spec in signature[side].items():
                    _describe(getattr(found, side)[key], key, spec)
        packed = any_pb2.Any()
        packed.Pack(signatures)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self._served.name
        response.model_spec.version.value = self._served.version
        response.metadata["signature_def"].CopyFrom(packed)
        return response


def _describe(info: meta_graph_pb2.TensorInfo, name, spec):
    info.name = name
    info.dtype = tf.dtypes.as_dtype(spec["dtype"]).as_datatype_enum
    info.tensor_shape.CopyFrom(tf.TensorShape(spec["shape"]).as_proto())


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, served):
        self._served = served

    def GetModelStatus(self, request, context):
        _check_model(request.model_spec, self._served, context)
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(
            version=self._served.version, state=get_model_status_pb2.ModelVersionStatus.AVAILABLE
        )
        return response
