"""Speculative decoding by prompt look-up beside greedy decoding: GPT-2 124M, 32 prompt tokens, 64 new.

    python examples/benchmarks/speculation.py [--dtypes float32 mixed_bfloat16] [--runs 5]

Two models without training: one of random weights, whose text mostly repeats itself, and one whose blocks
add nothing, which writes its last token again and again: the best case, every guess is right. Both ways of
decoding take turns; prints their medians and the ratio, after a check that the tokens are the same.
"""

import argparse
import statistics
import time

import numpy as np

import tfmodels


def repeating(model):
    """The model without positions and without what its blocks add."""
    for variable in model.trainable_variables:
        nothing = (
            "self_attention/output/kernel",
            "feed_forward/output/kernel",
            "position_embedding/embeddings",
        )
        if variable.path.endswith(nothing):
            variable.assign(np.zeros(variable.shape))


def report(name, model, runs):
    part = np.random.default_rng(0).integers(0, model.config.vocabulary_size, 16)
    prompt = {"token_ids": np.tile(part, 2)[None].astype("int32")}
    ways = {"greedy": {}, "prompt look-up": {"draft": "prompt"}}

    def run(options):
        start = time.perf_counter()
        tokens = tfmodels.generate(model, prompt, max_new_tokens=64, stop=(), **options).token_ids
        return time.perf_counter() - start, tokens

    first = [run(options)[1] for options in ways.values()]
    assert (first[0] == first[1]).all()
    seconds = zip(*([run(options)[0] for options in ways.values()] for _ in range(runs)), strict=True)
    greedy, guessed = (statistics.median(each) for each in seconds)
    print(
        f"{name}: greedy {greedy:.2f} s, prompt look-up {guessed:.2f} s, {greedy / guessed:.2f} times as fast"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    for dtype in options.dtypes:
        model = tfmodels.models.gpt2("small", dtype=dtype)
        report(f"{dtype}, random weights", model, options.runs)
        repeating(model)
        report(f"{dtype}, all guesses right", model, options.runs)


if __name__ == "__main__":
    main()
