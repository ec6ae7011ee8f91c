"""Models against NumPy written from the papers, and what every model must hold."""

import numpy as np
import pytest

from tests.checks import check_model
from tests.reference import transformer as reference
from tests.reference import weights as read
from tfmodels.models import GPT2, GPT2Config, TransformerConfig, bert, gpt2, transformer

ATOL = 1e-5  # float32, 2 layers, logits of the order of 1
SMALL = dict(num_layers=2, num_heads=3, hidden_dim=12, intermediate_dim=11, max_sequence_length=9)
RNG = np.random.default_rng(0)
SOURCE = RNG.integers(0, 17, (2, 7))
TARGET = np.array([[3, 7, 1, 12, 5], [9, 0, 4, 4, 11]])  # rows differ from the first token on
SOURCE_MASK = np.array([[1, 1, 1, 2, 2, 2, 0], [1, 1, 2, 2, 3, 3, 3]])
TARGET_MASK = np.array([[1, 1, 2, 2, 0], [1, 2, 2, 3, 3]])


def small_gpt2(**overrides):
    return gpt2("tiny", **(SMALL | dict(vocabulary_size=13) | overrides))


def small_transformer(**overrides):
    sizes = dict(source_vocabulary_size=17, target_vocabulary_size=13, share_embeddings=False)
    # A smoothed loss has a floor above 0, which one batch learnt by heart cannot go below.
    return transformer("tiny", **(SMALL | dict(label_smoothing=0.0) | sizes | overrides))


def small_bert(**overrides):
    return bert("tiny", **(SMALL | dict(vocabulary_size=13) | overrides))


def small_distilbert(**overrides):
    sizes = SMALL | dict(segment_vocabulary_size=None, pooler=False)
    return bert("distil", **sizes, vocabulary_size=13, **overrides)


def test_gpt2_equals_the_paper():
    model = small_gpt2()
    read.randomise(model, seed=1)
    for mask in (np.ones_like(TARGET), TARGET_MASK):
        expected = reference.gpt2(read.gpt2(model), TARGET, mask, 3, 1e-5)
        logits = np.asarray(model({"token_ids": TARGET, "padding_mask": mask}))
        np.testing.assert_allclose(logits[mask != 0], expected[mask != 0], atol=ATOL)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_transformer_equals_the_paper(norm_first, shared):
    sizes = {"vocabulary_size": 17, "share_embeddings": True} if shared else {}
    if shared:
        model = transformer("tiny", **SMALL, **sizes, norm_first=norm_first)
    else:
        model = small_transformer(norm_first=norm_first)
    read.randomise(model, seed=1)
    inputs = {
        "encoder_token_ids": SOURCE,
        "encoder_padding_mask": SOURCE_MASK,
        "decoder_token_ids": TARGET,
        "decoder_padding_mask": TARGET_MASK,
    }
    expected = reference.transformer(
        read.transformer(model), SOURCE, SOURCE_MASK, TARGET, TARGET_MASK, 3, 1e-6, norm_first
    )
    real = TARGET_MASK != 0
    logits = np.asarray(model(inputs))
    # Logits here reach 10: embeddings are scaled by sqrt(12) on the way in.
    np.testing.assert_allclose(logits[real], expected[real], rtol=1e-5, atol=ATOL)
    assert (model.source_embedding is model.target_embedding) == shared


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_gpt2, small_transformer, small_bert])
def test_check_model(make, tmp_path):
    inputs = {"token_ids": TARGET}
    if make is small_bert:
        inputs["segment_ids"] = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])
    if make is small_transformer:
        inputs = {"encoder_token_ids": SOURCE, "decoder_token_ids": TARGET}
    check_model(make(num_layers=1, dropout=0.0, attention_dropout=0.0), inputs, tmp_path)


def test_sizes_are_the_papers():
    """Parameters counted by hand: GPT-2 124M and the base model's 65M (table 3), biases included."""

    def blocks(config, sublayers):
        d, f = config.hidden_dim, config.intermediate_dim
        attention = 4 * (d * d + d)
        feed_forward = d * f + f + f * d + d
        return config.num_layers * sum(
            2 * d + {"attention": attention, "feed_forward": feed_forward}[name] for name in sublayers
        )

    config = GPT2Config()
    count = (config.vocabulary_size + config.max_sequence_length) * config.hidden_dim
    count += blocks(config, ["attention", "feed_forward"]) + 2 * config.hidden_dim
    assert count == 124_439_808
    assert gpt2("small").count_params() == count
    config = TransformerConfig()
    count = config.source_vocabulary_size * config.hidden_dim
    count += blocks(config, ["attention", "feed_forward"])
    count += blocks(config, ["attention", "attention", "feed_forward"])
    assert round(count / 1e6) == 63  # the paper rounds to 65 with its vocabulary of about 37000
    assert transformer("base").count_params() == count


def test_bert_sizes_are_the_papers():
    """Devlin et al. 2019, section 3: 110M, counted by hand; Sanh et al. 2019, table 3: 66M."""
    d, f = 768, 3072
    block = 4 * (d * d + d) + d * f + f + f * d + d + 4 * d
    shared = (30522 + 512) * d + 2 * d
    assert bert("base").count_params() == shared + 2 * d + 12 * block + d * d + d == 109_482_240
    assert bert("distil").count_params() == shared + 6 * block == 66_362_880


def test_bert_without_segments_given():
    """Segments left out are all 0; DistilBERT has none; RoBERTa's positions start at row 2."""
    model = small_bert()
    read.randomise(model, seed=1)
    zeros = model({"token_ids": TARGET, "segment_ids": np.zeros_like(TARGET)})
    np.testing.assert_array_equal(model({"token_ids": TARGET})["sequence_output"], zeros["sequence_output"])
    ones = model({"token_ids": TARGET, "segment_ids": np.ones_like(TARGET)})
    assert np.abs(ones["sequence_output"] - zeros["sequence_output"]).max() > 0.1
    assert set(small_distilbert().output) == {"sequence_output"}
    roberta = bert("roberta_base", **SMALL, vocabulary_size=13)
    assert roberta.position_embedding.table.shape == (9 + 2, 12)


def test_a_bare_encoder_has_no_task():
    model = small_bert()
    model.compile("adamw")
    with pytest.raises(ValueError, match="A bare encoder has no task"):
        model.fit({"token_ids": TARGET}, TARGET, verbose=0)


def test_a_mask_may_be_left_out():
    model = small_gpt2()
    full = model({"token_ids": TARGET, "padding_mask": np.ones_like(TARGET)})
    np.testing.assert_array_equal(model({"token_ids": TARGET}), full)
    predicted = model.predict({"token_ids": TARGET}, verbose=0)
    np.testing.assert_allclose(predicted, full, atol=1e-6)  # fused in the graph


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: gpt2("huge"), r"size='huge'.*tiny, distil, small, medium, large, xl"),
        (lambda: gpt2("tiny", num_layer=3), r"num_layer'.*mean 'num_layers'"),
        (lambda: gpt2("tiny", num_layers=0), r"num_layers must be.*Received: 0"),
        (lambda: gpt2("tiny", dropout=1.0), r"dropout must be.*Received: 1.0"),
        (lambda: transformer("tiny", num_encoder_layers=-1), "num_encoder_layers must be .* Received: -1"),
        (lambda: gpt2("tiny", num_heads=5), r"hidden_dim=128, num_heads=5"),
        (lambda: transformer("tiny", source_vocabulary_size=9), r"source_vocabulary_size=9.*share"),
        (lambda: small_gpt2()({"token_ids": [[13]]}), r"token_ids.*size 13.*Received: 13"),
        (lambda: small_gpt2()({"token_ids": [[-1]]}), r"Received: -1"),
        (
            lambda: small_gpt2()({"token_ids": [[1]], "attention_mask": [[1]]}),
            r"GPT2 is under padding_mask. Received: attention_mask",
        ),
        (lambda: small_gpt2()({"token_ids": np.zeros((1, 10))}), r"=9.*length=10"),
        (
            lambda: GPT2(small_gpt2().config, vocabulary=9),
            r"GPT2 takes a GPT2Config, .*Received: vocabulary=9",
        ),
        (lambda: bert("tiny", position_offset="x"), r"position_offset must be one of.*'x'"),
        (
            lambda: small_bert()({"token_ids": [[1]], "segment_ids": [[2]]}),
            r"segment_ids.*size 2.*Received: 2",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
