"""What folders of BART and MarianMT may hold and may lack."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tfmodels
from tests.pretrained.test_pretrained import FIXTURES, read, stored

COPIES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FIXTURES / "marian", tmp_path / "model")


def change(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("names", [COPIES[:1], COPIES[2:], COPIES, ("model.shared.weight", *COPIES)])
def test_one_matrix_under_any_names(folder, names, tmp_path):
    """Published files hold the words once, under one of several names, or several times."""
    tensors = load_file(folder / "model.safetensors")
    words = tensors.pop("model.shared.weight")
    save_file(tensors | {name: words.copy() for name in names}, folder / "model.safetensors")
    model = tfmodels.from_pretrained(folder)
    expected, inputs, _ = read("marian")
    np.testing.assert_array_equal(model(inputs), expected(inputs))
    tfmodels.save_pretrained(model, tmp_path / "out")
    assert stored(tmp_path / "out") == stored(folder)


def test_copies_that_differ(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.shared.weight"] + 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="model.shared.weight' and 'lm_head.weight' must be equal"):
        tfmodels.from_pretrained(folder)


def test_a_bias_left_out_is_zero(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    del tensors["final_logits_bias"]
    save_file(tensors, folder / "model.safetensors")
    model = tfmodels.from_pretrained(folder)
    assert not np.any(model.logits_bias.bias)
    tfmodels.save_pretrained(model, tmp_path / "out")
    assert stored(tmp_path / "out") == stored(folder)


def test_special_tokens_of_an_early_folder(folder):
    """Before generation_config.json they stood in config.json; the end is never suppressed."""
    (folder / "generation_config.json").unlink()
    change(folder, bad_words_ids=[[28], [0]], forced_bos_token_id=7, forced_eos_token_id=None)
    config = tfmodels.from_pretrained(folder).config
    assert (config.start_id, config.end_id, config.pad_id) == (28, 0, 28)
    assert (config.forced_start_id, config.forced_end_id, config.suppressed_ids) == (7, None, (28,))


def test_generation_config_decides_alone(folder):
    """As in transformers: what it lacks is not looked up in config.json."""
    (folder / "generation_config.json").write_text('{"decoder_start_token_id": 5, "eos_token_id": [0, 3]}')
    config = tfmodels.from_pretrained(folder).config
    assert (config.start_id, config.end_id, config.forced_end_id) == (5, (0, 3), None)


@pytest.mark.parametrize("name", ["bart", "marian"])
def test_dropout_inside_the_feed_forward_networks(name, tmp_path):
    folder = shutil.copytree(FIXTURES / name, tmp_path / "model")
    change(folder, activation_dropout=0.3)
    model = tfmodels.from_pretrained(folder)
    assert model.config.intermediate_dropout == 0.3
    assert model.encoder.blocks[0].intermediate_dropout == 0.3
    copy = type(model).from_config(model.get_config())  # of no folder: all is written from the config
    tfmodels.save_pretrained(copy, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["activation_dropout"] == 0.3


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(normalize_before=True), "normalize_before must be False"),
        (dict(decoder_vocab_size=31), "source_vocabulary_size=29, target_vocabulary_size=31"),
        (dict(encoder_attention_heads=5), "num_encoder_heads=5"),
        (dict(d_model=18), "shared.weight' must have the shape"),
    ],
)
def test_bad_config(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(ValueError, match=message):
        tfmodels.from_pretrained(folder)


def test_words_of_several_tokens_are_refused(folder):
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bad_words_ids": [[1, 2]]}))
    with pytest.raises(ValueError, match="bad_words_ids must be lists of one id each.*several tokens"):
        tfmodels.from_pretrained(folder)
