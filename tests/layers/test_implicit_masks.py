"""Keras's implicit masks, of `Embedding(mask_zero=True)`, do what a `padding_mask` does."""

import warnings

import keras
import numpy as np
import pytest

from tfmodels import layers

IDS = np.array([[5, 3, 7, 2, 6], [4, 8, 3, 0, 0], [0, 0, 4, 8, 3]], "int32")


def embedded(ids, name, mask_zero=True):
    x = keras.layers.Embedding(10, 16, mask_zero=mask_zero, name=f"{name}_embedding")(ids)
    return layers.PositionalEmbedding(8, name=f"{name}_positions")(x)


def classifier(pooling, mask_zero=True):
    """A model as Keras's tutorials write it: no layer is told of padding."""
    ids = keras.Input((None,), dtype="int32")
    x = layers.TransformerBlock(2, 32, name="block")(embedded(ids, "ids", mask_zero))
    rotary = layers.RotaryEmbedding(8)(x)
    x = layers.RMSNormBlock(2, 32, name="rms_block")(x, rotary=rotary)
    x = layers.MultiHeadSelfAttention(2, causal=True, name="attention")(layers.FeedForward(32)(x))
    return keras.Model(ids, pooling()(x))


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "(?s).*does not support masking")  # of a layer that drops a mask
        yield


@pytest.mark.parametrize(
    "pooling",
    [layers.MeanToken, layers.FirstToken, layers.LastToken, keras.layers.GlobalAveragePooling1D],
)
def test_padded_rows_equal_the_row_alone(pooling, tmp_path):
    model = classifier(pooling)
    results = model.predict(IDS, verbose=0)
    alone = model.predict(IDS[1:2, :3], verbose=0)
    np.testing.assert_allclose(results[1:], np.repeat(alone, 2, axis=0), atol=1e-6)
    # Without the mask they would not.
    unmasked = classifier(pooling, mask_zero=False)
    unmasked.set_weights(model.get_weights())
    assert np.abs(unmasked(IDS)[1:] - alone).max() > 1e-3
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(IDS), model(IDS))


def test_cross_attention_has_both_sides_masks():
    source, target = (keras.Input((None,), dtype="int32") for _ in range(2))
    decoder = layers.TransformerBlock(2, 32, causal=True, cross_attention=True)
    attention = layers.MultiHeadCrossAttention(2)
    encoder_output = embedded(source, "source")
    x = decoder(embedded(target, "target"), encoder_output=encoder_output)
    model = keras.Model([source, target], attention(x, encoder_output))
    results = model([IDS[1:], IDS[[1, 1]]])
    alone = model([IDS[1:2, :3], IDS[1:2, :3]])
    for row in results:
        np.testing.assert_allclose(row[:3], alone[0], atol=1e-6)


def test_an_explicit_mask_comes_first():
    x = keras.layers.Embedding(10, 16, mask_zero=True)(IDS)
    block = layers.TransformerBlock(2, 32)
    everything = np.ones_like(IDS)
    np.testing.assert_array_equal(block(x, padding_mask=everything), block(keras.ops.copy(x)))
    assert np.abs(block(x) - block(x, padding_mask=everything)).max() > 1e-3


def test_loss_and_metrics_leave_padding_out():
    ids = keras.Input((None,), dtype="int32")
    x = layers.TransformerBlock(2, 32, causal=True)(embedded(ids, "ids"))
    model = keras.Model(ids, keras.layers.Dense(10)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, weighted_metrics=["accuracy"])
    padded = model.evaluate(IDS[1:2], IDS[1:2], verbose=0)
    alone = model.evaluate(IDS[1:2, :3], IDS[1:2, :3], verbose=0)
    np.testing.assert_allclose(padded, alone, rtol=1e-5)
