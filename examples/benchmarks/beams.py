"""Beams that share a cache beside a cache for each beam, as a user's class has it: seconds of one text.

    python examples/benchmarks/beams.py [--dtypes float32 mixed_bfloat16] [--runs 3]

GPT-2 124M after prompts of 32 and 500 tokens, and BART base, which reads 512 tokens, all with random
weights. Both ways take turns; prints their medians and the ratio, after a check in float32 that the tokens
are the same.
"""

import argparse
import statistics
import time

import numpy as np

import tfmodels
from tfmodels.models import GPT2, Bart, bart, gpt2


class OwnGPT2(GPT2):
    """Of a user's class nobody knows what it makes of a cache, so each beam has its own."""


class OwnBart(Bart):
    """As `OwnGPT2`."""


# Model, class with a cache for each beam, prompts, tokens of a prompt, new tokens, beams.
CASES = [
    (gpt2, "small", OwnGPT2, 1, 32, 64, 4),
    (gpt2, "small", OwnGPT2, 8, 32, 64, 4),
    (gpt2, "small", OwnGPT2, 1, 500, 128, 4),
    (bart, "base", OwnBart, 2, 512, 64, 4),
]


def report(dtype, make, size, own_class, batch, length, new_tokens, beams, runs):
    shared = make(size, dtype=dtype)
    own = own_class(shared.config, dtype=dtype)
    own.set_weights(shared.get_weights())
    name, (_, vocabulary) = next(iter(shared.input_pairs.items()))
    words = getattr(shared.config, vocabulary)
    prompt = {name: np.random.default_rng(0).integers(5, words, (batch, length), "int32")}
    options = dict(method="beam", num_beams=beams, max_new_tokens=new_tokens, stop=())

    def run(model):
        start = time.perf_counter()
        tokens = tfmodels.generate(model, prompt, **options).token_ids
        return time.perf_counter() - start, tokens

    first = [run(model)[1] for model in (shared, own)]
    assert dtype != "float32" or (first[0] == first[1]).all()
    seconds = zip(*([run(model)[0] for model in (shared, own)] for _ in range(runs)), strict=True)
    one, each = (statistics.median(times) for times in seconds)
    print(
        f"{dtype}, {make.__name__} {size}, {batch} x {length} tokens, {new_tokens} new, {beams} beams: "
        f"a cache each {each:.2f} s, one {one:.2f} s, {each / one:.2f} times as fast",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    for dtype in options.dtypes:
        for case in CASES:
            report(dtype, *case, options.runs)


if __name__ == "__main__":
    main()
