"""MB/s of tokenizers over the novels' lines, in batches of 256.

    python examples/benchmarks/tokenizers.py FOLDER [--keras-hub] [--rules qwen2]

FOLDER has GPT-2's vocab.json and merges.txt. All run on the same batches: ours inside tf.data, the tokenizers
library in Python on one thread, KerasHub's BytePairTokenizer (if asked for, and installed) inside tf.data.
With other rules than GPT-2's the same vocabulary is used by them, which KerasHub has not.
"""

import argparse
import os
import statistics
import sys
import tempfile
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
# Names of rules -> what else the tokenizers that have them do.
RULES = {"gpt2": {}, "gpt2_digits": {}, "llama3": {"ignore_merges": True}, "qwen2": {"normalizer": "NFC"}}


def batches_of(lines):
    return [lines[i : i + BATCH_SIZE] for i in range(0, len(lines), BATCH_SIZE)]


def seconds_in_data(tokenize, warm_up, lines, repeats):
    """Seconds of each pass over the lines in one running pipeline, which begins with the warm-up."""
    texts = [*warm_up, *lines * repeats]
    data = iter(tf.data.Dataset.from_tensor_slices(texts).batch(BATCH_SIZE).map(tokenize))
    return timed(lambda batch: next(data), warm_up, lines, repeats)


def timed(tokenize, warm_up, lines, repeats):
    for batch in batches_of(warm_up):
        tokenize(batch)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for batch in batches_of(lines):
            tokenize(batch)
        times.append(time.perf_counter() - start)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--keras-hub", action="store_true")
    parser.add_argument("--rules", default="gpt2", choices=RULES)
    parser.add_argument("--lines", type=int, help="only the first lines")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    lines = tfmodels.datasets.load("lm_novels")[: options.lines]
    lines = lines[: len(lines) // BATCH_SIZE * BATCH_SIZE]  # whole batches
    warm_up = tfmodels.datasets.load("lm_novels", "valid")[:BATCH_SIZE]
    megabytes = sum(len(line.encode()) for line in lines) / 1e6
    files = [os.path.join(options.folder, name) for name in ("vocab.json", "merges.txt")]
    vocabulary, merges = tokenizers.models.BPE.read_file(*files)
    ours = tfmodels.tokenizers.BytePairTokenizer(
        vocabulary, merges, pre_tokenizer=options.rules, **RULES[options.rules]
    )
    with tempfile.TemporaryDirectory() as folder:
        ours.save(os.path.join(folder, "tokenizer.json"))
        library = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))

    print(
        f"CPU with {os.cpu_count()} cores, TensorFlow {tf.__version__}, tokenizers {tokenizers.__version__}; "
        f"rules of {options.rules}; {megabytes:.2f} MB in {len(lines)} lines, batches of {BATCH_SIZE}, "
        f"after {len(warm_up)} other lines"
    )
    arguments = warm_up, lines, options.repeats
    results = {
        "tfmodels, in tf.data": seconds_in_data(ours.tokenize, *arguments),
        "tokenizers (Rust), one thread": timed(
            lambda batch: library.encode_batch(batch, add_special_tokens=False), *arguments
        ),
    }
    if options.keras_hub:
        import keras_hub

        peer = keras_hub.tokenizers.BytePairTokenizer(vocabulary=files[0], merges=files[1])
        results[f"KerasHub {keras_hub.__version__}, in tf.data"] = seconds_in_data(peer, *arguments)
    own = results["tfmodels, in tf.data"]
    # KerasHub keeps every word that it has seen, so that later passes over the same lines merge nothing.
    for name, times in results.items():
        first, later = times[0], statistics.median(times[1:] or times)
        print(
            f"{name:30s} first pass {megabytes / first:5.2f} MB/s, ours {first / own[0]:5.2f} times as fast; "
            f"later {megabytes / later:5.2f} MB/s, {later / statistics.median(own[1:] or own):5.2f} times"
        )


if __name__ == "__main__":
    main()
