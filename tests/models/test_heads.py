"""Task heads: what every model must hold, losses against NumPy, and bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.checks import check_model
from tests.reference.transformer import softmax
from tests.reference.weights import randomise
from tfmodels.layers import FirstToken, FoldChoices, LastToken, MeanToken, UnfoldChoices
from tfmodels.models import (
    BartConfig,
    BartReader,
    MaskedLanguageModel,
    MaskedLanguageModelConfig,
    MultipleChoiceModel,
    MultipleChoiceModelConfig,
    NextSentencePredictor,
    PreTrainingModel,
    QuestionAnsweringModel,
    QuestionAnsweringModelConfig,
    SentenceEmbedder,
    SentenceEmbedderConfig,
    SequenceClassifier,
    SequenceClassifierConfig,
    TokenClassifier,
    TokenClassifierConfig,
    bert,
    gpt2,
)

SMALL = dict(num_layers=1, num_heads=3, hidden_dim=12, intermediate_dim=11, max_sequence_length=9)
SMALL |= dict(vocabulary_size=13, dropout=0.0, attention_dropout=0.0)
IDS = np.array([[3, 7, 1, 12, 5], [9, 0, 4, 4, 11], [2, 2, 8, 6, 10], [1, 5, 9, 3, 0]])
CHOICES = np.stack([IDS[:2], IDS[2:], IDS[1:3]], axis=1)  # (2, 3, 5)
SPANS = {"start_logits": np.array([0, 2, 1, 3]), "end_logits": np.array([3, 2, 4, 4])}
BOTH = {"token_logits": IDS, "next_sentence_logits": np.array([0, 1, 1, 0])}


def small_bert(**options):
    return bert("tiny", **SMALL, **options)


def small_gpt2():
    return gpt2("tiny", **SMALL)


def small_reader():
    sizes = {name: size for name, size in SMALL.items() if name != "vocabulary_size"}
    return BartReader(BartConfig(**sizes, source_vocabulary_size=13, target_vocabulary_size=13))


def classifier(backbone=small_bert, **fields):
    return SequenceClassifier(backbone(), SequenceClassifierConfig(**({"dropout": 0.0} | fields)))


HEADS = {
    "single label": (lambda: classifier(num_labels=3), IDS, np.array([0, 2, 1, 2])),
    "single label over a decoder": (
        lambda: classifier(small_gpt2, num_labels=3, hidden_activation="tanh", use_bias=False),
        IDS,
        np.array([0, 2, 1, 2]),
    ),
    "single label over a reader on both sides": (
        lambda: classifier(small_reader, hidden_activation="tanh"),
        IDS,
        np.array([0, 1, 1, 0]),
    ),
    "multi label": (
        lambda: classifier(num_labels=2, problem="multi_label", pooling="mean"),
        IDS,
        np.array([[0, 1], [1, 1], [0, 0], [1, 0]]),
    ),
    "regression": (lambda: classifier(problem="regression"), IDS, np.array([0.5, -2.0, 1.0, 3.0])),
    "tokens": (
        lambda: TokenClassifier(small_bert(), TokenClassifierConfig(num_labels=3, dropout=0.0)),
        IDS,
        IDS % 3,
    ),
    "answers": (lambda: QuestionAnsweringModel(small_bert()), IDS, SPANS),
    "choices": (
        lambda: MultipleChoiceModel(small_bert(), MultipleChoiceModelConfig(dropout=0.0)),
        CHOICES,
        np.array([2, 1]),
    ),
    "words": (lambda: MaskedLanguageModel(small_bert()), IDS, IDS),
    "words, untied": (
        lambda: MaskedLanguageModel(small_bert(), MaskedLanguageModelConfig(tie_embeddings=False)),
        IDS,
        IDS,
    ),
    "next sentence": (lambda: NextSentencePredictor(small_bert()), IDS, np.array([0, 1, 1, 0])),
    "pre-training": (lambda: PreTrainingModel(small_bert()), IDS, BOTH),
    "sentences": (
        lambda: SentenceEmbedder(small_bert(), SentenceEmbedderConfig(temperature=0.5)),
        IDS,
        np.array([0, 1, 0, 1]),
    ),
}


# One of each kind of input, output and loss: the others differ from these in an option.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "single label over a reader on both sides",
        "choices",
        "answers",
        "pre-training",
        "sentences",
    ],
)
def test_check_model(name, tmp_path):
    make, ids, targets = HEADS[name]
    model, inputs = make(), {"token_ids": ids}
    if "segment_ids" in model.input:
        inputs["segment_ids"] = ids % 2
    check_model(model, inputs, tmp_path, targets)


def test_pooling_layers():
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    mask = np.array([[0, 1, 1, 0], [1, 1, 1, 2], [1, 0, 0, 0]])
    np.testing.assert_array_equal(FirstToken()(x, padding_mask=mask), x[[0, 1, 2], [1, 0, 0]])
    np.testing.assert_array_equal(LastToken()(x, padding_mask=mask), x[[0, 1, 2], [2, 3, 0]])
    mean = [x[0, 1:3].mean(0), x[1].mean(0), x[2, 0]]
    np.testing.assert_allclose(MeanToken()(x, padding_mask=mask), mean, atol=1e-6)
    nothing = MeanToken()(x, padding_mask=np.zeros((3, 4)))
    np.testing.assert_array_equal(nothing, np.zeros((3, 2)))
    folded = FoldChoices()(CHOICES)
    np.testing.assert_array_equal(folded[4], CHOICES[1, 1])
    np.testing.assert_array_equal(
        UnfoldChoices()(np.arange(6.0)[:, None], like=CHOICES), [[0, 1, 2], [3, 4, 5]]
    )


def evaluate(model, x, y, weights=None):
    """Logs of one batch, which a pipeline hands over: of arrays Keras wants a weight for each target."""
    model.compile("sgd", run_eagerly=True)
    data = ({"token_ids": x}, y) if weights is None else ({"token_ids": x}, y, weights)
    return model.evaluate(tf.data.Dataset.from_tensors(data), verbose=0, return_dict=True)


def test_answers_loss_is_that_of_the_real_tokens():
    """Padding changes no loss; a place outside the row, or at padding, is not scored."""
    model = QuestionAnsweringModel(small_bert())
    randomise(model, seed=1)
    logits = {name: np.asarray(x, "float64") for name, x in model({"token_ids": IDS}).items()}
    rows = np.arange(4)
    nll = {name: -np.log(softmax(logits[name])[rows, SPANS[name]]) for name in SPANS}
    logs = evaluate(model, IDS, SPANS)
    expected = (nll["start_logits"].mean() + nll["end_logits"].mean()) / 2
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    hits = [np.argmax(logits[name], -1) == SPANS[name] for name in SPANS]
    np.testing.assert_allclose(logs["exact_match"], np.mean(hits[0] & hits[1]))
    weights = np.array([0.5, 3.0, 1.0, 0.0], "float32")  # an example counts as often as its weight says
    exact = evaluate(model, IDS, SPANS, dict.fromkeys(SPANS, weights))["exact_match"]
    np.testing.assert_allclose(exact, np.average(hits[0] & hits[1], weights=weights), rtol=1e-6)
    inputs = {
        "token_ids": np.pad(IDS, ((0, 0), (0, 3))),
        "padding_mask": np.pad(np.ones_like(IDS), ((0, 0), (0, 3))),
    }
    padded = model.evaluate(inputs, SPANS, verbose=0, return_dict=True)
    np.testing.assert_allclose(padded["loss"], logs["loss"], rtol=1e-5)
    cut = {"start_logits": SPANS["start_logits"], "end_logits": np.array([3, 6, 4, 99])}
    logs = model.evaluate(inputs, cut, verbose=0, return_dict=True)
    expected = (nll["start_logits"].mean() + nll["end_logits"][[0, 2]].mean()) / 2
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)


def test_sentence_loss_is_the_papers():
    """Khosla et al. 2020, equation 2, row by row; a sentence alone with its number is not scored."""
    model = SentenceEmbedder(small_bert(), SentenceEmbedderConfig(temperature=0.5))
    randomise(model, seed=1)
    z = np.asarray(model({"token_ids": IDS}), "float64")
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1, rtol=1e-6)
    y = np.array([4, 4, 7, 4])
    losses = []
    for i in (0, 1, 3):
        others = [a for a in range(4) if a != i]
        total = sum(np.exp(z[i] @ z[a] / 0.5) for a in others)
        alike = [a for a in others if y[a] == y[i]]
        losses.append(-np.mean([np.log(np.exp(z[i] @ z[p] / 0.5) / total) for p in alike]))
    np.testing.assert_allclose(evaluate(model, IDS, y)["loss"], np.mean(losses), rtol=1e-5)


def test_weights_of_both_tasks():
    """A dict of weights, of one of the two, and one weight an example; the loss is the sum of means."""
    model = PreTrainingModel(small_bert())
    randomise(model, seed=1)
    words, following = (np.asarray(x, "float64") for x in model({"token_ids": IDS}).values())
    nll = -np.log(np.take_along_axis(softmax(words), IDS[:, :, None], -1)[:, :, 0])
    next_nll = -np.log(softmax(following)[np.arange(4), BOTH["next_sentence_logits"]])
    chosen = (np.arange(20).reshape(4, 5) % 3 == 0).astype("float32")
    rows = np.array([1, 0, 2, 0], "float32")
    for weights, token, sentence in (
        ({"token_logits": chosen, "next_sentence_logits": rows}, chosen, rows),
        ({"token_logits": chosen}, chosen, np.ones(4)),
        (rows, np.repeat(rows[:, None], 5, 1), rows),
    ):
        logs = evaluate(model, IDS, BOTH, weights)
        mean = np.average(nll, weights=token)
        np.testing.assert_allclose(logs["token_loss"], mean, rtol=1e-5)
        np.testing.assert_allclose(logs["token_perplexity"], np.exp(mean), rtol=1e-5)
        total = mean + np.average(next_nll, weights=sentence)
        np.testing.assert_allclose(logs["loss"], total, rtol=1e-5)


def test_loss_is_the_mean_over_the_whole_set():
    """Uneven batches, and weights: the logs are those of one batch."""
    model = classifier(num_labels=2, problem="multi_label")
    randomise(model, seed=1)
    y = np.array([[0, 1], [1, 1], [0, 0], [1, 0]])
    weights = np.array([1, 0, 2, 1], "float32")
    model.compile("sgd", run_eagerly=True)
    whole, parts = (
        model.evaluate({"token_ids": IDS}, y, sample_weight=weights, batch_size=n, verbose=0) for n in (4, 3)
    )
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    p = 1 / (1 + np.exp(-np.asarray(model({"token_ids": IDS}), "float64")))
    nll = -np.where(y == 1, np.log(p), np.log(1 - p))
    np.testing.assert_allclose(whole[0], np.average(nll.mean(1), weights=weights), rtol=1e-5)


def test_a_reader_is_pooled_at_its_end_and_needs_a_start():
    assert SequenceClassifier(small_reader()).config.pooling == "last"
    with pytest.raises(ValueError, match="BartReader needs a start_id. Received: start_id=None"):
        BartReader(BartConfig(start_id=None))
    model = small_reader()
    model.compile("sgd")
    with pytest.raises(ValueError, match="A bare reader has no task to train on"):
        model.fit({"token_ids": IDS}, IDS, verbose=0)


def test_labels_and_pooling_are_completed():
    config = TokenClassifierConfig(labels=["O", "B", "I"])
    assert config.num_labels == 3 and config.labels == ("O", "B", "I")
    assert SequenceClassifierConfig().num_labels == 2
    assert SequenceClassifierConfig(problem="regression").num_labels == 1
    assert classifier(small_gpt2).config.pooling == "last"
    assert classifier().config.pooling == "pooler"
    assert classifier(lambda: small_bert(pooler=False)).config.pooling == "first"


def test_fields_of_the_config_may_stand_alone():
    """`num_labels=3` was taken, and gave two."""
    assert SequenceClassifier(small_bert(), num_labels=3).output_shape == (None, 3)
    assert TokenClassifier(small_bert(), labels=["O", "B", "I"]).config.num_labels == 3


def test_frozen_backbone():
    model = classifier()
    model.backbone.trainable = False
    assert [v.path for v in model.trainable_variables] == ["output_dense/kernel", "output_dense/bias"]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: classifier(num_labels=0), r"num_labels must be.*Received: 0"),
        (lambda: classifier(num_labels=1), r"at least two labels.*num_labels=1. Pass problem="),
        (lambda: classifier(problem="ranking"), r"problem must be one of 'single_label'.*'ranking'"),
        (lambda: classifier(pooling="max"), r"pooling must be one of None, 'pooler'.*'max'"),
        (lambda: classifier(dropout=1.0), r"dropout must be.*Received: 1.0"),
        (lambda: classifier(labels=["a", 3]), r"labels must be strings.*\['a', 3\]"),
        (
            lambda: classifier(labels=["a", "b", "a"]),
            r"must have each name once. Received: 'a' 2 times",
        ),
        (lambda: classifier(labels=["a"], num_labels=2), r"num_labels=2, labels=\['a'\]"),
        (lambda: classifier(small_gpt2, pooling="pooler"), r"needs a backbone that has a pooler.*GPT2"),
        (lambda: SequenceClassifier(small_bert(), labels_number=3), r"Received: labels_number=3"),
        (
            lambda: SequenceClassifier(small_bert(), SequenceClassifierConfig(), num_labels=3),
            r"takes a SequenceClassifierConfig, .*Received: num_labels=3",
        ),
        (lambda: SentenceEmbedderConfig(temperature=0.0), r"temperature=0.0"),
        (lambda: QuestionAnsweringModelConfig(dropout=-1.0), r"dropout must be.*-1.0"),
        (lambda: evaluate(classifier(), IDS, IDS), r"must be int, \(batch,\). Received: shape \(4, 5\)"),
        (
            lambda: evaluate(classifier(problem="regression", num_labels=3), IDS, np.ones(4)),
            r"must be \(batch, 3\). Received: shape \(4,\)",
        ),
        (
            lambda: evaluate(QuestionAnsweringModel(small_bert()), IDS, np.ones(4, "int32")),
            r"dict of start_logits, end_logits. Received: ",
        ),
        (
            lambda: evaluate(PreTrainingModel(small_bert()), IDS, {"token_logits": IDS}),
            r"dict of token_logits, next_sentence_logits. Received: \['token_logits'\]",
        ),
        (
            lambda: evaluate(QuestionAnsweringModel(small_bert()), IDS, SPANS, {"start": np.ones(4)}),
            r"names of the targets. Received: \['start'\]",
        ),
        (
            lambda: evaluate(classifier(), IDS, np.zeros(4, "int32"), np.ones((4, 5))),
            r"no more axes than the targets. Received: \(4, 5\) for targets \(4,\)",
        ),
        (lambda: classifier()({"token_ids": [[13]]}), r"token_ids.*size 13.*Received: 13"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_compiled_head_saves_and_goes_on(tmp_path):
    model = classifier(num_labels=3)
    model.compile(keras.optimizers.AdamW(1e-2))
    y = np.array([0, 2, 1, 2])
    model.train_on_batch({"token_ids": IDS}, y)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    ours, theirs = (m.train_on_batch({"token_ids": IDS}, y) for m in (model, loaded))
    np.testing.assert_array_equal(ours, theirs)
