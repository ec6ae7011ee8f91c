"""Milliseconds a step of GPT-2 124M with random weights: 32 prompt tokens, 64 new.

python examples/benchmarks/generation.py [--keras-hub-python PYTHON] [--torch-python PYTHON]
    [--batches 1 8 32] [--methods greedy top_p beam] [--dtypes float32 bfloat16 int8] [--runs 5]

Each library runs in processes of its own, which take turns, one case at a time. Prints the versions,
the median of the runs after one warm-up, the first call (tracing included), the share of the time that
reading the weights once takes at the given memory speed, and the ratio to the best peer. Under int8
stand weights of int8 and arithmetic in float32; of the peers only KerasHub has them.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

PROMPT, NEW, BEAMS = 32, 64, 4
PARAMETERS = 124_439_808

_WORKER = """
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by itself on older CPUs
import numpy as np
answers, sys.stdout = sys.stdout, sys.stderr
rng = np.random.default_rng(0)
{setup}
print(json.dumps({{"versions": {versions}}}), file=answers, flush=True)
for line in sys.stdin:
    case = json.loads(line)
    ids = rng.integers(0, 50257, (case["batch"], {prompt})).astype("int32")
    start = time.perf_counter()
    run(ids, case["method"])
    print(json.dumps(time.perf_counter() - start), file=answers, flush=True)
"""
_OURS = """
import keras, tensorflow, tfmodels
model = tfmodels.models.gpt2("small", dtype=sys.argv[1].replace("int8", "float32"))
if sys.argv[1] == "int8":
    model.quantize("int8")
options = {"greedy": {}, "top_p": dict(method="sample", top_p=0.9), "beam": dict(method="beam", num_beams=%d)}
def run(ids, method):
    tfmodels.generate(model, {"token_ids": ids}, max_new_tokens=%d, stop=(), **options[method])
"""
_KERAS_HUB = """
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras, keras_hub, tensorflow
dtype = sys.argv[1].replace("int8", "float32")
backbone = keras_hub.models.GPT2Backbone(50257, 12, 12, 768, 3072, dtype=dtype)
model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
if sys.argv[1] == "int8":
    model.quantize("int8")
samplers = {
    "greedy": lambda: "greedy",
    "top_p": lambda: keras_hub.samplers.TopPSampler(p=0.9),
    "beam": lambda: keras_hub.samplers.BeamSampler(num_beams=%d),
}
compiled = {}
def run(ids, method):
    # Compiling drops the traced function: one is kept for each method.
    if method not in compiled:
        model.compile(sampler=samplers[method](), jit_compile=sys.argv[2] == "xla")
        compiled[method] = model.make_generate_function()
        model.generate_function = None
    ids = np.pad(ids, ((0, 0), (0, %d)))
    mask = (np.arange(ids.shape[1])[None] < 32).astype("int32").repeat(len(ids), 0)
    inputs = {"token_ids": tensorflow.constant(ids), "padding_mask": tensorflow.constant(mask)}
    compiled[method](inputs, stop_token_ids=None)
"""
_TORCH = """
import torch, transformers
from transformers import GPT2Config, GPT2LMHeadModel
model = GPT2LMHeadModel(GPT2Config()).to(getattr(torch, sys.argv[1])).eval()
options = {
    "greedy": dict(do_sample=False),
    "top_p": dict(do_sample=True, top_p=0.9, top_k=0),
    "beam": dict(do_sample=False, num_beams=%d),
}
def run(ids, method):
    ids = torch.from_numpy(ids).long()
    with torch.inference_mode():
        model.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=%d, max_new_tokens=%d,
                       pad_token_id=0, **options[method])
"""
_KERAS_VERSIONS = 'f"keras {keras.__version__}, tensorflow {tensorflow.__version__}"'


class Worker:
    """A process that runs one case a line."""

    def __init__(self, name, python, setup, versions, *arguments):
        script = _WORKER.format(setup=setup, versions=versions, prompt=PROMPT)
        self.name = name
        self._process = subprocess.Popen(
            [python, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.versions = json.loads(self._process.stdout.readline())["versions"]

    def run(self, case):
        """Seconds of one call."""
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)


def workers(options, dtype):
    """A process a library; KerasHub's with XLA and without."""
    yield Worker("tfmodels", sys.executable, _OURS % (BEAMS, NEW), _KERAS_VERSIONS, dtype)
    if options.keras_hub_python:
        for mode in ("graph", "xla"):
            setup = _KERAS_HUB % (BEAMS, NEW)
            yield Worker(f"KerasHub {mode}", options.keras_hub_python, setup, _KERAS_VERSIONS, dtype, mode)
    if options.torch_python and dtype != "int8":
        versions = 'f"torch {torch.__version__}, transformers {transformers.__version__}"'
        yield Worker("transformers", options.torch_python, _TORCH % (BEAMS, NEW, NEW), versions, dtype)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keras-hub-python", help="a Python that has keras_hub and tensorflow")
    parser.add_argument("--torch-python", help="a Python that has transformers and torch")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--methods", nargs="+", default=["greedy", "top_p", "beam"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--gigabytes-per-second", type=float, default=26.0, help="speed of the memory")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {PROMPT} + {NEW} tokens")
    for dtype in options.dtypes:
        bytes_each = {"float32": 4, "bfloat16": 2, "int8": 1}[dtype]
        limit = PARAMETERS * bytes_each / options.gigabytes_per_second / 1e6  # ms
        programs = list(workers(options, dtype))
        for program in programs:
            print(f"{program.name}: {program.versions}")
        print(f"{dtype}: reading the weights once takes {limit:.1f} ms")
        for method in options.methods:
            for batch in options.batches:
                report({"method": method, "batch": batch}, programs, options.runs, limit)
        for program in programs:
            program.close()


def report(case, programs, runs, limit):
    """Runs one case in turns and prints a line a library."""
    first = [program.run(case) for program in programs]
    seconds = list(zip(*([program.run(case) for program in programs] for _ in range(runs)), strict=True))
    steps = [statistics.median(each) / NEW * 1000 for each in seconds]
    for i, program in enumerate(programs):
        peers = [step for step, other in zip(steps, programs, strict=True) if other.name != "tfmodels"]
        ratio = f"  best peer / ours {min(peers) / steps[0]:.2f}" if peers and i == 0 else ""
        print(
            f"{case['method']:6} batch {case['batch']:3}  {program.name:14} {steps[i]:7.1f} ms a step  "
            f"{limit / steps[i]:4.0%} of the limit  first call {first[i]:5.1f} s{ratio}",
            flush=True,
        )


if __name__ == "__main__":
    main()
