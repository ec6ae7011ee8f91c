"""Tokens a second of a GPT-2's training step, through `fit`, beside KerasHub and transformers on torch.

python examples/benchmarks/training.py [--kerashub PYTHON] [--transformers PYTHON]
    [--configs 30M 124M] [--dtypes float32 bfloat16] [--rounds 3] [--steps 4]

Each library runs in processes of its own, which take turns: a round is `fit` over `steps` batches of
random tokens with AdamW, no dropout, tf.data and a progress bar. Prints the versions, the median of the
rounds after one of warm-up, the peak memory of the process, the share of the machine's matrix product
of that precision, measured at the beginning, and the ratio to the best peer.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

# layers, heads, width, words, batch, length
CONFIGS = {"30M": (6, 6, 384, 50257, 8, 256), "124M": (12, 12, 768, 50257, 4, 128)}

_WORKER = """
import json, os, resource, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by itself on older CPUs
os.environ["KERAS_BACKEND"] = "tensorflow"
import numpy as np
answers, sys.stdout = sys.stdout, sys.stderr
layers, heads, width, words, batch, length, steps = map(int, sys.argv[1:8])
dtype, mode = sys.argv[8:]
ids = np.random.default_rng(0).integers(0, words, (steps * batch, length + 1)).astype("int32")
{setup}
print(json.dumps({{"versions": {versions}}}), file=answers, flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({{"seconds": seconds, "bytes": peak}}), file=answers, flush=True)
"""
_OURS = """
import keras, tensorflow, tfmodels
policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[dtype]
model = tfmodels.models.gpt2(
    "small", dtype=policy, vocabulary_size=words, num_layers=layers, num_heads=heads, hidden_dim=width,
    intermediate_dim=4 * width, dropout=0.0, attention_dropout=0.0,
)
model.compile(keras.optimizers.AdamW(1e-4))
data = tensorflow.data.Dataset.from_tensor_slices(({"token_ids": ids[:, :-1]}, ids[:, 1:])).batch(batch)
def run():
    model.fit(data, verbose=1)
"""
_KERAS_HUB = """
import keras, keras_hub, tensorflow
policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[dtype]
backbone = keras_hub.models.GPT2Backbone(
    words, layers, heads, width, 4 * width, dropout=0.0, max_sequence_length=1024, dtype=policy,
)
model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.AdamW(1e-4), loss=loss, jit_compile=mode == "xla")
inputs = {"token_ids": ids[:, :-1], "padding_mask": np.ones_like(ids[:, :-1])}
data = tensorflow.data.Dataset.from_tensor_slices((inputs, ids[:, 1:])).batch(batch, drop_remainder=True)
def run():
    model.fit(data, verbose=1)
"""
_TORCH = """
import contextlib, torch, transformers
from transformers import GPT2Config, GPT2LMHeadModel
config = GPT2Config(
    vocab_size=words, n_positions=1024, n_embd=width, n_layer=layers, n_head=heads, use_cache=False,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
)
model = GPT2LMHeadModel(config).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
forward = torch.compile(model) if mode == "compiled" else model
cast = torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()
rows = torch.from_numpy(ids[:, :-1]).long()
def run():
    for i in range(0, len(rows), batch):
        part = rows[i : i + batch]
        with cast:
            loss = forward(input_ids=part, labels=part).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
"""
_KERAS_VERSIONS = 'f"keras {keras.__version__}, tensorflow {tensorflow.__version__}"'
_TORCH_VERSIONS = 'f"torch {torch.__version__}, transformers {transformers.__version__}"'
_PRODUCT = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by itself on older CPUs
import tensorflow as tf
x = tf.cast(tf.random.normal((2048, 2048)), sys.argv[1])
times = []
for _ in range(12):
    start = time.perf_counter()
    tf.cast(tf.matmul(x, x)[0, 0], tf.float32).numpy()
    times.append(time.perf_counter() - start)
print(2 * 2048**3 / min(times[2:]))
"""


class Worker:
    """A process that trains for a round at each line."""

    def __init__(self, name, python, setup, versions, *arguments):
        self.name = name
        script = _WORKER.format(setup=setup, versions=versions)
        self._process = subprocess.Popen(
            [python, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.versions = json.loads(self._process.stdout.readline())["versions"]

    def run(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)


def workers(options, arguments):
    """A process a library and mode."""
    yield Worker("tfmodels", sys.executable, _OURS, _KERAS_VERSIONS, *arguments, "graph")
    if options.kerashub:
        for mode in ("graph", "xla"):
            setup = _KERAS_HUB, _KERAS_VERSIONS
            yield Worker(f"KerasHub {mode}", options.kerashub, *setup, *arguments, mode)
    if options.transformers:
        for mode in ("eager", "compiled"):
            setup = _TORCH, _TORCH_VERSIONS
            yield Worker(f"transformers {mode}", options.transformers, *setup, *arguments, mode)


def flops(layers, heads, width, words, batch, length):
    """Multiplications and additions of a step: forward once, backward twice."""
    return 3 * batch * length * (2 * 12 * width**2 * layers + 4 * length * width * layers + 2 * words * width)


def report(name, dtype, options):
    """Runs one config in turns and prints a line a library."""
    sizes = CONFIGS[name]
    product = subprocess.run(
        [sys.executable, "-c", _PRODUCT, dtype], check=True, capture_output=True, text=True
    )
    product = float(product.stdout)
    programs = list(workers(options, (*sizes, options.steps, dtype)))
    first = [program.run()["seconds"] for program in programs]
    rounds = list(zip(*([program.run() for program in programs] for _ in range(options.rounds)), strict=True))
    seconds = [statistics.median(each["seconds"] for each in turns) / options.steps for turns in rounds]
    print(f"{name}, {dtype}: a product of matrices reaches {product / 1e9:.0f} GFLOP/s")
    for i, program in enumerate(programs):
        peers = [step for step, other in zip(seconds, programs, strict=True) if other.name != "tfmodels"]
        ratio = f"  ours / best peer {min(peers) / seconds[0]:.2f}" if peers and i == 0 else ""
        print(
            f"{program.name:22} {sizes[4] * sizes[5] / seconds[i]:7.0f} tokens/s  "
            f"peak {rounds[i][-1]['bytes'] / 1e9:.2f} GB  {flops(*sizes) / seconds[i] / product:4.0%} of the "
            f"product  first round {first[i]:5.1f} s  ({program.versions}){ratio}",
            flush=True,
        )
        program.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kerashub", metavar="PYTHON", help="a Python that has keras_hub and tensorflow")
    parser.add_argument("--transformers", metavar="PYTHON", help="a Python that has transformers and torch")
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    for name in options.configs:
        for dtype in options.dtypes:
            report(name, dtype, options)


if __name__ == "__main__":
    main()
