"""A client of $name by gRPC, with grpcio and protobuf alone: python client.py [HOST:PORT]

The messages are those of TF Serving's predict API, by their numbers.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_STRING, _INT32, _INT64, _FLOAT, _BOOL, _MESSAGE = 9, 5, 3, 2, 8, 11
_FIELDS = {
    "Dim": [("size", 1, _INT64, 1)],
    "Shape": [("dim", 2, "Dim", 3)],
    "Tensor": [
        ("dtype", 1, _INT32, 1),
        ("tensor_shape", 2, "Shape", 1),
        ("float_val", 5, _FLOAT, 3),
        ("int_val", 7, _INT32, 3),
        ("string_val", 8, 12, 3),
        ("bool_val", 11, _BOOL, 3),
        ("tensor_content", 4, 12, 1),
    ],
    "Entry": [("key", 1, _STRING, 1), ("value", 2, "Tensor", 1)],
    "Spec": [("name", 1, _STRING, 1), ("signature_name", 3, _STRING, 1)],
    "Request": [("model_spec", 1, "Spec", 1), ("inputs", 2, "Entry", 3)],
    "Response": [("outputs", 1, "Entry", 3)],
}


def _messages():
    file = descriptor_pb2.FileDescriptorProto(name="predict.proto", package="client", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            known = isinstance(kind, int)
            made = message.field.add(name=field, number=number, type=kind if known else _MESSAGE, label=label)
            if not known:
                made.type_name = f".client.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"client.{name}") for name in _FIELDS}
    return {name: message_factory.GetMessageClass(each) for name, each in found.items()}


MESSAGES = _messages()
INPUTS = json.loads(r"""$inputs""")
_TYPES = {1: "float_val", 3: "int_val", 7: "string_val", 10: "bool_val"}
_PACKED = {1: "f", 3: "i", 10: "?"}


def predict(address, model, inputs, signature="serving_default", timeout_seconds=60):
    """The outputs of a signature: dict of name -> (shape, flat list).

    Args:
        address: str, host:port.
        model: str.
        inputs: dict of name -> list: str or bytes, int, or float; or lists of these, of one length.
    """
    request = MESSAGES["Request"]()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, values in inputs.items():
        entry = request.inputs.add(key=name)
        tensor = entry.value
        tensor.tensor_shape.dim.add(size=len(values))
        while isinstance(values[0], list):
            tensor.tensor_shape.dim.add(size=len(values[0]))
            values = [each for row in values for each in row]
        if isinstance(values[0], float):
            tensor.dtype = 1
            tensor.float_val.extend(values)
        elif isinstance(values[0], int):
            tensor.dtype = 3
            tensor.int_val.extend(values)
        else:
            tensor.dtype = 7
            tensor.string_val.extend(v.encode() if isinstance(v, str) else v for v in values)
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGES["Response"].FromString,
        )
        response = call(request, timeout=timeout_seconds)
    return {entry.key: _values(entry.value) for entry in response.outputs}


def _values(tensor):
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return shape, memoryview(tensor.tensor_content).cast(_PACKED[tensor.dtype]).tolist()
    values = list(getattr(tensor, _TYPES[tensor.dtype]))
    count = 1
    for size in shape:
        count *= size
    # One value stands for all that follow it.
    return shape, values + values[-1:] * (count - len(values))


if __name__ == "__main__":
    place = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8500"
    for key, (shape, values) in predict(place, "$name", INPUTS).items():
        print(key, shape, [v.decode() if isinstance(v, bytes) else v for v in values])
