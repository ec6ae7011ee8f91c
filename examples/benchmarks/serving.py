"""What strings and clients cost: GPT-2 124M with random weights, some 32 prompt tokens, 64 new, greedy.

python examples/benchmarks/serving.py VOCABULARY [--size small] [--runs 5]

VOCABULARY is a folder with vocab.json and merges.txt of a byte pair tokenizer. Prints, as medians of runs
that take turns: text to text by the export against the bare loop of ids in the same process; texts a
second of one client and of eight at once of `tfmodels serve`; and of a C program, which sends one text or,
as a server's batcher does, eight.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import tensorflow as tf

import tfmodels
from tfmodels.generation.config import Options
from tfmodels.generation.generate import generate_ids, number_specs, number_tensors
from tfmodels.generation.products import choose_layout
from tfmodels.generation.prompts import prepare

CLIENTS, NEW = 8, 64
TEXT = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals, when it "
CLIENT = pathlib.Path(__file__).parents[2] / "tests" / "serving" / "client.c"


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def overhead(model, tokenizer, folder, runs):
    """Seconds of the export with text, and of the bare loop with ids."""
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    config, inputs, rules = prepare(model, TEXT, tokenizer, None, dict(max_new_tokens=NEW, stop=()))
    layout = choose_layout(model, 4, NEW, compiled=False)  # as an export has it

    def loop(inputs, numbers):
        return generate_ids(model, inputs, Options(config, numbers), rules, layout=layout)

    specs = {name: tf.TensorSpec((None, None), tf.int32) for name in inputs}
    bare = tf.function(loop, autograph=False).get_concrete_function(specs, number_specs())
    inputs = {name: tf.constant(value) for name, value in inputs.items()}
    print(f"prompt: {inputs['token_ids'].shape[1]} tokens")
    calls = (lambda: serve(text=tf.constant([TEXT])), lambda: bare(inputs, number_tensors(config)))
    measured = [[seconds(call) for call in calls] for _ in range(runs + 1)][1:]
    return [statistics.median(each) for each in zip(*measured, strict=True)]


def served(folder, runs):
    """Texts a second of one client and of eight."""
    start = "import sys; from tfmodels.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", start, "serve", folder, "--rest_port=0", "--grpc_port=0", "--name=model"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        lines = [server.stdout.readline() for _ in range(4)]  # the last when it listens
        url = re.search(r"http://\S+?(?=/\n)", lines[0]).group() + "/v1/models/model:predict"

        def ask(_):
            request = urllib.request.Request(url, json.dumps({"instances": [TEXT]}).encode())
            urllib.request.urlopen(request).read()

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:

            def one():
                ask(None)

            def eight():
                list(pool.map(ask, range(CLIENTS)))

            measured = [[seconds(one), seconds(eight)] for _ in range(runs + 1)][1:]
    finally:
        server.terminate()
        server.wait()
    one, eight = (statistics.median(each) for each in zip(*measured, strict=True))
    return 1 / one, CLIENTS / eight


def in_c(folder, runs):
    """Texts a second of one text and of eight at once."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(pathlib.Path(folder, "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["serving_default"]
    names = signature.inputs["text"].name, signature.outputs["text"].name
    library = pathlib.Path(tf.__file__).parent
    with tempfile.TemporaryDirectory() as temporary:
        program = os.path.join(temporary, "client")
        flags = [f"-I{library / 'include'}", f"-L{library}", f"-Wl,-rpath,{library}"]
        libraries = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
        subprocess.run(["gcc", CLIENT, *flags, *libraries, "-o", program], check=True)
        rates = []
        for texts in (1, CLIENTS):
            ran = subprocess.run(
                [program, folder, *names],
                input=f"{TEXT}\n" * texts,
                env=os.environ | {"RUNS": str(runs)},
                capture_output=True,
                text=True,
                check=True,
            )
            times = [float(line) for line in ran.stdout.splitlines()[-runs:]]
            rates.append(texts / statistics.median(times))
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocabulary", help="folder of a byte pair tokenizer")
    parser.add_argument("--size", default="small")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    tokenizer = tfmodels.tokenizers.BytePairTokenizer.from_pretrained(options.vocabulary)
    model = tfmodels.models.gpt2(options.size, vocabulary_size=tokenizer.vocabulary_size)
    with tempfile.TemporaryDirectory() as temporary:
        folder = tfmodels.export(
            model,
            tokenizer,
            os.path.join(temporary, "model"),
            signatures=["serving_default"],
            max_new_tokens=NEW,
            stop=(),
        )
        text, bare = overhead(model, tokenizer, str(folder), options.runs)
        print(f"text to text {text:.3f} s, the bare loop {bare:.3f} s: {text / bare - 1:+.1%}", flush=True)
        for name, measure in (("tfmodels serve", served), ("C program", in_c)):
            one, eight = measure(str(folder), options.runs)
            print(
                f"{name}: {one:.2f} texts a second of one client, {eight:.2f} of {CLIENTS}: "
                f"{eight / one:.2f} times",
                flush=True,
            )


if __name__ == "__main__":
    main()
