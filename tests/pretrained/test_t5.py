"""What files of T5 hold beside their weights: copies of the words, and tables of early versions."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tfmodels
from tests.pretrained.test_pretrained import FIXTURES, read, stored
from tfmodels.pretrained.fields import Fields
from tfmodels.pretrained.t5 import read_t5

WORDS = "shared.weight"
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")


def changed(tmp_path, name, change):
    """A copy of a fixture whose dict of tensors went through `change`."""
    folder = tmp_path / name
    shutil.copytree(FIXTURES / name, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("first", [WORDS, *COPIES])
def test_words_under_any_name(tmp_path, first):
    def rename(tensors):
        tensors[first] = tensors.pop(WORDS)

    folder = changed(tmp_path, "t5", rename)
    model, inputs, _ = read("t5")
    again = tfmodels.from_pretrained(folder)
    np.testing.assert_array_equal(again(inputs), model(inputs))
    tfmodels.save_pretrained(again, tmp_path / "out")
    assert stored(tmp_path / "out") == stored(folder)


def test_words_under_every_name(tmp_path):
    """Written back under every name, so that an older reader finds what it found before."""

    def copy(tensors):
        tensors.update({name: tensors[WORDS] for name in COPIES})

    folder = changed(tmp_path, "t5", copy)
    model = tfmodels.from_pretrained(folder)
    assert model.config.tie_embeddings
    tfmodels.save_pretrained(model, tmp_path / "out")
    assert stored(tmp_path / "out") == stored(folder)


def test_other_words_out_are_a_matrix_of_their_own(tmp_path):
    def untie(tensors):
        tensors["lm_head.weight"] = tensors[WORDS] + 1

    model = tfmodels.from_pretrained(changed(tmp_path, "t5", untie))
    assert not model.config.tie_embeddings and model.config.scale_logits
    difference = np.asarray(model.output_dense.kernel).T - np.asarray(model.token_embedding.embeddings)
    np.testing.assert_allclose(difference, 1, atol=1e-6)


def test_words_that_differ_are_refused(tmp_path):
    def change(tensors):
        tensors["decoder.embed_tokens.weight"] = tensors[WORDS] + 1

    folder = changed(tmp_path, "t5", change)
    message = "'shared.weight' and 'decoder.embed_tokens.weight' must be equal.*different values"
    with pytest.raises(ValueError, match=message):
        tfmodels.from_pretrained(folder)


def test_a_table_of_early_files_is_left_out(tmp_path):
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    folder = changed(tmp_path, "t5", lambda tensors: tensors.update({name: np.ones((7, 3), "float32")}))
    model, inputs, _ = read("t5")
    np.testing.assert_array_equal(tfmodels.from_pretrained(folder)(inputs), model(inputs))


def test_early_config_tells_the_scale_by_tying():
    """Version 1.1's early config.json: no field for the scale, and matrices of their own."""
    assert read_t5(Fields({"tie_word_embeddings": True})).scale_logits
    assert not read_t5(Fields({"tie_word_embeddings": False})).scale_logits
    assert read_t5(Fields({"tie_word_embeddings": False, "scale_decoder_outputs": True})).scale_logits


@pytest.mark.parametrize("proj", ["gated", "gated-gelu-new", "gated-sigmoid", 3])
def test_unknown_feed_forward(proj):
    with pytest.raises(ValueError, match="feed_forward_proj must be one of"):
        read_t5(Fields({"feed_forward_proj": proj}))
