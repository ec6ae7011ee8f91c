"""Checks an export in a process that has TensorFlow and nothing of ours; prints JSON.

Run by path, not as a module: python check_export.py FOLDER SECONDS < a JSON list of op libraries.
"""

import json
import os
import sys
import time


def main(folder, seconds, libraries):
    import tensorflow as tf

    for path in libraries:
        tf.load_op_library(path)
    begin = time.perf_counter()
    model = tf.saved_model.load(folder)
    loaded = time.perf_counter() - begin
    with open(os.path.join(folder, "assets.extra", "tfmodels.json"), encoding="utf-8") as file:
        card = json.load(file)
    missing = sorted(set(card["signatures"]) - set(model.signatures))
    if missing:
        raise SystemExit(f"The export lacks the signatures {missing} that its card names.")
    requests = _warm_up_requests(tf, folder)
    for name, inputs in requests:
        model.signatures[name](**inputs)
    assert "tfmodels" not in sys.modules
    return {
        "load_seconds": loaded,
        "requests": len(requests),
        "batches": _timings(tf, model.signatures["serving_default"], card, seconds),
    }


def _warm_up_requests(tf, folder):
    path = os.path.join(folder, "assets.extra", "tf_serving_warmup_requests")
    if not os.path.exists(path):
        return []
    from tensorflow_serving.apis import prediction_log_pb2

    found = []
    for record in tf.data.TFRecordDataset(path):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        found.append((request.model_spec.signature_name, inputs))
    return found


def _timings(tf, serve, card, seconds):
    """Latency and throughput of serving_default by batch size: list of dicts."""
    specs = card["signatures"]["serving_default"]["inputs"]
    rows = []
    for batch in (1, 2, 4, 8, 16):
        text = tf.fill([batch], "It was a dark and stormy night.")
        inputs = {
            name: text if len(spec["shape"]) == 1 else tf.stack([text, text], 1)
            for name, spec in specs.items()
        }
        serve(**inputs)
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            serve(**inputs)
            times.append(time.perf_counter() - begin)
        times.sort()
        median = times[len(times) // 2]
        rows.append(
            {
                "batch": batch,
                "median_milliseconds": median * 1000,
                "slowest_milliseconds": times[-1] * 1000,
                "texts_per_second": batch / median,
            }
        )
    return rows


if __name__ == "__main__":
    json.dump(main(sys.argv[1], float(sys.argv[2]), json.load(sys.stdin)), sys.stdout)
