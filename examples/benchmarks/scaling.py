"""Memory and time of a training step against the formula of docs/scaling.md.

    python examples/benchmarks/scaling.py            # all points, a process each
    python examples/benchmarks/scaling.py --predict  # 8 and 64 GPUs, by the formula alone

Prints a row a point: measured, predicted, and their ratio. The formula's own figures of this machine (the
speed of a matrix product) are measured in the same run.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

# layers, heads, width, words, batch, length
POINTS = [
    (2, 4, 256, 8000, 8, 128),
    (2, 4, 256, 8000, 16, 128),
    (6, 4, 256, 8000, 8, 128),
    (6, 4, 256, 8000, 4, 512),
    (6, 8, 512, 8000, 4, 128),
    (6, 6, 384, 50257, 8, 256),
]
# Floats kept for the backward pass, a token and block: of the block's width (norms, projections, inner
# vectors, residuals), and of a row of attention (weights, and what dropout leaves of them).
WIDTHS, ROWS = 20, 2
# Figures of an A100 that is not here: bfloat16 FLOP/s that a step reaches (40% of the data sheet's 312e12),
# bytes of memory, and bytes a second of all-reduce within a machine (NVLink) and between (200 Gb/s).
GPU_FLOPS, GPU_BYTES, WITHIN, BETWEEN = 0.4 * 312e12, 80e9, 235e9, 25e9


def parameters(layers, width, words, length):
    """Weights of a GPT-2 with an inner width of four times the outer."""
    return words * width + length * width + layers * (12 * width**2 + 13 * width) + 2 * width


def memory(layers, heads, width, words, batch, length, activation_bytes=4):
    """Bytes by part: weights, gradients, Adam's two moments, activations, a block of logits."""
    count, tokens = parameters(layers, width, words, length), batch * length
    kept = tokens * layers * (WIDTHS * width + ROWS * heads * length)
    return {
        "weights": 4 * count,
        "gradients": 4 * count,
        "optimizer": 8 * count,
        "activations": activation_bytes * kept,
        "logits": 3 * 4 * min(tokens, 512) * words,
    }


def flops(layers, heads, width, words, batch, length):
    """Multiplications and additions of a step: forward once, backward twice."""
    tokens = batch * length
    forward = 2 * 12 * width**2 * layers + 4 * length * width * layers + 2 * words * width
    return 3 * tokens * forward


def measure(layers, heads, width, words, batch, length):
    """Seconds of a step (median of 5 after 2), and peak bytes above what the process held before."""
    import keras
    import numpy as np

    from tfmodels.models import gpt2

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = gpt2(
        "tiny",
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=4 * width,
        vocabulary_size=words,
        max_sequence_length=length,
    )
    model.compile(keras.optimizers.AdamW(1e-3))
    ids = np.random.default_rng(0).integers(0, words, (7 * batch, length)).astype("int32")
    times = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: times.append(time.perf_counter())
    )
    model.fit({"token_ids": ids}, ids, batch_size=batch, shuffle=False, verbose=0, callbacks=[note])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": float(np.median(np.diff(times)[1:])), "bytes": peak * 1024}


def product_speed(size=1024):
    """FLOP/s of a float32 matrix product, the best of 10."""
    import tensorflow as tf

    a = tf.random.normal((size, size))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        tf.linalg.matmul(a, a).numpy()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def predict():
    """The largest batch a GPU holds, its tokens a second, and the share of time that all-reduce takes."""
    print("model   GPUs   rows of 1024 a GPU   tokens/s of all   all-reduce of the step's time")
    sizes = {"124M": (12, 12, 768), "355M": (24, 16, 1024), "774M": (36, 20, 1280), "1.5B": (48, 25, 1600)}
    for name, size in sizes.items():
        for gpus, bandwidth in ((8, WITHIN), (64, BETWEEN)):
            one = memory(*size, 50257, 1, 1024, 2)
            fixed = sum(value for part, value in one.items() if part != "activations")
            rows = int((0.9 * GPU_BYTES - fixed) // one["activations"])
            compute = flops(*size, 50257, max(rows, 0), 1024) / GPU_FLOPS
            reduce = 2 * (gpus - 1) / gpus * one["gradients"] / bandwidth
            speed = gpus * rows * 1024 / (compute + reduce) if rows > 0 else 0
            print(f"{name:6} {gpus:5} {rows:18} {speed:17,.0f} {reduce / (compute + reduce):15.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predict", action="store_true", help="8 and 64 GPUs, by the formula alone")
    # Sizes as JSON, null for the speed of a product: the process of a point.
    parser.add_argument("--point", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.predict:
        return predict()
    if arguments.point:
        point = json.loads(arguments.point)
        return print(json.dumps(product_speed() if point is None else measure(*point)))

    def run(point):
        command = [sys.executable, __file__, "--point", json.dumps(point)]
        return json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        )

    speed = run(None)
    print(f"float32 product: {speed / 1e9:.0f} GFLOP/s")
    print(
        "layers heads width words batch length   GB measured predicted ratio   s measured at full speed share"
    )
    for point in POINTS:
        found, size = run(point), sum(memory(*point).values())
        least = flops(*point) / speed
        print(
            f"{point!s:40} {found['bytes'] / 1e9:11.2f} {size / 1e9:9.2f} {found['bytes'] / size:5.2f} "
            f"{found['seconds']:12.2f} {least:13.2f} {least / found['seconds']:5.0%}"
        )


if __name__ == "__main__":
    main()
