"""MB/s of tokenizers over the novels' lines, in batches of 256.

    python examples/benchmarks/tokenizers.py FOLDER [--keras-hub]

FOLDER has GPT-2's vocab.json and merges.txt. All run on the same batches: ours inside tf.data, the tokenizers
library in Python on one thread, KerasHub's BytePairTokenizer (if asked for, and installed) inside tf.data.
"""

import argparse
import os
import statistics
import sys
import time

# This file's own folder is first on the path, where its name would stand for the tokenizers library.
sys.path.pop(0)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tensorflow as tf  # noqa: E402
import tokenizers  # noqa: E402

import tfmodels  # noqa: E402

BATCH_SIZE = 256


def seconds_in_data(tokenize, lines, repeats):
    """Median seconds of a pass in one running pipeline; the first pass warms up."""
    data = tf.data.Dataset.from_tensor_slices(lines).batch(BATCH_SIZE).map(tokenize).repeat(repeats + 1)
    batches, times = -(-len(lines) // BATCH_SIZE), []
    iterator = iter(data)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def seconds_of_library(library, lines, repeats):
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for i in range(0, len(lines), BATCH_SIZE):
            library.encode_batch(lines[i : i + BATCH_SIZE], add_special_tokens=False)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--keras-hub", action="store_true")
    parser.add_argument("--lines", type=int, help="only the first lines")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    lines = tfmodels.datasets.load("lm_novels")[: options.lines]
    megabytes = sum(len(line.encode()) for line in lines) / 1e6
    ours = tfmodels.tokenizers.BytePairTokenizer.from_pretrained(options.folder)
    files = [os.path.join(options.folder, name) for name in ("vocab.json", "merges.txt")]
    library = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(*files))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)

    print(
        f"CPU with {os.cpu_count()} cores, TensorFlow {tf.__version__}, tokenizers {tokenizers.__version__}; "
        f"{megabytes:.2f} MB in {len(lines)} lines, batches of {BATCH_SIZE}; "
        f"one pass of warm-up, median of {options.repeats}"
    )
    results = {
        "tfmodels, in tf.data": seconds_in_data(ours.tokenize, lines, options.repeats),
        "tokenizers (Rust), one thread": seconds_of_library(library, lines, options.repeats),
    }
    if options.keras_hub:
        import keras_hub

        peer = keras_hub.tokenizers.BytePairTokenizer(vocabulary=files[0], merges=files[1])
        results[f"KerasHub {keras_hub.__version__}, in tf.data"] = seconds_in_data(
            peer, lines, options.repeats
        )
    for name, seconds in results.items():
        ratio = seconds / results["tfmodels, in tf.data"]
        print(f"{name:35s} {megabytes / seconds:6.2f} MB/s   tfmodels is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
