"""Memory and time of a training step by length: attention plain and block by block, blocks rematerialised.

    python examples/benchmarks/length.py [--lengths 1024 2048 4096 8192] [--plain_to 4096]
        [--layers 12] [--heads 12] [--width 768] [--steps 1]

One row of random tokens, float32, AdamW, a process a point. Prints the seconds of a step, the fastest of
`steps` after one of warm-up, and the peak memory above what the process held before it had a model.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time


def resident():
    """Bytes that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(form, length, layers, heads, width, steps):
    """Seconds of a step and peak bytes, in a process of its own."""
    import keras
    import numpy as np

    from tfmodels.layers import attention
    from tfmodels.models import gpt2

    if form == "plain":
        attention._BLOCKWISE_LENGTH = 10**9
    elif form == "blocks":
        attention._BLOCKWISE_LENGTH = 1
    peak, before = 0, resident()

    def watch():
        nonlocal peak
        while True:
            peak = max(peak, resident())
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()
    model = gpt2(
        "small",
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=length,
        dropout=0.0,
        attention_dropout=0.0,
        rematerialise=True,
    )
    model.compile(keras.optimizers.AdamW(1e-4))
    ids = np.random.default_rng(0).integers(0, model.config.vocabulary_size, (1, length)).astype("int32")
    times = [time.perf_counter()]
    for _ in range(steps + 1):
        model.train_on_batch({"token_ids": ids}, ids)
        times.append(time.perf_counter())
    seconds = min(after - start for start, after in zip(times[1:], times[2:], strict=False))
    return {"seconds": seconds, "bytes": peak - before}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048, 4096, 8192])
    parser.add_argument(
        "--plain_to", type=int, default=4096, help="the longest that plain attention is tried at"
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--point", help=argparse.SUPPRESS)  # form and sizes, as JSON: the process of a point
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure(*json.loads(options.point))))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    for length in options.lengths:
        for form in ("plain", "blocks"):
            if form == "plain" and length > options.plain_to:
                continue
            sizes = [length, options.layers, options.heads, options.width, options.steps]
            command = [sys.executable, __file__, "--point", json.dumps([form, *sizes])]
            result = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            point = json.loads(result.stdout)
            print(
                f"{length:6} tokens  {form:6}  {point['seconds']:7.1f} s a step  "
                f"{point['bytes'] / 1e9:5.2f} GB",
                flush=True,
            )


if __name__ == "__main__":
    main()
