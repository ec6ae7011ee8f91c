"""Folders that lie: each is refused in one sentence that names the field or tensor."""

import json
import pathlib
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tfmodels

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "pretrained"
TENSOR = "transformer.h.1.mlp.c_fc.weight"


@pytest.fixture
def folder(tmp_path):
    """A good folder of copies that a test may spoil."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((FIXTURES / "gpt2_lm" / name).read_bytes())
    return tmp_path


def refused(folder, message, **options):
    with pytest.raises(ValueError, match=message) as error:
        tfmodels.from_pretrained(folder, **options)
    assert "\n" not in str(error.value)


def set_fields(folder, **fields):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | fields))


def set_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_the_good_folder_loads(folder):
    tfmodels.from_pretrained(folder)


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_is_never_read(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(str(folder / "sprung"))))
    refused(folder, r"Received: pytorch_model.bin, which is never read: it can run code")
    (folder / "model.safetensors").write_bytes((folder / "pytorch_model.bin").read_bytes())
    refused(folder, r"must be a whole safetensors file. Received: .*model.safetensors")
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"model_type": "mamba"}, r"model_type must be one of .*bert, .*Received: 'mamba'"),
        ({"model_type": None}, r"model_type .*Received: None"),
        ({"model_type": ["gpt2"]}, r"model_type .*Received: \['gpt2'\]"),
        ({"architectures": ["GPT2DoubleHeadsModel"]}, r"architectures .*GPT2DoubleHeadsModel"),
        ({"architectures": []}, r"architectures must name one of GPT2LMHeadModel.*Pass task="),
        ({"n_layer": "4"}, r"n_layer must be a whole number.*Received: '4'"),
        ({"n_layer": -1}, r"n_layer .*Received: -1"),
        ({"n_head": 5}, r"num_heads=5"),
        ({"resid_pdrop": 1}, r"resid_pdrop .*Received: 1"),
        ({"layer_norm_epsilon": "small"}, r"layer_norm_epsilon .*Received: 'small'"),
        ({"activation_function": "quick_gelu"}, r"activation_function .*Received: 'quick_gelu'"),
        ({"scale_attn_weights": False}, r"scale_attn_weights .*Received: False"),
        ({"tie_word_embeddings": "no"}, r"tie_word_embeddings .*Received: 'no'"),
        ({"n_layer": 5}, r"must hold the tensor 'transformer.h.4.ln_1.weight'"),
        ({"n_layer": 3}, r"no tensor but those.*Received: 'transformer.h.3"),
        ({"vocab_size": 24}, r"'transformer.wte.weight'.*\(24, 12\).*Received: \(23, 12\)"),
        ({"n_layer": 10**9}, r"must hold the tensor 'transformer.h.4.ln_1.weight'"),
    ],
)
def test_config(folder, fields, message):
    set_fields(folder, **fields)
    refused(folder, message)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", "[" * 100_000])
def test_config_that_is_no_object(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    refused(folder, r"config.json must (be JSON|hold a JSON object)")


def test_no_config(folder):
    (folder / "config.json").unlink()
    refused(folder, r"must be a file .*config.json")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop(TENSOR), rf"must hold the tensor '{TENSOR}' of shape \(12, 20\)"),
        (lambda t: t.update({"sneak": np.ones(2, "float32")}), r"no tensor but.*Received: 'sneak'"),
        (
            lambda t: t.update({TENSOR: np.ascontiguousarray(t[TENSOR].T)}),
            rf"'{TENSOR}' must have the shape \(12, 20\).*Received: \(20, 12\)",
        ),
        (
            lambda t: t.update({TENSOR: t[TENSOR].astype("int32")}),
            rf"'{TENSOR}' must be one of float32, float16, bfloat16. Received: I32",
        ),
    ],
)
def test_tensors(folder, change, message):
    set_tensors(folder, change)
    refused(folder, message)


def test_broken_files(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    huge = (2**62).to_bytes(8, "little")
    for broken in (
        whole[:-1],
        whole[:100],
        b"",
        whole + b"x",
        huge + whole[8:],
        whole.replace(b"[12,20]", b"[12,21]"),
        whole.replace(b'"F32"', b'"F16"', 1),
    ):
        path.write_bytes(broken)
        refused(folder, r"must be a whole safetensors file. Received: .*model.safetensors")


@pytest.mark.parametrize(
    "file, message",
    [
        ("../model.safetensors", r"files inside the folder.*'\.\./model.safetensors'"),
        ("/etc/model.safetensors", r"files inside the folder"),
        ("..\\model.safetensors", r"files inside the folder"),
        ("weights.bin", r"files inside the folder.*'weights.bin'"),
        (7, r"files inside the folder.*7"),
        ("none.safetensors", r"whole safetensors file.*none.safetensors"),
    ],
)
def test_index(folder, file, message):
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    names = load_file(folder / "other.safetensors")
    index = {"weight_map": dict.fromkeys(names, "other.safetensors") | {TENSOR: file}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, message)


def test_index_that_leaves_one_out(folder):
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    names = load_file(folder / "other.safetensors")
    index = dict.fromkeys(names, "other.safetensors")
    del index[TENSOR]
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    refused(folder, rf"'{TENSOR}' listed in no file, found in other.safetensors")
    path.write_text(json.dumps({"weight_map": []}))
    refused(folder, r"must have a weight_map")


def test_no_folder():
    with pytest.raises(ValueError, match=r"must be a folder ./nowhere. Received: none"):
        tfmodels.from_pretrained("./nowhere")


def test_unknown_task(folder):
    refused(folder, r"task must be one of .*causal_language_modelling.*'sing'", task="sing")
