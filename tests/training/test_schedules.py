"""Schedules, layer-wise rates, frozen layers and averages of weights."""

import keras
import numpy as np
import pytest

from tfmodels.models import SequenceClassifier, bert, gpt2
from tfmodels.training import (
    AverageWeights,
    InverseSquareRoot,
    LayerwiseAdamW,
    Resume,
    TimeBudget,
    WarmupStableDecay,
    average_checkpoints,
    freeze,
    warmup_cosine,
    warmup_linear,
)
from tfmodels.training.layerwise import rate_factors

SIZES = dict(num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=12, vocabulary_size=13)
IDS = np.random.default_rng(0).integers(1, 13, (12, 5)).astype("int32")


def make_model(optimizer):
    keras.utils.set_random_seed(1)
    model = gpt2("tiny", **SIZES, max_sequence_length=6, dropout=0.0, attention_dropout=0.0)
    model.compile(optimizer)
    return model


def fit(model, **options):
    return model.fit({"token_ids": IDS}, IDS, batch_size=4, verbose=0, shuffle=False, **options)


def test_rates():
    """By hand, 10 steps: 2 of warm-up."""
    stable = WarmupStableDecay(2.0, total_steps=10, warmup_steps=2, decay_steps=4)
    np.testing.assert_allclose(
        [float(stable(step)) for step in range(12)], [1, 2, 2, 2, 2, 2, 2, 1.5, 1, 0.5, 0, 0], atol=1e-6
    )
    linear = warmup_linear(2.0, total_steps=10, warmup_steps=2)
    np.testing.assert_allclose(
        [float(linear(step)) for step in range(11)],
        [1, 2, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, 0],
        atol=1e-6,
    )
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(stable))
    assert again.get_config() == stable.get_config()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: WarmupStableDecay(1, 10, 5, 6), "total_steps=10, warmup_steps=5, decay_steps=6"),
        (lambda: WarmupStableDecay(1, 10, 5, 0), "decay_steps=0"),
        (lambda: warmup_linear(1, 5, 5), "total_steps=5, warmup_steps=5"),
        (lambda: warmup_cosine(1, 5, 0), "warmup_steps=0"),
        (lambda: InverseSquareRoot(1, 0), "warmup_steps=0"),
        (lambda: LayerwiseAdamW(decay=0), "decay must be above 0 and at most 1. Received: 0"),
        (lambda: AverageWeights(1.0), "decay must be .* Received: 1.0"),
        (lambda: AverageWeights(None, every_steps=0), "every_steps=0"),
        (lambda: TimeBudget(1, 0.1, warmup_steps=0), "warmup_steps must be at least 1. Received: .*=0"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_layerwise_rates(tmp_path):
    """The first step of Adam moves each weight by its rate, whatever the gradient."""
    model = make_model(LayerwiseAdamW(1e-2, decay=0.5, weight_decay=0.0, epsilon=1e-12))
    before = [variable.numpy() for variable in model.trainable_variables]
    model.train_on_batch({"token_ids": IDS}, IDS)
    expected = {
        "token_embedding": 1 / 8,
        "position": 1 / 8,
        "block_0": 1 / 4,
        "block_1": 1 / 2,
        "final_norm": 1,
    }
    for variable, old in zip(model.trainable_variables, before, strict=True):
        # Keys' biases change no loss; and Keras's Adam adds up squares of a sparse gradient's repeated rows.
        if variable.path.endswith("key/bias") or variable.path.startswith("position"):
            continue
        share = next(share for name, share in expected.items() if variable.path.startswith(name))
        moved = np.abs(variable.numpy() - old).max()
        np.testing.assert_allclose(moved, 1e-2 * share, rtol=1e-3, err_msg=variable.path)
    model.save(tmp_path / "model.keras")
    optimizer = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert optimizer.get_config() == model.optimizer.get_config()
    paths = [
        "encoder_block_0/k",
        "encoder_block_1/k",
        "decoder_block_0/k",
        "decoder_position_bias/t",
        "norm/g",
    ]
    assert rate_factors(paths, 0.5) == [0.25, 0.5, 0.5, 0.125, 1]
    # Words out follow the last block, also where they are a part of the words in; biases are their block's.
    paths = ["block_0/k", "block_1/k", "biases_0/position", "token_embedding/embeddings"]
    paths += [f"token_embedding/{name}" for name in ("reverse_embeddings", "output_bias_0", "cluster_kernel")]
    assert rate_factors(paths, 0.5) == [0.25, 0.5, 0.25, 0.125, 1, 1, 1]


def test_layerwise_weight_decay():
    """Decoupled (Loshchilov & Hutter 2019), times the layer's rate, on kernels alone."""
    plain = make_model(LayerwiseAdamW(1e-2, decay=0.5, weight_decay=0.0))
    decayed = make_model(LayerwiseAdamW(1e-2, decay=0.5, weight_decay=0.1))
    before = decayed.get_layer("block_1").feed_forward.intermediate_dense.kernel.numpy()
    for model in (plain, decayed):
        model.train_on_batch({"token_ids": IDS}, IDS)
    kernels = [
        m.get_layer("block_1").feed_forward.intermediate_dense.kernel.numpy() for m in (plain, decayed)
    ]
    np.testing.assert_allclose(kernels[0] - kernels[1], before * 1e-2 * 0.5 * 0.1, atol=1e-7)
    norms = [m.get_layer("block_1").feed_forward_norm.gamma.numpy() for m in (plain, decayed)]
    np.testing.assert_array_equal(*norms)


def test_layerwise_weight_decay_leaves_out_what_is_excluded():
    plain, decayed = make_model(LayerwiseAdamW(1e-2, weight_decay=0.0)), make_model("sgd")
    optimizer = LayerwiseAdamW(1e-2, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[decayed.get_layer("token_embedding").embeddings])
    decayed.compile(optimizer)
    for model in (plain, decayed):
        model.train_on_batch({"token_ids": IDS}, IDS)
    tables = [m.get_layer("token_embedding").embeddings.numpy() for m in (plain, decayed)]
    np.testing.assert_array_equal(*tables)
    tables = [m.get_layer("position_embedding").table.numpy() for m in (plain, decayed)]
    assert np.abs(tables[0] - tables[1]).max() > 1e-7


def test_freeze(tmp_path):
    model = make_model("sgd")
    found = freeze(model, r"embedding|block_0$")
    assert {"token_embedding", "position_embedding", "block_0"} <= set(found)
    assert not any(path.startswith("block_1") for path in found)
    model.compile(keras.optimizers.AdamW(1e-2))
    before = {variable.path: variable.numpy() for variable in model.weights}
    fit(model)
    for variable in model.weights:
        same = np.array_equal(before[variable.path], variable.numpy())
        assert same == variable.path.startswith(("token_embedding", "position_embedding", "block_0")), (
            variable.path
        )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    trained = [variable.path for variable in model.trainable_variables]
    assert [variable.path for variable in loaded.trainable_variables] == trained
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables) < 60
    with pytest.raises(ValueError, match="No layer is named so. Received: 'head'. Layers: .*block_1"):
        freeze(model, "head")
    with pytest.raises(ValueError, match="regular expression"):
        freeze(model, "(")


def test_frozen_backbone_of_a_head():
    backbone = bert("base", **SIZES, max_sequence_length=6)
    model = SequenceClassifier(backbone, num_labels=2)
    freeze(model, "embedding|block")
    again = type(model).from_config(model.get_config())
    assert [v.path for v in again.trainable_variables] == [v.path for v in model.trainable_variables]
    assert len(again.trainable_variables) < len(again.variables) / 2


class Trace(keras.callbacks.Callback):
    """The weights after each step and in validation."""

    def __init__(self):
        super().__init__()
        self.steps, self.tested = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self.model.get_weights())

    def on_test_batch_begin(self, batch, logs=None):
        self.tested.append(self.model.get_weights())


@pytest.mark.parametrize("options", [dict(decay=0.6), dict(decay=None, start_step=2, every_steps=2)])
def test_average_weights(options):
    model, trace = make_model(keras.optimizers.SGD(0.5)), Trace()
    initial = model.get_weights()
    fit(
        model,
        epochs=2,
        validation_data=({"token_ids": IDS}, IDS),
        callbacks=[AverageWeights(**options), trace],
    )
    averages = []
    average = initial
    for step, weights in enumerate(trace.steps, 1):
        if options["decay"]:
            average = [0.6 * a + 0.4 * w for a, w in zip(average, weights, strict=True)]
        else:
            counted = [trace.steps[k - 1] for k in range(2, step + 1, 2)] or [weights]
            average = [np.mean(parts, axis=0) for parts in zip(*counted, strict=True)]
        averages.append(average)
    for found, expected in (
        (trace.tested[0], averages[2]),
        (trace.tested[-1], averages[-1]),
        (model.get_weights(), averages[-1]),
    ):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)  # float32, six steps
    # Training went on from where it was: another run without the callback makes the same steps.
    plain, other = make_model(keras.optimizers.SGD(0.5)), Trace()
    fit(plain, epochs=2, callbacks=[other])
    for a, b in zip(trace.steps[-1], other.steps[-1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_average_of_no_steps_changes_nothing():
    """A run that is shorter than the average's first update keeps what it has learned."""
    model, plain = make_model(keras.optimizers.SGD(0.5)), make_model(keras.optimizers.SGD(0.5))
    fit(model, callbacks=[AverageWeights(every_steps=10)])
    fit(plain)
    for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("decay, shares", [(0.6, (1, 0.4, 0.64, 0.4)), (None, (1, 1 / 2, 2 / 4, 1 / 5))])
def test_averages_of_steps_that_are_made_at_once(decay, shares):
    """Of the steps 1-2, 3, 4-5 and 6 the last one's weights count for each since step 2."""
    model, trace = make_model("sgd"), Trace()
    model.compile(keras.optimizers.SGD(0.5), steps_per_execution=2)
    fit(model, epochs=2, callbacks=[AverageWeights(decay, start_step=2), trace])
    average = trace.steps[0]
    for share, weights in zip(shares, trace.steps, strict=True):
        average = [(1 - share) * a + share * w for a, w in zip(average, weights, strict=True)]
    for a, b in zip(model.get_weights(), average, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # float32, six steps


def test_a_time_budget_warms_up_by_steps():
    model = make_model("sgd")
    model.compile(keras.optimizers.SGD(1.0), steps_per_execution=2)
    rates = []
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: rates.append(float(model.optimizer.learning_rate.numpy()))
    )
    fit(model, epochs=2, callbacks=[TimeBudget(1e6, learning_rate=6.0, warmup_steps=6), spy])
    np.testing.assert_allclose(rates, [1, 3, 4, 6], rtol=1e-4)  # of the steps 1-2, 3, 4-5 and 6


def test_a_time_budget_is_for_one_machine(monkeypatch):
    monkeypatch.setattr("tfmodels.training.callbacks.is_multi_worker", lambda strategy: True)
    with pytest.raises(ValueError, match="TimeBudget is for one machine"):
        fit(make_model("sgd"), callbacks=[TimeBudget(1.0, 0.1)])


def test_average_checkpoints(tmp_path):
    model, trace = make_model("sgd"), Trace()
    resume = Resume(tmp_path, every_steps=1, keep=9)
    fit(model, callbacks=[resume, trace])
    model.save(tmp_path / "end.keras")
    model.save_weights(tmp_path / "end.weights.h5")
    paths = [*sorted(tmp_path.glob("*.safetensors")), tmp_path / "end.keras", tmp_path / "end.weights.h5"]
    average_checkpoints(model, paths)
    parts = zip(*trace.steps, trace.steps[-1], trace.steps[-1], strict=True)
    for found, part in zip(model.get_weights(), parts, strict=True):
        np.testing.assert_allclose(found, np.mean(part, axis=0), atol=1e-7)
    with pytest.raises(ValueError, match="at least one file"):
        average_checkpoints(model, [])
    other = gpt2("tiny", **SIZES | {"hidden_dim": 10}, max_sequence_length=6)
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"of another model. Received: \(13, 8\)"):
        average_checkpoints(other, paths[:1])
    np.testing.assert_array_equal(other.get_weights()[0], before[0])
