"""What the data pipeline makes of a corpus, measured: python examples/benchmarks/data.py --data FOLDER

FOLDER holds summ_debian/train.tsv (long and short description), mt_enes_bible/train.tsv (English and
Spanish) and vocab/gpt2_encoder.json with vocab/gpt2_vocab.bpe, GPT-2's own. Prints the share of real
tokens in packed rows, the padding of batches by a token budget, tokens a second of the pipeline, and
whether a reader that is killed at random steps goes on exactly.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import keras
import tensorflow as tf

import tfmodels
from tfmodels import data, tokenizers

_LENGTH = 512
_BUDGET = 4096


def gpt2_tokenizer(folder):
    with open(os.path.join(folder, "vocab", "gpt2_encoder.json"), encoding="utf-8") as file:
        vocabulary = json.load(file)
    with open(os.path.join(folder, "vocab", "gpt2_vocab.bpe"), encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().splitlines()[1:] if line]
    end = "<|endoftext|>"
    return tokenizers.BytePairTokenizer(vocabulary, merges, [end], start_token=end, end_token=end)


def packing(folder):
    """Descriptions with their summaries, each text for itself, in rows of 512."""
    pairs = data.read_pairs(os.path.join(folder, "summ_debian", "train.tsv"))
    texts = [f"{long}\n{short}" for long, short in pairs]
    start = time.perf_counter()
    examples = data.causal_language_modelling(texts, gpt2_tokenizer(folder), _LENGTH, join=False)
    seconds = time.perf_counter() - start
    size = sum(len(text.encode()) for text in texts)
    print(f"tokenizing {size / 1e6:.1f} MB took {seconds:.1f} s ({size / seconds / 1e6:.2f} MB/s)")
    print(f"\nsumm_debian packed into rows of {_LENGTH}")
    reader = data.Reader(examples, batch_size=8, pack=_LENGTH, shuffle=True)
    report = data.report(reader)
    padded = data.Reader(examples, batch_size=8, shuffle=True).dataset()
    plain = sum(int((x["padding_mask"] != 0).sum()) for x, *_ in padded.as_numpy_iterator())
    positions = sum(x["padding_mask"].size for x, *_ in padded.as_numpy_iterator())
    print(f"real tokens: {100 * (1 - report.padding):.2f}%")
    print(f"  (the same examples padded, 8 a batch: {100 * plain / positions:.1f}%)")
    return examples


def bucketing(folder):
    """Verses in two languages by a budget of tokens."""
    pairs = data.read_pairs(os.path.join(folder, "mt_enes_bible", "train.tsv"))
    tokenizer = tokenizers.SentencePieceTokenizer.train((side for pair in pairs for side in pair), 8000)
    examples = data.sequence_to_sequence(pairs, tokenizer, max_length=128)
    for budget in (1024, _BUDGET, 16384):
        print(f"\nmt_enes_bible by {budget} tokens a batch")
        data.report(data.Reader(examples, tokens_per_batch=budget, shuffle=True))


def throughput(examples, runs=5):
    """Tokens a second out of the pipeline, after tokenizing, median of runs."""
    print("\ntokens a second, an epoch, median of", runs)
    shuffled = dict(batch_size=8, shuffle=True)
    for name, options in (
        (f"packed, {_LENGTH}", shuffled | {"pack": _LENGTH}),
        (f"by {_BUDGET} tokens", {"tokens_per_batch": _BUDGET, "shuffle": True}),
        ("8 examples", shuffled),
    ):
        dataset = data.Reader(examples, **options).dataset()
        print(f"  {name:18s} {_rate(dataset, examples, runs):12,.0f}")
    with tempfile.TemporaryDirectory() as folder:
        data.write_tfrecords(examples, os.path.join(folder, "data"), shards=4)
        stored = data.read_tfrecords(os.path.join(folder, "data"))
        dataset = data.Reader(stored, **shuffled, pack=_LENGTH).dataset()
        print(f"  {'packed, TFRecords':18s} {_rate(dataset, examples, runs):12,.0f}")


def _rate(dataset, examples, runs):
    tokens = int(examples.lengths["padding_mask"].sum())
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        for _ in dataset:
            pass
        times.append(time.perf_counter() - start)
    return tokens / statistics.median(times[1:])  # the first is the warm-up


def training(examples, steps=4):
    """What a GPT-2 of 30M parameters takes in, on rows of 256 tokens, 8 at a time."""
    model = tfmodels.models.gpt2(
        "small", num_layers=6, num_heads=6, hidden_dim=384, intermediate_dim=1536, dropout=0.0
    )
    model.compile(keras.optimizers.AdamW(1e-4))
    dataset = data.batches(examples, batch_size=4, pack=_LENGTH, repeat=True)
    model.fit(dataset, steps_per_epoch=2, verbose=0, shuffle=False)
    start = time.perf_counter()
    model.fit(dataset, steps_per_epoch=steps, verbose=0, shuffle=False)
    rate = steps * 4 * _LENGTH / (time.perf_counter() - start)
    size = model.count_params() / 1e6
    print(f"\na GPT-2 of {size:.0f}M parameters consumes {rate:,.0f} tokens a second, float32")


def make_reader():
    pairs = tfmodels.datasets.load("mt_enes_bible", "valid")
    tokenizer = tokenizers.BytePairTokenizer.train((en for en, _ in pairs), 500)
    examples = data.causal_language_modelling([en for en, _ in pairs], tokenizer, 64, join=False)
    return data.Reader(examples, batch_size=8, pack=128, shuffle=True, seed=7, repeat=True)


def digests(reader, state=None):
    """The digest of each batch, from a position on."""
    if state:
        reader.restore(state)
    for batch in reader.dataset().as_numpy_iterator():
        yield hashlib.sha256(b"".join(a.tobytes() for a in tf.nest.flatten(batch))).hexdigest()


def child(path):
    """Reads for ever, and writes after each batch where it is; is killed from outside."""
    reader = make_reader()
    state = None
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
    for consumed, digest in enumerate(digests(reader, state), 1):
        with open(path + ".part", "w", encoding="utf-8") as file:
            json.dump(reader.state(consumed), file)
        print(digest, flush=True)
        os.replace(path + ".part", path)


def resumption(tries):
    """Kills a reader at a random step, again and again, and compares all it saw with one run."""
    generator = random.Random(0)
    seen, restarts = [], 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "position.json")
        for _ in range(tries):
            process = subprocess.Popen(
                [sys.executable, __file__, "--child", path], stdout=subprocess.PIPE, text=True
            )
            wanted = generator.randint(1, 60)
            lines = [process.stdout.readline().strip() for _ in range(wanted)]
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
            process.wait()
            lines += rest
            if not os.path.exists(path):
                continue
            restarts += 1
            # The last line may have been printed before its position was kept: then it comes again.
            with open(path, encoding="utf-8") as file:
                kept = json.load(file)
            seen.append((lines, kept))
    reader = make_reader()
    sizes = [reader.num_batches(epoch) for epoch in range(seen[-1][1]["epoch"] + 2)]
    whole = list(next_of(digests(make_reader()), sum(sizes)))
    equal, begin = 0, 0
    for lines, kept in seen:
        equal += lines == whole[begin : begin + len(lines)]
        begin = sum(sizes[: kept["epoch"]]) + kept["batch"]
    print(f"\nkilled {restarts} times at random steps, {begin} batches in epochs of {sizes[0]}")
    print(f"  the batches after each restart equal those of one uninterrupted run: {equal} of {restarts}")


def next_of(iterator, count):
    for _ in range(count):
        yield next(iterator)


def main():
    # This file's own folder is first on the path, where a neighbour stands for the tokenizers library.
    sys.path.pop(0)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="the folder of the corpora; without, only the kills are tried")
    parser.add_argument("--tries", type=int, default=20, help="kills of the reader")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child)
    print(f"TensorFlow {tf.__version__}, {os.cpu_count()} cores")
    if options.data:
        examples = packing(options.data)
        bucketing(options.data)
        throughput(examples)
        training(examples)
    resumption(options.tries)


if __name__ == "__main__":
    main()
