"""The loss and the step against NumPy and against plain TensorFlow."""

import itertools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.reference import transformer as reference
from tfmodels.models import SequenceClassifier, SequenceClassifierConfig, gpt2, transformer_xl
from tfmodels.training import InverseSquareRoot, TensorBoard, TimeBudget, losses, warmup_cosine

SMALL = dict(
    num_layers=2,
    num_heads=3,
    hidden_dim=12,
    intermediate_dim=11,
    vocabulary_size=13,
    max_sequence_length=9,
)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return {
        "hidden": rng.normal(size=(23, 5)).astype("float32"),
        "kernel": rng.normal(size=(7, 5)).astype("float32"),
        "bias": rng.normal(size=7).astype("float32"),
        "labels": rng.integers(0, 7, 23),
        "weights": rng.choice([0.0, 0.5, 1.0], 23).astype("float32"),
    }


@pytest.mark.parametrize("label_smoothing, z_loss", [(0.0, 0.0), (0.1, 0.0), (0.0, 0.2), (0.1, 0.2)])
@pytest.mark.parametrize("block_rows", [4, 1024])
@pytest.mark.parametrize("biased, jit_compile", [(False, False), (True, False), (True, True)])
def test_vocabulary_loss(rows, label_smoothing, z_loss, block_rows, biased, jit_compile, monkeypatch):
    monkeypatch.setattr(losses, "_BLOCK_ROWS", block_rows)
    names = ("hidden", "kernel", "bias") if biased else ("hidden", "kernel")
    variables = {name: tf.Variable(rows[name]) for name in names}
    labels, weights = rows["labels"], rows["weights"]
    options = {"label_smoothing": label_smoothing, "z_loss": z_loss}
    vocabulary_loss = losses.vocabulary_loss
    if jit_compile:
        vocabulary_loss = tf.function(vocabulary_loss, autograph=False, jit_compile=True)
    with tf.GradientTape() as tape:
        tensors = {name: tf.convert_to_tensor(variable) for name, variable in variables.items()}
        sums = vocabulary_loss(**tensors, labels=labels, weights=weights, **options)
        loss = sums[0] * 3.0  # a factor from outside must reach the gradients
    gradients = {n: tf.convert_to_tensor(g) for n, g in tape.gradient(loss, variables).items()}
    logits = rows["hidden"].astype("float64") @ rows["kernel"].astype("float64").T
    logits = logits + rows["bias"] if biased else logits
    normaliser = np.log(np.exp(logits).sum(-1))
    expected = np.array(reference.cross_entropy(logits, labels, weights, label_smoothing))
    expected[0] += (z_loss * normaliser**2 * weights).sum()
    np.testing.assert_allclose(sums, expected, rtol=1e-5)  # sums of 23 rows in float32
    evaluated = vocabulary_loss(**tensors, labels=labels, weights=weights, **options, differentiable=False)
    np.testing.assert_allclose(evaluated, expected, rtol=1e-5)
    # Gradients: softmax - target, by hand.
    target = np.eye(7)[labels] * (1 - label_smoothing) + label_smoothing / 7
    softmax = reference.softmax(logits)
    error = softmax - target + 2 * z_loss * normaliser[:, None] * softmax
    error = error * weights[:, None] * 3.0
    by_hand = {"hidden": error @ rows["kernel"], "kernel": error.T @ rows["hidden"], "bias": error.sum(0)}
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, by_hand[name], atol=1e-5, err_msg=name)


def test_vocabulary_loss_of_large_logits_and_no_targets(rows):
    """Far beyond exp's range the loss is exact, and a batch without targets is 0, not NaN."""
    logits = rows["hidden"].astype("float64") * 300 @ rows["kernel"].astype("float64").T
    shifted = logits - logits.max(-1, keepdims=True)
    expected = np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(23), rows["labels"]]
    nll = losses.vocabulary_loss(
        rows["hidden"] * 300, rows["kernel"], rows["labels"], np.ones(23, "float32")
    )[1]
    np.testing.assert_allclose(nll, expected.sum(), rtol=1e-5)
    nothing = losses.vocabulary_loss(
        tf.constant(rows["hidden"]), tf.constant(rows["kernel"]), rows["labels"], np.zeros(23, "float32")
    )
    np.testing.assert_array_equal(nothing, 0)


@pytest.mark.parametrize("differentiable", [False, True])
def test_blocks_of_logits_follow_one_another(rows, differentiable, monkeypatch):
    """The loop, of all blocks but the first, waits for the first: it would hold twice the memory."""
    monkeypatch.setattr(losses, "_BLOCK_ROWS", 4)

    @tf.function(autograph=False)
    def loss(hidden, kernel):
        weights = tf.ones(23)
        return losses.vocabulary_loss(hidden, kernel, rows["labels"], weights, differentiable=differentiable)

    graph = loss.get_concrete_function(tf.constant(rows["hidden"]), tf.constant(rows["kernel"])).graph
    (loop,) = (op for op in graph.get_operations() if op.type.endswith("While"))
    assert any(x.op.type == "Const" and x.op.control_inputs for x in loop.inputs)


def test_the_first_of_equally_probable_words_is_the_models_choice(rows):
    """As `argmax` has it: in bfloat16 many logits are equal."""
    kernel = rows["kernel"] * 0.1
    kernel[[2, 4]] = rows["hidden"][0]
    hidden = np.repeat(rows["hidden"][:1], 4, axis=0)
    labels, ones = np.array([2, 4, 1, 2]), np.ones(4, "float32")
    assert losses.vocabulary_loss(hidden, kernel, labels, ones)[2] == 2


def batch():
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 13, (4, 6))
    weights = (np.arange(6) < [[6], [2], [5], [1]]).astype("float32")
    return {"token_ids": ids, "padding_mask": weights.astype("int32")}, np.roll(ids, -1, 1), weights


def test_step_equals_plain_tensorflow():
    """One SGD step: the same weights as cross-entropy over whole logits by Keras."""
    ours = gpt2("tiny", **SMALL, dropout=0.0, attention_dropout=0.0)
    plain = type(ours).from_config(ours.get_config())
    plain.set_weights(ours.get_weights())
    x, y, weights = batch()
    ours.compile(keras.optimizers.SGD(0.5))
    logs = ours.train_on_batch(x, y, sample_weight=weights, return_dict=True)
    with tf.GradientTape() as tape:
        each = keras.ops.sparse_categorical_crossentropy(y, plain(x), from_logits=True)
        loss = tf.reduce_sum(each * weights) / weights.sum()
    variables = plain.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables]), strict=True):
        variable.assign_sub(0.5 * tf.convert_to_tensor(gradient))
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(logs["perplexity"], np.exp(loss), rtol=1e-5)
    for mine, theirs in zip(ours.trainable_variables, variables, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6, err_msg=mine.path)


@pytest.mark.parametrize("more", [{}, pytest.param({"micro_batches": 2}, marks=pytest.mark.slow)])
def test_compiled_step_gives_the_same_weights(more):
    """XLA has other operations, for parts of a batch and recomputed blocks too."""
    x, y, weights = batch()
    results = []
    for options in ({"jit_compile": False}, {"jit_compile": True, **more}):
        keras.utils.set_random_seed(0)
        changes = {"num_layers": 1, "rematerialise": "micro_batches" in options}
        model = gpt2("tiny", **SMALL | changes, dropout=0.0, attention_dropout=0.0)
        model.compile(keras.optimizers.SGD(0.5), **options)
        history = model.fit(x, y, sample_weight=weights, verbose=0).history
        results.append((history, model.get_weights()))
    # float32, sums in another order
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


@pytest.mark.slow
def test_compiled_step_with_dropout():
    model = gpt2("tiny", **SMALL | {"num_layers": 1}, rematerialise=True, dropout=0.1)
    model.compile(keras.optimizers.AdamW(0.02), jit_compile=True, micro_batches=2)
    x, y, weights = batch()
    history = model.fit(x, y, sample_weight=weights, epochs=20, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]


@pytest.mark.slow
def test_compiled_step_of_an_adaptive_softmax():
    x, y, weights = batch()
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = transformer_xl(
            "base", num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=12, vocabulary_size=13,
            head_dim=4, memory_length=3, cutoffs=(5,), embedding_dim=None, divisor=1, dropout=0.0,
            initializer_range=0.3,
        )  # fmt: skip
        model.compile(keras.optimizers.SGD(0.5), jit_compile=jit_compile)
        logs = model.train_on_batch(x, y, sample_weight=weights, return_dict=True)
        results.append((logs, model.get_weights()))
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


def test_a_compiled_step_skips_targets_outside_the_vocabulary():
    """XLA can raise nothing: the step is not finite, and counts as such."""
    model = gpt2("tiny", **SMALL | {"num_layers": 1})
    model.compile(keras.optimizers.SGD(0.1), jit_compile=True)
    ids = np.ones((4, 6), "int32")
    before = model.get_weights()
    history = model.fit({"token_ids": ids}, ids * 13, verbose=0).history
    assert history["skipped_steps"] == [1] and np.isnan(history["loss"])
    np.testing.assert_equal(model.get_weights(), before)


def test_metrics_weigh_tokens_not_batches():
    model = gpt2("tiny", **SMALL)
    model.compile()
    x, y, weights = batch()
    whole = model.evaluate(x, y, sample_weight=weights, batch_size=4, verbose=0, return_dict=True)
    parts = model.evaluate(x, y, sample_weight=weights, batch_size=1, verbose=0, return_dict=True)
    assert set(whole) == {"loss", "accuracy", "perplexity"}
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5)
    hits = np.asarray(model(x)).argmax(-1) == y
    np.testing.assert_allclose(whole["accuracy"], (hits * weights).sum() / weights.sum(), rtol=1e-5)


def test_an_explicit_loss_is_keras_own():
    model = gpt2("tiny", **SMALL)
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y, _ = batch()
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    each = keras.ops.sparse_categorical_crossentropy(y, model(x), from_logits=True)
    assert set(logs) == {"loss"}
    np.testing.assert_allclose(logs["loss"], np.mean(each), rtol=1e-5)


def test_compiled_model_saves_and_goes_on(tmp_path):
    model = gpt2("tiny", **SMALL, dropout=0.0, attention_dropout=0.0)
    model.compile(keras.optimizers.AdamW(1e-2))
    x, y, weights = batch()
    model.train_on_batch(x, y, sample_weight=weights)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    losses_ = [
        m.train_on_batch(x, y, sample_weight=weights, return_dict=True)["loss"]
        for m in (model, loaded, model, loaded)
    ]
    assert losses_[0] == losses_[1] and losses_[2] == losses_[3] and losses_[2] < losses_[0]


def test_targets_are_needed():
    model = gpt2("tiny", **SMALL)
    model.compile()
    with pytest.raises(ValueError, match="needs targets"):
        model.fit(batch()[0], verbose=0)


@pytest.mark.parametrize("wrong", [13, -100])
def test_targets_outside_the_vocabulary(wrong):
    model = gpt2("tiny", **SMALL | {"num_layers": 1})
    model.compile(keras.optimizers.SGD(0.1))
    ids = np.ones((4, 6), "int32")
    targets = ids.copy()
    targets[2, 3] = wrong
    data = tf.data.Dataset.from_tensor_slices(({"token_ids": ids}, targets)).batch(4)
    for method in (model.fit, model.evaluate):
        with pytest.raises(
            ValueError, match=f"below the vocabulary size, 13. Received: {wrong}. .*sample_weight"
        ):
            method(data, verbose=0)
    targets[2, 3] = 1
    ids[0, 1] = 14
    data = tf.data.Dataset.from_tensor_slices(({"token_ids": ids}, targets)).batch(4)
    with pytest.raises(ValueError, match="not in its table, of 13 rows. Received: 14"):
        model.evaluate(data, verbose=0)


@pytest.mark.parametrize("wrong", [3, -100])
def test_labels_outside_the_classes(wrong):
    backbone = gpt2("tiny", **SMALL | {"num_layers": 1})
    model = SequenceClassifier(backbone, SequenceClassifierConfig(num_labels=3))
    model.compile(keras.optimizers.SGD(0.1))
    data = tf.data.Dataset.from_tensors(({"token_ids": np.ones((4, 6), "int32")}, np.array([0, 2, wrong, 1])))
    for method in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=f"below their number, 3. Received: {wrong}. Give") as raised:
            method(data, verbose=0)
        assert len(str(raised.value)) < 200


@pytest.mark.parametrize("make", [gpt2, transformer_xl])
@pytest.mark.parametrize("known", [True, False])
def test_targets_of_another_length_than_the_ids(make, known):
    """Flattened, they would be the targets of other tokens."""
    sizes = {name: size for name, size in SMALL.items() if make is gpt2 or name != "max_sequence_length"}
    model = make("tiny", **sizes | ({"cutoffs": ()} if make is transformer_xl else {}))
    model.compile("sgd")
    x, y, weights = batch()
    whole = tf.data.Dataset.from_tensors((x, y[:, 1:], weights[:, 1:]))
    data = whole
    if not known:
        spec = tf.nest.map_structure(lambda s: tf.TensorSpec((None, None), s.dtype), whole.element_spec)
        data = tf.data.Dataset.from_generator(lambda: iter(whole), output_signature=spec)
    shapes = rf"{y.shape[0]}, {y.shape[1]}\). Received: \({y.shape[0]}, {y.shape[1] - 1}\)"
    for act in (model.evaluate, model.fit):
        with pytest.raises(ValueError, match=f"one a token, of the shape of the ids, .{shapes}"):
            act(data, verbose=0)


@pytest.mark.parametrize("dtype", ["uint16", "int64", "uint8"])
def test_targets_of_any_whole_numbers(dtype):
    model = gpt2("tiny", **SMALL)
    model.compile("sgd")
    x, y, _ = batch()
    expected = model.evaluate(x, y, verbose=0)
    assert model.evaluate(x, np.asarray(y).astype(dtype), verbose=0) == expected


def test_a_target_without_weight_may_be_anything():
    hidden, kernel = tf.ones((2, 3)), tf.ones((5, 3))
    loss, _, _ = losses.vocabulary_loss(hidden, kernel, tf.constant([1, -100]), tf.constant([1.0, 0.0]))
    np.testing.assert_allclose(loss, np.log(5.0), rtol=1e-6)


def test_schedules():
    rate = InverseSquareRoot(0.5, warmup_steps=4)
    # Section 5.3: rises by the step, then falls by its inverse square root.
    expected = [0.5 * min((s + 1) / 4, ((s + 1) / 4) ** -0.5) for s in range(12)]
    np.testing.assert_allclose([rate(s) for s in range(12)], expected, rtol=1e-6)
    rate = warmup_cosine(0.5, total_steps=12, warmup_steps=4)
    np.testing.assert_allclose([rate(0), rate(2), rate(4)], [0, 0.25, 0.5], atol=1e-7)
    np.testing.assert_allclose([rate(8), rate(12)], [0.25, 0], atol=1e-7)
    with pytest.raises(ValueError, match="total_steps=3, warmup_steps=3"):
        warmup_cosine(0.5, 3, 3)


def test_time_budget_stops_and_ends_at_rate_zero(monkeypatch):
    model = gpt2("tiny", **SMALL)
    model.compile(keras.optimizers.SGD(1.0))
    x, y, weights = batch()
    data = tf.data.Dataset.from_tensors((x, y, weights)).repeat()
    # A clock that goes on by 0.04 s each time it is looked at.
    clock = types.SimpleNamespace(monotonic=itertools.count(0.0, 0.04).__next__)
    monkeypatch.setattr("tfmodels.training.callbacks.time", clock)
    budget = TimeBudget(seconds=1.0, learning_rate=0.1, warmup_steps=2)
    rates = []
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: rates.append(float(model.optimizer.learning_rate.numpy()))
    )
    history = model.fit(data, steps_per_epoch=100_000, shuffle=False, verbose=0, callbacks=[spy, budget])
    assert len(history.epoch) == 1 and len(rates) == 13
    assert rates[0] == pytest.approx(0.05, rel=1e-4) and rates[-1] < 0.02 and max(rates) < 0.101


def test_tensorboard_has_scalars_and_the_graph(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = gpt2("tiny", **SMALL)
    model.compile()
    x, y, weights = batch()
    callback = TensorBoard(tmp_path, update_freq=1)
    model.fit(x, y, sample_weight=weights, epochs=2, verbose=0, callbacks=[callback])
    events = EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    assert len(events.Tensors("epoch_perplexity")) == 2
    assert any("block_1" in node.name for node in events.Graph().node)
