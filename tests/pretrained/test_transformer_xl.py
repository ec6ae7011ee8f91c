"""Transformer-XL checkpoints: what a second segment sees of the first, as transformers had it."""

import numpy as np
import pytest

import tfmodels
from tests.pretrained.test_pretrained import ATOL, FIXTURES, NAMES, read

XL = [name for name in NAMES if name.startswith("transfo_xl")]
LANGUAGE_MODELS = [name for name in XL if "greedy" in np.load(FIXTURES / name / "expected.npz")]


def two_segments(model, arrays):
    """Final hidden states of the second of two segments, as the memory of `fit` gives them."""
    layers, length, hidden_dim = model.memory_shape
    batch, step = arrays["input_input_ids"].shape
    memory = np.zeros((batch, layers, length, hidden_dim), "float32")
    mask = np.zeros((batch, length), "int32")
    _, remembered = model.stream_hidden({"token_ids": arrays["input_input_ids"]}, memory, mask)
    memory = np.concatenate([memory, remembered], axis=2)[:, :, -length:]
    mask = np.concatenate([mask, np.ones((batch, step), "int32")], axis=1)[:, -length:]
    return model.stream_hidden({"token_ids": arrays["next_input_ids"]}, memory, mask)[0]


@pytest.mark.parametrize("name", XL)
def test_second_segments_equal_transformers(name):
    model, _, arrays = read(name)
    hidden = two_segments(model, arrays)
    np.testing.assert_allclose(hidden, arrays["next_hidden"], atol=ATOL)
    if name in LANGUAGE_MODELS:
        log_probabilities = model.token_embedding(hidden, reverse=True)
        np.testing.assert_allclose(log_probabilities, arrays["next_logits"], atol=ATOL)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_streams_of_a_checkpoint(name):
    """The loss of the second batch of a stateful stream is that of transformers with its memory."""
    model, _, arrays = read(name)
    model.compile("sgd", stateful=True)
    ids, following = arrays["input_input_ids"], arrays["next_input_ids"]
    model.test_on_batch({"token_ids": ids}, ids)
    model.reset_metrics()
    loss = model.test_on_batch({"token_ids": following}, following)[0]
    expected = -np.take_along_axis(arrays["next_logits"], following[..., None], -1).mean()
    np.testing.assert_allclose(loss, expected, atol=1e-5, rtol=1e-6)


def test_zeros_are_part_of_the_checkpoint(tmp_path):
    """transformers always sees a memory of zeros, and could not hold a model without it."""
    model = tfmodels.models.transformer_xl("tiny", memory_length=5)
    with pytest.raises(ValueError, match=r"zero_memory=False.*Save it with model.save"):
        tfmodels.save_pretrained(model, tmp_path / "out")
    model = tfmodels.models.transformer_xl("tiny", memory_length=5, zero_memory=True, cutoffs=(7, 90))
    tfmodels.save_pretrained(model, tmp_path / "out")
    again = tfmodels.from_pretrained(tmp_path / "out")
    inputs = {"token_ids": np.array([[1, 80, 3999]])}
    np.testing.assert_array_equal(again(inputs), model(inputs))


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("attn_type", 1, "attn_type must be 0"),
        ("tie_projs", [True, True, True], "tie_projs must be false for the first cluster"),
        ("cutoffs", "all", "cutoffs must be a list"),
        ("cutoffs", [19, 11], "cutoffs must rise"),
        ("clamp_len", "far", "clamp_len must be a whole number"),
        ("mem_len", -3, "memory_length must be"),
        ("d_model", 15, "hidden_dim must be even"),
        ("vocab_size", 30, r"emb_layers.2.weight.*\(11, 3\).*Received: \(10, 3\)"),
    ],
)
def test_bad_fields(field, value, message, tmp_path):
    import json
    import shutil

    shutil.copytree(FIXTURES / "transfo_xl_lm", tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=message):
        tfmodels.from_pretrained(tmp_path / "copy")
