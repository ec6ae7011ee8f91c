"""Transformer-XL against NumPy written from the paper; its memory in `fit`; its cache."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmodels
from tests.checks import check_cache, check_causal, check_model, check_padding
from tests.reference import transformer_xl as reference
from tests.reference import weights as read
from tfmodels.models import TransformerXL, TransformerXLConfig, transformer_xl
from tfmodels.models.transformer_xl import SIZES

ATOL = 1e-5  # float32, 2 layers, log-probabilities of the order of 1
SMALL = dict(
    vocabulary_size=13,
    max_sequence_length=40,
    memory_length=4,
    num_layers=2,
    num_heads=3,
    head_dim=5,
    hidden_dim=12,
    intermediate_dim=11,
)
VARIANTS = {
    "plain": {},
    "all words seen": dict(memory_length=7),
    "no memory": dict(memory_length=None),
    "adaptive": dict(cutoffs=(4, 9), divisor=2, same_length=True, zero_memory=True),
    "one table": dict(cutoffs=(4, 9), embedding_dim=6, tie_biases=True, clamp_length=3),
    "norm first": dict(zero_memory=True, norm_first=True, embedding_dim=10, tie_projections=False),
    "untied": dict(cutoffs=(5,), divisor=3, tie_embeddings=False, tie_projections=False, same_length=True),
}
IDS = np.array([[3, 7, 1, 12, 5], [9, 0, 4, 4, 11]])
STREAM = np.random.default_rng(0).integers(0, 13, (2, 13))  # two rows, of twelve targets each


def small(name="plain", **overrides):
    sizes = SMALL | dict(dropout=0.0) | VARIANTS[name] | overrides
    model = transformer_xl("tiny", **sizes)
    read.randomise(model, seed=1)
    return model


def expected_log_probabilities(model, ids, lengths):
    weights = read.transformer_xl(model)
    return np.array([reference.transformer_xl(weights, row, lengths, model.config) for row in ids])


def loss_of(log_probabilities, labels):
    return -np.take_along_axis(log_probabilities, labels[..., None], -1).mean()


def segments(length, ids=STREAM):
    """A stateful dataset: row i of each batch continues row i of the batch before."""
    x, y = ids[:, :-1], ids[:, 1:]
    batches = [
        ({"token_ids": x[:, i : i + length]}, y[:, i : i + length]) for i in range(0, x.shape[1], length)
    ]
    return tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=(
            {"token_ids": tf.TensorSpec((None, None), tf.int32)},
            tf.TensorSpec((None, None), tf.int32),
        ),
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_the_paper(name):
    model = small(name)
    expected = expected_log_probabilities(model, IDS, [5])
    np.testing.assert_allclose(model({"token_ids": IDS}), expected, atol=ATOL)


@pytest.mark.parametrize("name", ["plain", "adaptive", "norm first"])
def test_packed_sequences_are_alone(name):
    """Each sequence of a packed row is what it would be in a row of its own."""
    model = small(name)
    mask = np.array([[1, 1, 2, 2, 2], [0, 1, 2, 2, 0]])
    outputs = np.asarray(model({"token_ids": IDS, "padding_mask": mask}))
    for row, k in ((0, 1), (0, 2), (1, 1), (1, 2)):
        part = mask[row] == k
        ids = IDS[row : row + 1, part]
        expected = expected_log_probabilities(model, ids, [ids.shape[1]])[0]
        np.testing.assert_allclose(outputs[row, part], expected, atol=ATOL)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "no memory"])
def test_a_stream_equals_the_paper(name):
    """Losses of a stateful stream: each segment sees exactly what section 3.2 lets it see."""
    model = small(name)
    model.compile("sgd", stateful=True)
    losses = model.evaluate(segments(3), verbose=0)
    expected = expected_log_probabilities(model, STREAM[:, :-1], [3, 3, 3, 3])
    labels = STREAM[:, 1:]
    np.testing.assert_allclose(losses[0], loss_of(expected, labels), atol=1e-5)  # float32
    model.compile("sgd")
    alone = np.concatenate(
        [expected_log_probabilities(model, STREAM[:, i : i + 3], [3]) for i in range(0, 12, 3)], axis=1
    )
    stateless = model.evaluate(segments(3), verbose=0)[0]
    np.testing.assert_allclose(stateless, loss_of(alone, labels), atol=1e-5)
    assert abs(stateless - losses[0]) > 1e-3
    # Memory that reaches back to the beginning makes segments of no account.
    if name == "all words seen":
        model.compile("sgd", stateful=True)
        whole = model.evaluate(segments(12), verbose=0)[0]
        np.testing.assert_allclose(model.evaluate(segments(6), verbose=0)[0], whole, atol=1e-5)


@pytest.mark.parametrize("left", [False, True])
def test_padding_in_a_stream(left):
    """Padding inside a stream is no token of it: neither for positions nor for the memory."""
    model = small("adaptive")
    model.compile("sgd", stateful=True)
    expected = model.evaluate(segments(3), verbose=0)[0]
    width = ((0, 0), (2, 0) if left else (0, 2))
    padded = segments(3).map(
        lambda x, y: (
            {
                "token_ids": tf.pad(x["token_ids"], width, constant_values=5),
                "padding_mask": tf.pad(tf.ones_like(y), width),
            },
            tf.pad(y, width, constant_values=3),
            tf.pad(tf.ones_like(y, tf.float32), width),
        )
    )
    np.testing.assert_allclose(model.evaluate(padded, verbose=0)[0], expected, atol=1e-5)


def test_memory_in_fit():
    """Each epoch begins empty, validation has a memory of its own, nothing is traced anew."""
    model = small()
    model.compile(keras.optimizers.SGD(0.0), stateful=True)
    expected = model.evaluate(segments(3), verbose=0)[0]
    # Validation of another batch size in the middle of training, at the end of each epoch.
    other = segments(4, STREAM[:1])
    history = model.fit(segments(3), validation_data=other, epochs=3, verbose=0).history
    np.testing.assert_allclose(history["loss"], [expected] * 3, atol=1e-6)
    alone = model.evaluate(other, verbose=0)[0]
    np.testing.assert_allclose(history["val_loss"], [alone] * 3, atol=1e-6)
    assert model.train_function is not None
    model.reset_memory()
    batches = list(segments(3).as_numpy_iterator())
    traces = []
    task_loss = model.task_loss
    model.task_loss = lambda *args, **kwargs: traces.append(1) or task_loss(*args, **kwargs)
    model.train_function = None
    model.fit(segments(3), epochs=3, verbose=0)
    assert len(traces) <= 2  # Keras's own first trace may be done twice, with variables made
    model.reset_memory()
    carried = [model.train_on_batch(*batch)[0] for batch in batches[:2]]
    assert carried[1] != model.test_on_batch(*batches[1])  # evaluation has not seen the first batch


def test_training_memory_survives_an_evaluation():
    model = small()
    model.compile(keras.optimizers.SGD(0.0), stateful=True)
    batches = list(segments(3).as_numpy_iterator())
    expected = model.evaluate(segments(3), verbose=0)[0]
    means = []
    for batch in batches:
        model.reset_metrics()
        means.append(float(model.train_on_batch(*batch)[0]))
        model.evaluate(segments(2), verbose=0)
    np.testing.assert_allclose(np.mean(means), expected, atol=1e-6)
    model.reset_memory()
    model.reset_metrics()
    np.testing.assert_allclose(model.train_on_batch(*batches[0])[0], means[0], atol=1e-6)


def test_no_gradient_through_the_memory():
    """Section 3.2: a word that only the first segment has learns nothing from the second's loss."""
    model = small(tie_embeddings=False)
    model.compile("sgd", stateful=True)
    first, second = np.array([[1, 2, 3]]), np.array([[4, 5, 6]])
    ones = tf.ones((1, 3))
    model.task_loss({"token_ids": first}, tf.constant(first), ones, training=True)
    with tf.GradientTape() as tape:
        loss = model.task_loss({"token_ids": second}, tf.constant(second), ones, training=True)["loss"][0]
    gradient = tf.convert_to_tensor(tape.gradient(loss, model.token_embedding.tables[0].value))
    moved = np.abs(gradient).max(axis=-1) > 0
    np.testing.assert_array_equal(np.flatnonzero(moved), [4, 5, 6])


def test_stateful_rules(tmp_path):
    model = small()
    with pytest.raises(ValueError, match="stateful=True needs the model's own loss.*Leave loss out"):
        model.compile("sgd", loss="mse", stateful=True)
    with pytest.raises(ValueError, match="needs a memory. Received: .*memory_length=None"):
        small("no memory").compile("sgd", stateful=True)
    with pytest.raises(ValueError, match="XLA cannot keep a memory. Received: jit_compile=True"):
        model.compile("sgd", stateful=True, jit_compile=True)
    model.compile("sgd", stateful=True)
    x, y = STREAM[:, :-1], STREAM[:, 1:]
    rows = {"token_ids": np.concatenate([x, x[:1]])}
    message = r"batch size must stay the same within a stream. Received: a batch of 1 rows after batches of 2"
    with pytest.raises(ValueError, match=message):
        model.fit(rows, np.concatenate([y, y[:1]]), batch_size=2, shuffle=False, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.evaluate(rows, np.concatenate([y, y[:1]]), batch_size=2, verbose=0)
    model.evaluate({"token_ids": x[:1]}, y[:1], verbose=0)  # a new stream, another batch size
    packed = {"token_ids": x, "padding_mask": np.repeat([[1, 2]], 6, axis=1).repeat(2, axis=0)}
    with pytest.raises(ValueError, match="a row must hold one sequence"):
        model.fit(packed, y, verbose=0)
    # The memory is no weight: neither in the layout nor in the file; that it is used is kept.
    model.fit({"token_ids": x}, y, verbose=0)
    assert model.count_params() == small().count_params()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.evaluate(segments(3), verbose=0)[0]
    np.testing.assert_allclose(loaded.evaluate(segments(3), verbose=0)[0], expected, atol=1e-6)


def test_fit_learns_a_stream():
    model = transformer_xl("tiny", **SMALL | dict(cutoffs=(4, 9), dropout=0.0))
    model.compile(keras.optimizers.AdamW(1e-2), stateful=True)
    history = model.fit(segments(3), epochs=120, verbose=0).history
    assert history["perplexity"][-1] < 1.5 < 10 < history["perplexity"][0]
    assert history["accuracy"][-1] == 1.0


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_steps(name):
    """Prompts longer than the memory, and padding: what every model must hold, without files."""
    model = small(name)
    inputs = {"token_ids": STREAM[:, :9]}
    check_padding(model, inputs)
    check_causal(model, inputs)
    check_cache(model, inputs)


@pytest.mark.parametrize("name", ["plain", "adaptive"])
def test_generation_slides_the_memory(name):
    """A prompt is one segment, and each new token one more, that sees the memory before it."""
    model = small(name)
    result = tfmodels.generate(model, {"token_ids": STREAM[:, :6]}, max_new_tokens=9)
    for row in range(2):
        ids = list(STREAM[row, :6])
        for token in result.token_ids[row]:
            lengths = [6] + [1] * (len(ids) - 6)
            last = expected_log_probabilities(model, np.array([ids]), lengths)[0, -1]
            assert token == last.argmax()
            ids.append(token)


@pytest.mark.slow
def test_check_model(tmp_path):
    check_model(small("adaptive"), {"token_ids": IDS}, tmp_path)


def test_sizes_are_the_papers():
    """Dai et al. 2019, tables 1 and 2: 41M and 151M; the published large model, counted by hand."""

    def blocks(config):
        d, f, inner = config.hidden_dim, config.intermediate_dim, config.num_heads * config.head_dim
        return config.num_layers * (5 * d * inner + 2 * d * f + f + d + 4 * d + 2 * inner)

    counts = {"enwik8": 204 * 512 + 204, "base": 267735 * 411 + 3 * 411}
    sizes = [(20000, 1024), (20000, 256), (160000, 64), (67735, 16)]
    counts["large"] = sum(v * e + v + 1024 * e for v, e in sizes) + 1024 * 1024 + 3 * 1025
    rounded = {"enwik8": 41, "base": 151, "large": 285}
    for size, words in counts.items():
        config = TransformerXLConfig(**SIZES[size])
        total = words + blocks(config) + config.hidden_dim // 2
        assert round(total / 1e6) == rounded[size]
        assert config.memory_length == {"enwik8": 512, "base": 150, "large": 384}[size]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(memory_length=0), r"memory_length must be .*or None. Received: 0"),
        (dict(hidden_dim=13), "hidden_dim must be even.*Received: 13"),
        (dict(memory_length=None, same_length=True), "need a memory. Received: memory_length=None"),
        (dict(cutoffs=(9, 4)), r"cutoffs must rise .*Received: cutoffs=\(9, 4\)"),
        (dict(cutoffs=(4, 13)), r"vocabulary_size=13"),
        (dict(cutoffs=(4, 9), divisor=4), r"at least divisor \*\* len\(cutoffs\).*divisor=4"),
        (dict(dropout=1.0), "dropout must be.*Received: 1.0"),
        (dict(memory_len=3), "no field 'memory_len'.*Did you mean 'memory_length'"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        transformer_xl("tiny", **SMALL | options)


def test_unknown_words():
    with pytest.raises(ValueError, match="token_ids.*size 13.*Received: 13"):
        small()({"token_ids": [[13]]})
    assert isinstance(small(), TransformerXL)
