"""Warm-up requests, which TF Serving sends to a new version before it answers with it.

The file is a TFRecord of `PredictionLog`, the protocol of tensorflow-serving-api; that package is an
extra, and without it an export has no such file.
"""

import os

import tensorflow as tf

REQUESTS = os.path.join("assets.extra", "tf_serving_warmup_requests")
_MOST = 1000  # of requests: TF Serving refuses a file with more
# Texts of a few lengths: what a first request would otherwise wait for is made for each shape.
_TEXTS = (["A short text."], ["A longer text, of two sentences. " * 4, "and a short one"])
# Of ids; 0 is an id of every vocabulary.
_IDS = ([[0] * 4], [[0] * 16, [0] * 16])


def write_requests(folder, card):
    """Writes requests for each signature of an export, of a few lengths.

    Args:
        folder: str, the export.
        card: dict, with its `signatures`.

    Returns:
        int, how many there are; 0 without tensorflow-serving-api.
    """
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        return 0
    count = 0
    with tf.io.TFRecordWriter(os.path.join(folder, REQUESTS)) as writer:
        for name, signature in card["signatures"].items():
            for inputs in sample_inputs(signature):
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.signature_name = name
                for key, value in inputs.items():
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
                writer.write(log.SerializeToString())
                count += 1
    assert count <= _MOST
    return count


def sample_inputs(signature):
    """Dicts of tensors that a signature answers, by its description."""
    for texts, ids in zip(_TEXTS, _IDS, strict=True):
        inputs = {}
        for key, spec in signature["inputs"].items():
            inputs[key] = _sample(key, spec, texts, ids)
        yield inputs


def _sample(key, spec, texts, ids):
    rows, rank = len(texts), len(spec["shape"])
    if spec["dtype"] == "string":
        return tf.constant(texts if rank == 1 else [[text, text] for text in texts])
    if "default" in spec:
        return tf.constant([spec["default"]] * rows, spec["dtype"])
    if key.startswith("cache_") and rank:  # an empty one of a few tokens
        return tf.zeros([rows, *(n or len(ids[0]) for n in spec["shape"][1:])], spec["dtype"])
    if rank == 0:  # the length of a cache
        return tf.constant(len(ids[0]) + 1, spec["dtype"])
    if rank == 1:
        value = {"lengths": len(ids[0]), "index": 1}.get(key, 0)
        return tf.constant([value] * rows, spec["dtype"])
    value = tf.constant(ids, spec["dtype"])
    if "mask" in key:
        value = tf.ones_like(value)
    return value if rank == 2 else tf.repeat(value[:, None], 2, axis=1)


def read_requests(folder):
    """The warm-up requests of an export: list of (signature name, dict of tensors)."""
    from tensorflow_serving.apis import prediction_log_pb2

    found = []
    for record in tf.data.TFRecordDataset(os.path.join(folder, REQUESTS)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        found.append((request.model_spec.signature_name, inputs))
    return found
