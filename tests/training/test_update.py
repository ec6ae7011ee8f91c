"""What the step does beside the gradients: skipping, decay, averages, batches that cannot be cut."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels import models
from tfmodels.models import bert, gpt2
from tfmodels.training.step import TaskModel
from tfmodels.training.update import is_bias_or_norm

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


class Line(TaskModel):
    """The smallest model with a task of its own: a norm and a dense layer that fit numbers."""

    task_metrics = {}

    def task_loss(self, x, y, sample_weight, training):
        error = tf.square(tf.cast(self(x, training=training), tf.float32) - y)
        return {"loss": (tf.reduce_sum(error * sample_weight), tf.reduce_sum(sample_weight))}


def line(optimizer, dtype="float32", **options):
    x = keras.Input((3,))
    y = keras.layers.Dense(2, dtype=dtype, name="dense")(keras.layers.LayerNormalization(dtype=dtype)(x))
    model = Line(x, y)
    model.dtype_policy = keras.dtype_policies.get(dtype)
    model.compile(optimizer, **options)
    return model


def numbers(steps=5, broken=()):
    """Batches of 12 rows and a last of 7; the sample weights of broken steps are infinite."""
    rng = np.random.default_rng(0)
    rows = 12 * steps - 5
    x, y = rng.normal(size=(rows, 3)).astype("float32"), rng.normal(size=(rows, 2)).astype("float32")
    weights = rng.choice([0.0, 0.5, 1.0], (rows, 1)).astype("float32")
    for step in broken:
        weights[step * 12 : step * 12 + 12] = np.inf
    return tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(12)


def one_batch():
    return next(iter(numbers()))


@pytest.mark.parametrize("micro_batches", [4, 5])
def test_micro_batches_give_the_same_weights(micro_batches):
    """Also where they do not divide the batch, and where the last batch leaves some almost empty."""
    results = []
    for parts in (1, micro_batches):
        keras.utils.set_random_seed(0)
        model = line(keras.optimizers.AdamW(0.1, global_clipnorm=0.3), micro_batches=parts)
        logs = model.fit(numbers(), shuffle=False, verbose=0).history
        results.append((logs["loss"], *model.get_weights()))
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *results)


def test_clipping_is_by_the_norm_of_the_sum():
    """SGD of rate 1 moves by the clipped norm exactly, however the batch is cut."""
    model = line(keras.optimizers.SGD(1.0, global_clipnorm=0.01), micro_batches=4)
    before = model.get_weights()
    model.train_on_batch(*one_batch())
    moved = [after - b for after, b in zip(model.get_weights(), before, strict=True)]
    np.testing.assert_allclose(np.sqrt(sum((m**2).sum() for m in moved)), 0.01, rtol=1e-4)


def test_averages_of_weights():
    """use_ema with overwriting, which Keras does itself on one device only, against NumPy."""
    rates = {"use_ema": True, "ema_momentum": 0.75, "ema_overwrite_frequency": 2}
    keras.utils.set_random_seed(0)
    averaged = line(keras.optimizers.SGD(0.1, **rates))
    plain = line(keras.optimizers.SGD(0.1))
    plain.set_weights(averaged.get_weights())
    average = None
    for step in range(4):
        batch = one_batch()
        averaged.train_on_batch(*batch)
        plain.train_on_batch(*batch)
        weights = plain.get_weights()
        if average is None:
            average = weights
        average = [0.75 * a + 0.25 * w for a, w in zip(average, weights, strict=True)]
        if step % 2:
            plain.set_weights(average)
        for mine, theirs in zip(averaged.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_averages_of_weights_of_other_types(dtype):
    model = line(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), dtype)
    before = model.get_weights()
    model.train_on_batch(*one_batch())
    first = model.get_weights()
    model.train_on_batch(*one_batch())
    pairs = zip(first, model.get_weights(), strict=True)
    averages = [np.mean([a.astype("float64"), b.astype("float64")], axis=0) for a, b in pairs]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for found, expected in zip(model.get_weights(), averages, strict=True):
        tolerance = 1e-2 if dtype == "bfloat16" else 1e-6
        np.testing.assert_allclose(found.astype("float64"), expected, rtol=tolerance)
    assert not np.array_equal(before[0], first[0])


def test_a_step_that_is_not_finite_changes_nothing():
    model = line(keras.optimizers.AdamW(0.1, use_ema=True))
    x, y, weights = one_batch()
    model.train_on_batch(x, y, weights)
    before = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    model.train_on_batch(x, y, weights * np.inf)
    after = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    np.testing.assert_equal(before, after)
    model.train_on_batch(x, y, weights)
    assert not np.array_equal(model.get_weights()[0], before[0])


def test_skipped_steps_are_counted_and_a_row_of_them_ends_training():
    model = line("sgd")
    assert model.fit(numbers(10, broken={2, 3, 7}), verbose=0).history["skipped_steps"] == [3]
    assert "skipped_steps" not in model.fit(numbers(), verbose=0).history
    with pytest.raises(FloatingPointError, match="in 10 steps in a row, the last at step 14"):
        model.fit(numbers(20, broken=range(4, 20)), verbose=0)


def test_float16_searches_its_scale():
    """Steps that the loss scale is too large for are skipped, and end nothing."""
    inner = keras.optimizers.SGD(0.1)
    model = line(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**60), "mixed_float16")
    history = model.fit(numbers(60), verbose=0).history
    assert 10 < history["skipped_steps"][0] < 55 and np.isfinite(history["loss"]).all()
    with pytest.raises(FloatingPointError, match="10 steps in a row"):
        model.fit(numbers(80, broken=range(80)), verbose=0)


@pytest.mark.parametrize("chosen", [None, ["kernel"]])
def test_weight_decay_leaves_out_biases_and_norms(chosen):
    """Unless somebody has chosen before."""
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    if chosen:
        optimizer.exclude_from_weight_decay(var_names=chosen)
    model = line(optimizer)
    for variable in model.trainable_variables:
        variable.assign(tf.ones(variable.shape))
    x, y, weights = one_batch()
    model.train_on_batch(x, y, weights * 0)  # no gradient: what changes has decayed
    decayed = {v.name for v in model.trainable_variables if np.allclose(v, 0.95)}
    assert decayed == ({"gamma", "beta", "bias"} if chosen else {"kernel"})


@pytest.mark.parametrize(
    "make, tables",
    [
        (models.t5, {"encoder_position_bias/table", "decoder_position_bias/table"}),
        (models.transformer_xl, {f"biases_{i}/{name}" for i in range(2) for name in ("content", "position")}),
    ],
)
def test_tables_of_biases_do_not_decay(make, tables):
    model = make("tiny")
    assert tables <= {v.path for v in model.trainable_variables}
    left_out = {v.path for v in model.trainable_variables if is_bias_or_norm(v)}
    assert left_out == tables | {v.path for v in model.trainable_variables if len(v.shape) == 1}


def test_micro_batches_that_cannot_be():
    for micro_batches in (0, 1.5):
        with pytest.raises(ValueError, match="whole number of at least 1. Received:"):
            line("sgd", micro_batches=micro_batches)
    with pytest.raises(ValueError, match="needs the model's own loss"):
        line("sgd", loss="mse", micro_batches=2)
    with pytest.raises(ValueError, match="compares the examples"):
        models.SentenceEmbedder(bert("tiny", **SMALL)).compile(micro_batches=2)
    model = line("sgd", micro_batches=13)
    with pytest.raises(ValueError, match="a batch of 12 for"):
        model.train_on_batch(*one_batch())  # known before the step is made
    with pytest.raises(ValueError, match="a batch of 12 for replicas x micro_batches = 13"):
        model.fit(numbers(), verbose=0)  # known after it


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


@pytest.mark.parametrize("name", ["metrics", "weighted_metrics"])
def test_metrics_of_keras_need_a_loss_of_keras(name):
    with pytest.raises(ValueError, match=f"{name} needs loss= too.*reports loss, accuracy, perplexity"):
        gpt2("tiny", **SMALL).compile("sgd", **{name: ["accuracy"]})
    gpt2("tiny", **SMALL).compile("sgd", loss="mse", **{name: ["accuracy"]})


def test_a_model_with_nothing_to_train():
    model = line("sgd")
    model.get_layer("dense").trainable = model.layers[1].trainable = False
    with pytest.raises(ValueError, match="weights are all frozen. Set trainable = True"):
        model.fit(numbers(), verbose=0)
    with pytest.raises(ValueError, match="weights are all frozen"):
        model.train_on_batch(*one_batch())
