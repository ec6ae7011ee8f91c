"""T5 against NumPy written from the paper, and what every model must hold."""

import keras
import numpy as np
import pytest

from tests.checks import check_model
from tests.models.test_models import SOURCE, SOURCE_MASK, TARGET, TARGET_MASK
from tests.reference import t5 as reference
from tests.reference.weights import randomise
from tfmodels.models import T5Config, T5Encoder, t5

ATOL = 1e-5  # float32, 3 and 2 layers, logits of the order of 1
# num_heads does not divide hidden_dim; few kinds of distance, so that rows reach beyond the last.
SMALL = dict(
    vocabulary_size=17,
    num_encoder_layers=3,
    num_layers=2,
    num_heads=3,
    head_dim=5,
    hidden_dim=14,
    intermediate_dim=11,
    num_buckets=7,
    max_distance=5,
)
V1_1 = dict(activation="gelu_tanh", gated=True, tie_embeddings=False, scale_logits=False)


def small_t5(**overrides):
    return t5("tiny", **(SMALL | overrides))


def small_encoder(**overrides):
    return T5Encoder(T5Config(**(SMALL | overrides)))


@pytest.mark.parametrize("version", [{}, V1_1])
def test_t5_equals_the_paper(version):
    model = small_t5(norm_epsilon=0.01, **version)
    randomise(model, seed=1)
    config = SMALL | {"norm_epsilon": 0.01}
    for source_mask, target_mask in (
        (np.ones_like(SOURCE), np.ones_like(TARGET)),
        (SOURCE_MASK, TARGET_MASK),
    ):
        inputs = {
            "encoder_token_ids": SOURCE,
            "encoder_padding_mask": source_mask,
            "decoder_token_ids": TARGET,
            "decoder_padding_mask": target_mask,
        }
        weights = reference.read(model)
        expected = reference.t5(weights, SOURCE, source_mask, TARGET, target_mask, config)
        real = target_mask != 0
        logits = np.asarray(model(inputs))
        np.testing.assert_allclose(logits[real], expected[real], rtol=1e-5, atol=ATOL)


def test_encoder_is_the_encoder():
    model, encoder = small_t5(), small_encoder()
    randomise(model, seed=1)
    weights = {variable.path: variable for variable in model.weights}
    for variable in encoder.weights:
        variable.assign(weights[variable.path])
    inputs = {"token_ids": SOURCE, "padding_mask": SOURCE_MASK}
    expected = model.encode({f"encoder_{name}": value for name, value in inputs.items()})
    np.testing.assert_array_equal(encoder(inputs)["sequence_output"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda **options: small_t5(**V1_1, **options), small_encoder])
def test_check_model(make, tmp_path):
    inputs = {"encoder_token_ids": SOURCE, "decoder_token_ids": TARGET}
    if make is small_encoder:
        inputs = {"token_ids": SOURCE}
    check_model(make(dropout=0.0, num_encoder_layers=2, num_layers=1), inputs, tmp_path)


@pytest.mark.parametrize("version", [{}, V1_1])
def test_built_in_loss_is_that_of_the_logits(version):
    """The blockwise loss multiplies hidden states and kernel itself: scaled as the logits are."""
    model = small_t5(dropout=0.0, **version)
    randomise(model, seed=1)
    inputs = {"encoder_token_ids": SOURCE, "decoder_token_ids": TARGET}
    labels = np.roll(TARGET, -1, axis=1)
    model.compile("adamw")
    loss = model.evaluate(inputs, labels, verbose=0)[0]
    expected = keras.losses.sparse_categorical_crossentropy(labels, model(inputs), from_logits=True)
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-6)


def test_first_weights():
    """Mesh TensorFlow's: logits of variance 1, queries smaller by sqrt(head_dim)."""
    keras.utils.set_random_seed(0)
    model = t5("tiny", dropout=0.0, num_layers=1)  # 128 wide, 4 heads of 32, 512 inside
    attention = model.encoder_blocks[0].attention
    feed_forward = model.encoder_blocks[0].feed_forward
    for variable, stddev in (
        (model.token_embedding.embeddings, 1.0),
        (attention.query_dense.kernel, (128 * 32) ** -0.5),
        (attention.key_dense.kernel, 128**-0.5),
        (attention.output_dense.kernel, 128**-0.5),
        (feed_forward.intermediate_dense.kernel, 128**-0.5),
        (feed_forward.output_dense.kernel, 512**-0.5),
        (model.encoder.position_bias.table, 128**-0.5),
    ):
        # 128 to 512000 draws: 15 % is over 2 standard errors of the fewest.
        assert abs(np.std(variable) / stddev - 1) < 0.15, variable.path
    ids = np.arange(60).reshape(2, 30)
    logits = np.asarray(model({"encoder_token_ids": ids, "decoder_token_ids": ids}))
    assert 0.8 < logits.std() < 1.5


def test_sizes_are_the_published():
    """Parameters of t5-small and flan-t5-small."""
    counts = {"small": 60_506_624, "v1_1_small": 76_961_152}
    assert {size: t5(size).count_params() for size in counts} == counts


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: small_t5(end_id=17), r"end_id must be at least 0 and below.*17"),
        (lambda: small_t5(initializer_factor=0), r"initializer_factor must be above 0.*0"),
        (lambda: t5("tiny", num_buckets=8, max_distance=4), r"num_buckets=8, max_distance=4"),
        (lambda: t5("tiny", max_sequence_length=0), r"max_sequence_length must be.*or None.*0"),
        (lambda: t5("v1.1"), r"size='v1.1'.*v1_1_small"),
        (lambda: small_encoder().task_loss(None, None, None, False), "bare encoder"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
