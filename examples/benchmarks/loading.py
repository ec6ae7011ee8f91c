"""Seconds to load a checkpoint, each in a fresh process, imports not counted.

python examples/benchmarks/loading.py FOLDER [--transformers PYTHON] [--kerashub PYTHON] [--runs 5]

FOLDER holds a causal language model that transformers names. Each peer's Python has its packages.
KerasHub reads the backbone alone: its language model asks for a tokenizer too. Prints the versions, the
median of the runs after one warm-up, the peak memory above that of the imports, in weights, and the
ratios of the medians.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

_MEASURE = """
import json, os, resource, sys, time
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
{imports}
before, start = peak(), time.perf_counter()
model = {load}
seconds = time.perf_counter() - start
print(json.dumps({{"seconds": seconds, "bytes": peak() - before, "versions": {versions}}}))
"""
OURS = _MEASURE.format(
    imports="import keras, tensorflow, tfmodels\ntfmodels.from_pretrained",
    load="tfmodels.from_pretrained(sys.argv[1], dtype=sys.argv[2])",
    versions='f"keras {keras.__version__}, tensorflow {tensorflow.__version__}"',
)
PEERS = {
    "transformers": _MEASURE.format(
        imports="import torch, transformers\nfrom transformers import AutoModelForCausalLM",
        load="AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[2]))",
        versions='f"torch {torch.__version__}, transformers {transformers.__version__}"',
    ),
    "kerashub": _MEASURE.format(
        imports="import os; os.environ['KERAS_BACKEND'] = 'tensorflow'\nimport keras, keras_hub",
        load="keras_hub.models.Backbone.from_preset(sys.argv[1], dtype=sys.argv[2])",
        versions='f"keras {keras.__version__}, keras_hub {keras_hub.__version__}"',
    ),
}


def measure(python, script, folder, dtype):
    """One run in a fresh process."""
    result = subprocess.run([python, "-c", script, folder, dtype], check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--dtype", default="float32")
    for name in PEERS:
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"a Python that has {name}")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    files = [entry for entry in os.scandir(options.folder) if entry.name.endswith(".safetensors")]
    stored = sum(file.stat().st_size for file in files)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {stored / 1e6:.0f} MB stored"
    )
    programs = {"tfmodels": (sys.executable, OURS)}
    programs |= {name: (vars(options)[name], script) for name, script in PEERS.items() if vars(options)[name]}
    runs = {name: [] for name in programs}
    for _ in range(options.runs + 1):  # in turns, so that a busy machine slows all alike
        for name, (python, script) in programs.items():
            runs[name].append(measure(python, script, options.folder, options.dtype))
    medians = {}
    for name, (_, *measured) in runs.items():  # the first was the warm-up
        medians[name] = statistics.median(run["seconds"] for run in measured)
        memory = statistics.median(run["bytes"] for run in measured) / stored
        print(
            f"{name} ({measured[0]['versions']}), {options.dtype}: median of {options.runs} "
            f"{medians[name]:.2f} s, peak memory {memory:.2f} of the stored weights"
        )
    for name in [name for name in medians if name != "tfmodels"]:
        print(f"tfmodels / {name}: {medians['tfmodels'] / medians[name]:.2f}")


if __name__ == "__main__":
    main()
