"""Models and layers in the hands of Keras: nested, quantized, saved with a user's head, watched."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.reference.weights import randomise
from tfmodels import layers
from tfmodels.models import MaskedLanguageModel, bart, bert, gpt2, t5, transformer

SIZES = dict(num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=24, dropout=0.0)
IDS = np.random.default_rng(0).integers(1, 30, (4, 8)).astype("int32")


def small(make, **options):
    if make is not t5:
        options |= {"attention_dropout": 0.0, "max_sequence_length": 8}
    return make("tiny", vocabulary_size=30, **SIZES, **options)


def masked(**options):
    backbone = small(bert)
    return MaskedLanguageModel(backbone, **options)


MODELS = {
    "gpt2": lambda: small(gpt2),
    "gpt2 untied": lambda: small(gpt2, tie_embeddings=False),
    "t5": lambda: small(t5),
    "t5 untied": lambda: small(t5, tie_embeddings=False),
    "bart": lambda: small(bart),
    "transformer": lambda: small(transformer, label_smoothing=0.0),
    "masked": masked,
    "masked untied": lambda: masked(tie_embeddings=False),
}


@pytest.mark.parametrize(
    "name, mode",
    [*((name, "int8") for name in MODELS if name not in ("masked", "transformer")), ("gpt2", "int4")],
)
def test_the_loss_of_a_rounded_model_is_that_of_its_logits(name, mode):
    model = MODELS[name]()
    randomise(model, seed=1, scale=0.3)
    model.quantize(mode)
    x = dict.fromkeys(model.input_pairs, IDS)
    targets = np.roll(IDS, -1, axis=1)
    model.compile("sgd")
    loss = model.evaluate(x, targets, verbose=0, return_dict=True)["loss"]
    logits = np.asarray(model(x), "float64")
    expected = -np.take_along_axis(logits, targets[..., None], -1)[..., 0] + np.log(np.exp(logits).sum(-1))
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-4)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_rounded_model_is_saved(mode, tmp_path):
    model = small(gpt2)
    randomise(model, seed=1, scale=0.3)
    model.quantize(mode)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded({"token_ids": IDS}), model({"token_ids": IDS}))


@pytest.mark.parametrize(
    "output",
    [
        lambda model: model.output["pooled_output"],
        lambda model: layers.MeanToken(dtype="mixed_bfloat16")(model.output["sequence_output"]),
    ],
)
def test_a_users_head_on_a_backbone_is_saved(output, tmp_path):
    backbone = small(bert)
    model = keras.Model(backbone.inputs, keras.layers.Dense(3)(output(backbone)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = {"token_ids": IDS, "padding_mask": np.ones_like(IDS), "segment_ids": np.zeros_like(IDS)}
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize("make", [gpt2, bert])
def test_a_nested_model_may_leave_out_its_mask(make):
    model = small(make)
    inputs = {"token_ids": keras.Input((8,), dtype="int32")}
    nested = keras.Model(inputs, model(inputs))
    for a, b in zip(
        tf.nest.flatten(nested({"token_ids": IDS})), tf.nest.flatten(model({"token_ids": IDS})), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@keras.saving.register_keras_serializable("tests")
def half(x):
    return x / 2


@pytest.mark.parametrize("activation", [half, keras.layers.LeakyReLU(0.3)])
@pytest.mark.parametrize(
    "make",
    [
        lambda activation: layers.FeedForward(12, activation),
        lambda activation: layers.TransformerBlock(2, 12, activation=activation),
        lambda activation: layers.RMSNormBlock(2, 12, activation=activation, gated=True),
        lambda activation: layers.VocabularyTransform(activation),
    ],
)
def test_an_activation_of_a_users_is_saved(make, activation, tmp_path):
    x = keras.random.normal((2, 3, 8), seed=1)
    model = keras.Sequential([keras.Input((3, 8)), make(activation)])
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))


def test_attention_weights_in_a_functional_model():
    x, memory = keras.Input((5, 8)), keras.Input((7, 8))
    output, weights = layers.MultiHeadSelfAttention(2)(x, return_attention=True)
    _, across = layers.MultiHeadCrossAttention(2)(output, memory, return_attention=True)
    assert (weights.shape, across.shape) == ((None, 2, 5, 5), (None, 2, 5, 7))
    found = keras.Model([x, memory], [weights, across])([np.ones((3, 5, 8)), np.ones((3, 7, 8))])
    np.testing.assert_allclose(keras.ops.sum(found[1], axis=-1), np.ones((3, 2, 5)), rtol=1e-6)


@pytest.mark.parametrize("monitor, mode", [("val_accuracy", "max"), ("val_perplexity", "min")])
def test_callbacks_know_whether_more_is_better(monitor, mode, tmp_path):
    model = small(gpt2)
    model.compile("sgd")
    callbacks = [
        keras.callbacks.EarlyStopping(monitor, patience=9),
        keras.callbacks.ReduceLROnPlateau(monitor),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor, save_best_only=True),
    ]
    x = {"token_ids": IDS}
    model.fit(x, IDS, validation_data=(x, IDS), verbose=0, callbacks=callbacks)
    assert (tmp_path / "best.keras").exists() and callbacks[0].mode == mode


def test_the_built_in_loss_forgets_the_one_before():
    model = small(gpt2)
    x = {"token_ids": IDS}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["sparse_categorical_accuracy"])
    model.fit(x, IDS, verbose=0)
    model.compile("sgd")
    assert set(model.fit(x, IDS, verbose=0).history) == {"loss", "accuracy", "perplexity"}
    assert set(model.evaluate(x, IDS, verbose=0, return_dict=True)) == {"loss", "accuracy", "perplexity"}
    model.compile("sgd", loss, metrics=["sparse_categorical_accuracy"])
    assert "sparse_categorical_accuracy" in model.fit(x, IDS, verbose=0).history


NEGATIVE = np.where(np.arange(8) == 3, -1, IDS)
LARGE = np.where(np.arange(8) == 3, 30, IDS)


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda m: m.fit({"token_ids": NEGATIVE}, IDS, verbose=0), "at least 0. Received: -1"),
        (lambda m: m.evaluate({"token_ids": NEGATIVE}, IDS, verbose=0), "at least 0. Received: -1"),
        (lambda m: m.predict({"token_ids": LARGE}, verbose=0), "of 30 rows. Received: 30"),
        (lambda m: m.train_on_batch({"token_ids": LARGE}, IDS), "of 30 rows. Received: 30"),
        (lambda m: m.test_on_batch({"token_ids": LARGE}, IDS), "of 30 rows. Received: 30"),
        (lambda m: m.fit(IDS, IDS, verbose=0), "must be a dict of token_ids. Received: "),
        (lambda m: m.fit({"input_ids": IDS}, IDS, verbose=0), "must have token_ids. Received: input_ids"),
        (lambda m: m.fit({"token_ids": IDS}, {"a": IDS}, verbose=0), "one array. Received: a dict of a"),
        (lambda m: m.compile("sgd", loss_weights={"a": 1}), "loss_weights needs loss= too"),
        (
            lambda m: m.fit({"token_ids": IDS}, IDS, class_weight={0: 1.0}, verbose=0),
            r"one label an example. Received: targets of shape \(4, 8\)",
        ),
        (
            lambda m: m.fit(
                tf.data.Dataset.from_tensors(({"token_ids": IDS}, IDS)), class_weight={0: 1.0}, verbose=0
            ),
            r"one label an example. Received: targets of shape \(4, 8\)",
        ),
        (lambda m: small(gpt2).fit({"token_ids": IDS}, IDS, verbose=0), "You must call `compile"),
    ],
)
def test_bad_input(act, message):
    model = small(gpt2)
    model.compile("sgd")
    with pytest.raises(ValueError, match=message):
        act(model)


@pytest.mark.parametrize("name", ["gpt2", "t5", "masked"])
def test_a_compiled_step_of_batches_of_unknown_sizes(name):
    """As `tfmodels.data` makes them: XLA learns their sizes as it compiles."""
    weights = []
    for jit_compile in (True, False):
        keras.utils.set_random_seed(0)
        model = MODELS[name]()
        model.compile(keras.optimizers.SGD(0.5), jit_compile=jit_compile, micro_batches=2)
        element = dict.fromkeys(model.input_pairs, IDS), IDS
        spec = tf.nest.map_structure(lambda ids: tf.TensorSpec((None, None), ids.dtype), element)
        data = tf.data.Dataset.from_generator(lambda each=element: iter([each] * 2), output_signature=spec)
        model.fit(data, verbose=0)
        weights.append(model.get_weights())
    for compiled, plain in zip(*weights, strict=True):
        np.testing.assert_allclose(compiled, plain, atol=1e-5)


def test_data_of_unknown_length_ends_without_a_warning():
    model = small(gpt2)
    model.compile("sgd")
    whole = tf.data.Dataset.from_tensor_slices(({"token_ids": IDS}, IDS)).batch(2)
    data = whole.take_while(lambda x, y: True)
    assert data.cardinality() == tf.data.UNKNOWN_CARDINALITY
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Your input ran out of data")
        model.fit(data, epochs=2, verbose=0)
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        model.fit(data, epochs=2, steps_per_epoch=3, verbose=0)
