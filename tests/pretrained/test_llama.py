"""config.json of Llama and its kin, in each of its spellings."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tfmodels

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "pretrained"
IDS = {"token_ids": np.array([[3, 7, 1, 12, 5, 9, 2, 8]])}


def copied(name, folder, **fields):
    """A fixture's folder with fields of its config.json set, or removed where they are ...."""
    shutil.copytree(FIXTURES / name, folder)
    values = json.loads((folder / "config.json").read_text()) | fields
    values = {field: value for field, value in values.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_rope_scaling_of_older_folders(tmp_path, key):
    expected = tfmodels.from_pretrained(FIXTURES / "llama_lm")
    scaling = json.loads((FIXTURES / "llama_lm" / "config.json").read_text())["rope_parameters"]
    base = scaling.pop("rope_theta")
    scaling[key] = scaling.pop("rope_type")
    older = dict(rope_parameters=..., rope_theta=base, rope_scaling=scaling)
    model = tfmodels.from_pretrained(copied("llama_lm", tmp_path / "older", **older))
    assert model.config == expected.config
    np.testing.assert_array_equal(model(IDS), expected(IDS))


def test_frequencies_in_older_files_are_ignored(tmp_path):
    folder = copied("llama_lm", tmp_path / "older")
    arrays = load_file(folder / "model.safetensors")
    arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, "float32")
    save_file(arrays, folder / "model.safetensors")
    tfmodels.from_pretrained(folder)


def test_model_types_with_one_config(tmp_path):
    """A Mistral without a window stays a Mistral."""
    folder = copied("mistral_lm", tmp_path / "in", sliding_window=None)
    tfmodels.save_pretrained(tfmodels.from_pretrained(folder), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "mistral"


def test_a_window_that_is_left_out(tmp_path):
    folder = copied("mistral_lm", tmp_path / "in", sliding_window=...)
    assert "sliding_window" not in json.loads((folder / "config.json").read_text())
    assert tfmodels.from_pretrained(folder).config.window == 4096


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("llama_lm", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, r"rope_type.*Received: 'yarn'"),
        ("llama_lm", {"rope_scaling": {"type": "linear"}}, r"factor must be a number.*Received: None"),
        ("llama_lm", {"rope_parameters": [1]}, r"rope_parameters must be an object"),
        ("llama_lm", {"partial_rotary_factor": 0.5}, r"partial_rotary_factor must be 1.0.*0.5"),
        ("llama_lm", {"num_key_value_heads": 4}, r"num_heads=6, num_key_value_heads=4"),
        ("mistral_lm", {"sliding_window": "4"}, r"sliding_window must be a whole number"),
        ("qwen2_lm", {"max_window_layers": -1, "layer_types": ...}, r"max_window_layers.*Received: -1"),
        ("qwen2_lm", {"layer_types": ["sliding_attention", "full_attention"] * 2}, r"layer_types must be"),
        ("qwen2_lm", {"layer_types": 3}, r"layer_types must be"),
    ],
)
def test_bad_input(tmp_path, name, fields, message):
    with pytest.raises(ValueError, match=message):
        tfmodels.from_pretrained(copied(name, tmp_path / "bad", **fields))
