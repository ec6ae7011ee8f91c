"""What the step does beside the gradients: skipping, decay, averages, batches that cannot be cut."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.equality import dataset
from tfmodels import models
from tfmodels.models import bert, gpt2

SMALL = dict(
    num_layers=1,
    num_heads=2,
    hidden_dim=8,
    intermediate_dim=12,
    vocabulary_size=11,
    max_sequence_length=7,
    dropout=0.0,
    attention_dropout=0.0,
)


def with_broken_weights(steps):
    """The padded data, where the sample weights of some steps are infinite."""
    data = list(dataset("padded"))
    parts = [(x, y, w * (np.inf if i in steps else 1)) for i, (x, y, w) in enumerate(data * 4)]
    signature = tf.nest.map_structure(lambda v: tf.TensorSpec((None, 7), v.dtype), data[0])
    return tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=signature)


def test_a_step_that_is_not_finite_changes_nothing():
    model = gpt2("tiny", **SMALL)
    model.compile(keras.optimizers.AdamW(0.1, use_ema=True))
    x, y, weights = next(iter(dataset("padded")))
    model.train_on_batch(x, y, weights)
    before = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    model.train_on_batch(x, y, weights * np.inf)
    after = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    np.testing.assert_equal(before, after)
    model.train_on_batch(x, y, weights)
    assert not np.array_equal(model.get_weights()[0], before[0])


def test_skipped_steps_are_counted_and_a_row_of_them_ends_training():
    model = gpt2("tiny", **SMALL)
    model.compile("sgd")
    history = model.fit(with_broken_weights({2, 3, 7}), verbose=0).history
    assert history["skipped_steps"] == [3]
    with pytest.raises(FloatingPointError, match="in 10 steps in a row, the last at step 14"):
        model.fit(with_broken_weights(set(range(4, 20))), verbose=0)


def test_float16_searches_its_scale():
    """Steps that the loss scale is too large for are skipped, and end nothing."""
    model = gpt2("tiny", **SMALL, dtype="mixed_float16")
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=2.0**60))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    data = dataset("padded").repeat(12)
    history = model.fit(data, verbose=0, epochs=1).history
    assert 10 < history["skipped_steps"][0] < 55 and np.isfinite(history["loss"]).all()


def test_weight_decay_leaves_out_biases_and_norms():
    model = gpt2("tiny", **SMALL)
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.5))
    for variable in model.trainable_variables:
        variable.assign(tf.ones(variable.shape))
    x, y, weights = next(iter(dataset("padded")))
    model.train_on_batch(x, y, weights * 0)  # no gradient: what changes has decayed
    for variable in model.trainable_variables:
        expected = 0.95 if len(variable.shape) > 1 else 1.0
        np.testing.assert_allclose(variable, expected, rtol=1e-6, err_msg=variable.path)


def test_who_excludes_himself_is_left_alone():
    model = gpt2("tiny", **SMALL)
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    model.compile(optimizer)
    for variable in model.trainable_variables:
        variable.assign(tf.ones(variable.shape))
    x, y, weights = next(iter(dataset("padded")))
    model.train_on_batch(x, y, weights * 0)
    for variable in model.trainable_variables:
        np.testing.assert_allclose(variable, 1.0 if "kernel" in variable.name else 0.95, rtol=1e-6)


def test_micro_batches_that_cannot_be():
    model = gpt2("tiny", **SMALL)
    with pytest.raises(ValueError, match="whole number of at least 1. Received: 0"):
        model.compile(micro_batches=0)
    with pytest.raises(ValueError, match="needs the model's own loss"):
        model.compile(loss="mse", micro_batches=2)
    with pytest.raises(ValueError, match="compares the examples"):
        models.SentenceEmbedder(bert("tiny", **SMALL)).compile(micro_batches=2)
    model.compile(micro_batches=13)
    x, y, weights = next(iter(dataset("padded")))
    with pytest.raises(ValueError, match="a batch of 12 for"):
        model.train_on_batch(x, y, weights)  # known before the step is made
    with pytest.raises(ValueError, match="a batch of 12 for replicas x micro_batches = 13"):
        model.fit(dataset("padded"), verbose=0)  # known after it


def test_loss_weights_are_those_of_the_loss():
    """What is known before the forward pass is what the loss divides by, for each head."""
    backbone = bert("tiny", **SMALL)
    ids = np.random.default_rng(0).integers(0, 11, (4, 7)).astype("int32")
    x = {
        "token_ids": tf.constant(ids),
        "padding_mask": tf.constant((np.arange(7) < [[7], [3], [5], [1]]) * 1),
    }
    words, numbers = tf.constant(ids), tf.constant([0, 1, 0, 4])
    targets = {
        models.MaskedLanguageModel: words,
        models.QuestionAnsweringModel: {"start_logits": numbers, "end_logits": numbers + 1},
        models.PreTrainingModel: {"token_logits": words, "next_sentence_logits": numbers % 2},
        models.SentenceEmbedder: numbers,
    }
    for head, y in targets.items():
        model = head(backbone)
        weights = tf.nest.map_structure(lambda t: tf.random.uniform(t.shape), y)
        before = model.loss_weights(x, y, weights)
        sums = model.task_loss(x, y, weights, training=False)
        assert set(before) == set(model.task_losses)
        for name, weight in before.items():
            np.testing.assert_allclose(weight, sums[name][1], rtol=1e-6, err_msg=f"{head} {name}")


def test_compile_options_are_saved(tmp_path):
    model = gpt2("tiny", **SMALL)
    model.compile("sgd", micro_batches=2, z_loss=0.25)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert (loaded.micro_batches, loaded.z_loss) == (2, 0.25)
