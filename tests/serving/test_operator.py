"""`tfmodels check`, the operator's files, smaller weights, interrupted exports."""

import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

import tfmodels
from tfmodels.serving.check import check, report
from tfmodels.serving.operator import best_batch, write_serving_files
from tfmodels.serving.quantize import quantized
from tfmodels.serving.writing import write_version


@pytest.fixture(scope="module")
def exports(greedy_export, tmp_path_factory):
    """A folder of versions with its serving files."""
    path = tmp_path_factory.mktemp("models") / "small-words"
    shutil.copytree(greedy_export, path / "1")
    write_serving_files(path, seconds=0.01)
    return path


def test_check(exports):
    found = check(exports, seconds=0.01)  # in a process without tfmodels
    text = report(found)
    assert found["folder"] == str(exports / "1")
    for name in found["card"]["signatures"]:
        assert re.search(rf"^{name}: ", text, re.MULTILINE)
    assert "prefill: token_ids int32[?, ?], padding_mask int32[?, ?], cache_length int32[]" in text
    assert [row["batch"] for row in found["batches"]] == [1, 2, 4, 8, 16]
    with pytest.raises(FileNotFoundError, match="no export in '/nowhere'"):
        check("/nowhere")


def test_check_sees_a_broken_export(exports, tmp_path):
    broken = shutil.copytree(exports / "1", tmp_path / "1")
    variables = broken / "variables" / "variables.data-00000-of-00001"
    variables.write_bytes(variables.read_bytes()[:100])
    with pytest.raises(ValueError, match="does not load and answer. Received: "):
        check(tmp_path, seconds=0.01)


def test_serving_files(exports):
    files = {file.name: file.read_text() for file in (exports / "serving").iterdir()}
    kinds = ("models.config", "batching.config", "monitoring.config")
    others = ("compose.yaml", "kubernetes.yaml", "request.sh", "client.py")
    assert set(files) == {*kinds, *others}
    assert not any(re.search(r"\$[a-z]", text) for text in files.values())
    compose = yaml.safe_load(files["compose.yaml"])["services"]["small-words"]
    assert compose["image"] == f"tensorflow/serving:{tf.__version__}"
    deployment, service = yaml.safe_load_all(files["kubernetes.yaml"])
    assert deployment["kind"], service["kind"] == ("Deployment", "Service")
    subprocess.run(["sh", "-n", exports / "serving" / "request.sh"], check=True)
    with pytest.raises(ValueError, match="Received: 'Not_a_name'"):
        write_serving_files(exports, "Not_a_name")


def test_model_config_is_that_of_tensorflow_serving(exports):
    text_format = pytest.importorskip("google.protobuf.text_format")
    config_pb2 = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    folder = exports / "serving"
    models = text_format.Parse((folder / "models.config").read_text(), config_pb2.ModelServerConfig())
    assert models.model_config_list.config[0].base_path == "/models/small-words"
    batching = (folder / "batching.config").read_text()
    assert re.search(r"^max_batch_size { value: \d+ }$", batching, re.MULTILINE)


def test_best_batch():
    rows = [{"batch": b, "texts_per_second": t} for b, t in ((1, 10), (2, 19), (4, 30), (8, 31))]
    assert best_batch(rows) == 4


@pytest.mark.parametrize("mode", ["int8", "bfloat16"])
def test_smaller_weights(words, decoder, tmp_path, mode):
    folder = tfmodels.export(
        decoder, words, tmp_path, quantize=mode, max_new_tokens=3, signatures=["serving_default"]
    )
    found = json.loads(pathlib.Path(folder, "assets.extra", "tfmodels.json").read_text())["quantization"]
    assert found["mode"] == mode and 0 < found["relative_difference"] < 0.1
    assert found["argmax_agreement"] > 0.9
    assert found["weight_bytes"] < 0.6 * found["weight_bytes_before"]
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    assert serve(text=tf.constant(["In the", ""]))["text"].shape == (2,)
    if mode == "int8":
        with pytest.raises(ValueError, match="one of int8, bfloat16, or None. Received: 'int4'"):
            tfmodels.export(decoder, words, tmp_path, quantize="int4")


@pytest.mark.parametrize("mode", ["int8", "bfloat16"])
def test_smaller_weights_with_lora(decoder, mode):
    model = type(decoder).from_config(decoder.get_config())
    model.set_weights(decoder.get_weights())
    x, generator = {"token_ids": np.array([[3, 5, 7, 2]])}, np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dense):
            layer.enable_lora(2)
            layer.lora_kernel_b.assign(generator.normal(0.0, 0.1, layer.lora_kernel_b.shape))
    expected, plain = model(x), decoder(x)
    smaller = quantized(model, mode)
    far = np.abs(expected - plain).max()
    assert np.abs(keras.ops.cast(smaller(x), "float32") - expected).max() < 0.1 * far
    with pytest.raises(ValueError, match="has not been quantised. Received: one in int8.*quantize=None"):
        quantized(quantized(decoder, "int8"), mode)


@pytest.mark.parametrize("there", [False, True])
def test_a_failed_export_leaves_what_was_there(tmp_path, there):
    path = tmp_path / "words"
    if there:
        path.mkdir()

    def fail(folder):
        raise ValueError("no such op")

    with pytest.raises(ValueError, match="no such op"):
        write_version(path, fail)
    assert path.exists() == there and not list(path.glob("*"))
    write_version(path, lambda folder: None)
    assert [file.name for file in path.iterdir()] == ["1"]


_EXPORT = """
import sys, tfmodels
tokenizer = tfmodels.tokenizers.BytePairTokenizer.train(["In the beginning"], vocabulary_size=270)
model = tfmodels.models.gpt2("tiny", num_layers=1, hidden_dim=512, num_heads=2, intermediate_dim=2048,
    vocabulary_size=270, max_sequence_length=24)
print("ready", flush=True)
tfmodels.export(model, tokenizer, sys.argv[1], max_new_tokens=3)
"""


@pytest.mark.slow
def test_killed_and_out_of_disk(exports, tmp_path):
    """Earlier versions stay, and no half one is visible."""
    path = shutil.copytree(exports, tmp_path / "killed")
    process = subprocess.Popen([sys.executable, "-c", _EXPORT, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    while not any(f.name.startswith(".writing-") and any(f.iterdir()) for f in path.iterdir()):
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert {f.name for f in path.iterdir() if not f.name.startswith(".")} == {"1", "serving"}

    def small_files():  # what a full disk is to a writer: a write that fails in the middle
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = subprocess.run(
        [sys.executable, "-c", _EXPORT, path], capture_output=True, text=True, preexec_fn=small_files
    )
    assert done.returncode == 1 and "OSError" in done.stderr and "Cannot export to path" in done.stderr
    assert {f.name for f in path.iterdir() if not f.name.startswith(".")} == {"1", "serving"}
    loaded = tf.saved_model.load(str(path / "1"))
    assert loaded.signatures["serving_default"](text=tf.constant(["In"]))["text"].shape == (1,)
