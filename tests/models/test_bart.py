"""BART and MarianMT: what every model must hold, sizes and configs. Numbers: tests/pretrained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.checks import check_model
from tests.reference import weights as read
from tfmodels.models import Bart, BartConfig, bart
from tfmodels.models.bart import SIZES

SMALL = dict(num_layers=2, num_heads=3, hidden_dim=12, intermediate_dim=11, max_sequence_length=9)
IDS = dict(start_id=12, end_id=0, pad_id=12, forced_end_id=0, suppressed_ids=(12,))
RNG = np.random.default_rng(0)
INPUTS = {
    "encoder_token_ids": RNG.integers(0, 13, (2, 7)),
    "decoder_token_ids": np.array([[3, 7, 1, 12, 5], [9, 0, 4, 4, 11]]),
}


def small_bart(**overrides):
    encoder = dict(num_encoder_layers=1, num_encoder_heads=2, encoder_intermediate_dim=7)
    return bart("tiny", **(SMALL | encoder | dict(vocabulary_size=13) | overrides))


@pytest.mark.slow
def test_check_model(tmp_path):
    check_model(small_bart(num_layers=1, dropout=0.0, attention_dropout=0.0), INPUTS, tmp_path)


def parameters(config):
    """What training changes, counted by hand."""
    d, f = config.hidden_dim, config.intermediate_dim
    attention, feed_forward, norm = 4 * (d * d + d), d * f + f + f * d + d, 2 * d
    blocks = config.num_layers * (3 * attention + 2 * feed_forward + 5 * norm)
    around = (config.max_sequence_length + 2) * d + norm if config.embedding_norm else 0
    return config.target_vocabulary_size * d + 2 * around + blocks


@pytest.mark.parametrize("size, count", [("base", 139_420_416), ("large", 406_291_456)])
def test_sizes_are_the_published_checkpoints(size, count):
    """Counted in facebook/bart-base and bart-large; the formula is that of a small model."""
    assert parameters(BartConfig(**SIZES[size])) == count
    model = bart("tiny", **SMALL)
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == parameters(model.config)


def test_marian_size():
    """74M, the base model of Vaswani et al. 2017 with 58101 words; its positions are no parameters."""
    assert parameters(BartConfig(**SIZES["marian_base"])) == 73_886_208
    model = bart("marian_base", **SMALL, **IDS, vocabulary_size=13)
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == parameters(model.config)


@pytest.mark.parametrize("tied", [False, True])
def test_loss_has_the_bias_of_the_logits(tied):
    """The blockwise loss and its gradients are those of the logits that the model returns."""
    model = small_bart(dropout=0.0, attention_dropout=0.0, tie_embeddings=tied, share_embeddings=tied)
    read.randomise(model, seed=1)
    model.logits_bias.bias.assign(RNG.normal(0, 1, (1, 13)))
    labels, weights = RNG.integers(0, 13, (2, 5)), np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], "float32")
    inputs = model.complete_inputs(INPUTS)
    with tf.GradientTape() as tape:
        model.compile(keras.optimizers.SGD(1.0))
        before = [np.asarray(variable) for variable in model.trainable_variables]
        logits = model(inputs, training=True)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_sum(loss * weights) / weights.sum()
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    np.testing.assert_allclose(
        model.evaluate(INPUTS, labels, sample_weight=weights, verbose=0)[0], loss, 1e-5
    )
    model.fit(INPUTS, labels, sample_weight=weights, verbose=0)
    for variable, old, gradient in zip(model.trainable_variables, before, gradients, strict=True):
        expected = old - np.asarray(tf.convert_to_tensor(gradient))
        np.testing.assert_allclose(variable, expected, atol=1e-5, err_msg=variable.path)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (dict(end_id=13), r"end_id.*size 13.*Received: 13"),
        (dict(suppressed_ids=(2, -1)), r"suppressed_ids.*Received: \(2, -1\)"),
        (dict(num_encoder_heads=5), r"hidden_dim=12, num_encoder_heads=5"),
        (dict(num_encoder_layers=0), r"num_encoder_layers must be.*Received: 0"),
        (dict(positions="rotary"), r"positions must be one of learned, sinusoidal.*'rotary'"),
        (dict(target_vocabulary_size=14), r"source_vocabulary_size=13, target_vocabulary_size=14.*share"),
    ],
)
def test_bad_config(overrides, message):
    with pytest.raises(ValueError, match=message):
        small_bart(**overrides)


def test_dropout_inside_the_feed_forward_networks():
    """Training sees it and nothing else does; a config from before it has none."""
    rates = dict(dropout=0.0, attention_dropout=0.0)
    model = small_bart(**rates, intermediate_dropout=0.5)
    without = Bart.from_config(small_bart(**rates).get_config())
    without.set_weights(model.get_weights())
    inputs = model.complete_inputs(INPUTS)
    np.testing.assert_array_equal(model(inputs), without(inputs))
    np.testing.assert_array_equal(without(inputs, training=True), without(inputs))
    first, second = (np.asarray(model(inputs, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-4
    config = model.get_config()
    assert Bart.from_config(config).config.intermediate_dropout == 0.5
    del config["config"]["intermediate_dropout"]
    assert Bart.from_config(config).config.intermediate_dropout == 0.0
