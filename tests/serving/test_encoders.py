"""Exports of models with a head, against the model called by hand."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import tfmodels
from tests.reference.transformer import softmax
from tests.reference.weights import randomise
from tfmodels.models import (
    MaskedLanguageModel,
    MultipleChoiceModel,
    NextSentencePredictor,
    PreTrainingModel,
    QuestionAnsweringModel,
    SentenceEmbedder,
    SequenceClassifier,
    SequenceClassifierConfig,
    TokenClassifier,
    TokenClassifierConfig,
    bert,
)
from tfmodels.serving.encoders import head_signatures

SMALL = dict(num_layers=1, num_heads=3, hidden_dim=12, intermediate_dim=11, max_sequence_length=24)
TEXTS = ["Ann went to Rome.", "", "ünï (don't)  stop", b"bad \xff\xc3 bytes", "a long text " * 20]


@pytest.fixture(scope="module")
def wordpiece():
    words = ["Ann went to Rome, and Bob to Paris; did they stop?", "a long text: unions", "bad bytes"]
    return tfmodels.tokenizers.WordPieceTokenizer.train(words, vocabulary_size=70)


def exported(model, tokenizer, path, **options):
    randomise(model, seed=3, scale=0.4)
    folder = tfmodels.export(model, tokenizer, path, **options)
    card = json.loads((pathlib.Path(folder) / "assets.extra" / "tfmodels.json").read_text())
    loaded = tf.saved_model.load(folder)
    return card, {name: loaded.signatures[name] for name in card["signatures"]}


def small_bert(tokenizer):
    return bert("tiny", vocabulary_size=tokenizer.vocabulary_size, **SMALL)


def rows_are_as_alone(signature, **texts):
    """The answers of a batch, each row compared with that row alone."""
    whole = signature(**{name: tf.constant(each) for name, each in texts.items()})
    whole = {name: value.numpy() for name, value in whole.items()}
    for i in range(len(next(iter(texts.values())))):
        alone = signature(**{name: tf.constant(each[i : i + 1]) for name, each in texts.items()})
        for name, value in alone.items():
            row = whole[name][(i, *(slice(n) for n in value.shape[1:]))]
            if value.dtype.is_floating:
                np.testing.assert_allclose(row, value[0], atol=1e-5)  # float32, one layer
            else:
                assert np.array_equal(row, value[0].numpy()), name
    return whole


def check_refused(signature, rule, **inputs):
    specs = signature.structured_input_signature[1]
    inputs = {name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        signature(**inputs)


def test_labels(wordpiece, tmp_path):
    config = SequenceClassifierConfig(labels=("no", "yes", "perhaps"))
    model = SequenceClassifier(small_bert(wordpiece), config)
    card, signatures = exported(model, wordpiece, tmp_path, license="Apache-2.0")
    assert card["libraries"] == [] and card["license"] == "Apache-2.0"
    assert card["head"]["labels"] == ["no", "yes", "perhaps"]
    answers = rows_are_as_alone(signatures["serving_default"], text=TEXTS)
    expected = softmax(model(wordpiece.encode(TEXTS, max_length=24)).numpy())
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    names = np.array([b"no", b"yes", b"perhaps"])
    assert answers["label"].tolist() == names[expected.argmax(1)].tolist()
    assert answers["truncated"].tolist() == [False, False, False, False, True]
    pairs = signatures["pair"](text=tf.constant(TEXTS), pair=tf.constant(TEXTS[::-1]))
    inputs = wordpiece.encode(TEXTS, TEXTS[::-1], max_length=24)
    np.testing.assert_allclose(pairs["probabilities"], softmax(model(inputs).numpy()), atol=1e-5)
    check_refused(signatures["pair"], "pair must have as many rows as text", text=["a", "b"], pair=["c"])
    raw = {"token_ids": [[5, 6]], "padding_mask": [[1, 1]], "segment_ids": [[0, 1]]}
    for name, value, rule in (
        ("segment_ids", [[0, 0], [0, 0]], "segment_ids must have the shape of token_ids"),
        ("segment_ids", [[0]], "segment_ids must have the shape of token_ids"),
        ("segment_ids", [[0, 7]], "segment_ids must be at least 0 and below 2"),
        ("padding_mask", [[1, 1], [1, 1]], "padding_mask must have the shape of token_ids"),
    ):
        check_refused(signatures["logits"], rule, **raw | {name: value})
    for length, rule in ((0, "token_ids must have rows of a length"), (25, "from 1 to 24")):
        check_refused(signatures["logits"], rule, **{name: [[1] * length] for name in raw})
    lengths = tf.reduce_sum(wordpiece.encode(TEXTS, TEXTS[::-1])["padding_mask"], 1)
    assert pairs["truncated"].numpy().tolist() == (lengths > 24).numpy().tolist()


def test_spans(wordpiece, tmp_path):
    """Against tfmodels.data's own windows and its own way from scores to text."""
    model = QuestionAnsweringModel(small_bert(wordpiece))
    _, signatures = exported(model, wordpiece, tmp_path, signatures="serving_default")  # one, or a list
    words = ("ünï Ann went to Rome, and (Bob) to Paris;" * 9).split()
    long = "  " + " ".join(np.random.default_rng(0).permutation(words))  # no two windows are equal
    contexts = [*TEXTS[:3], "bad \ufffd\ufffd bytes", TEXTS[4], long, long[::-1], "stop " * 900]
    questions = ["Who went?", "Did they stop?", "Which?", "Where?", "", "Who?", "to Paris?", "Ann?"]
    serve = signatures["serving_default"]
    sent = [*contexts[:3], TEXTS[3], *contexts[4:]]
    answers = rows_are_as_alone(serve, question=questions, context=sent)
    check_refused(serve, "context must have as many rows as question", question=["a", "b"], context=["c"])
    assert answers["answer"][1] == b"" and answers["probability"][1] == 0
    assert answers["none_probability"][1] == pytest.approx(1)
    assert answers["truncated"].tolist() == [False] * 7 + [True]
    beyond = []
    for i in (0, 3, 5, 6):
        room = 24 - 3 - len(wordpiece.tokenize(questions[i]))
        records = [{"question": questions[i] or " ", "context": contexts[i]}]
        examples = tfmodels.data.question_answering(records, wordpiece, max_length=24, stride=room // 2)
        start, end = [], []
        for inputs, _, _ in examples:
            outputs = model({name: value[None] for name, value in inputs.items()})
            start.append(outputs["start_logits"][0].numpy())
            end.append(outputs["end_logits"][0].numpy())
        (expected,) = examples.answers(start, end)
        assert answers["answer"][i].decode() == expected
        assert contexts[i][answers["start"][i] : answers["end"][i]] == expected
        (or_none,) = examples.answers(start, end, may_be_none=True)
        assert (or_none == "") == (answers["none_probability"][i] > answers["probability"][i])
        beyond.append(answers["end"][i] > examples.places[0][2][-1])
    assert any(beyond)  # of what one window reads
    empty = serve(question=tf.constant([], tf.string), context=tf.constant([], tf.string))
    assert empty["answer"].shape == (0,)


def test_entities(wordpiece, tmp_path):
    labels = ("O", "B-PER", "I-PER", "I-LOC")
    model = TokenClassifier(small_bert(wordpiece), TokenClassifierConfig(labels=labels))
    _, signatures = exported(model, wordpiece, tmp_path)
    answers = rows_are_as_alone(signatures["serving_default"], text=TEXTS)
    assert answers["counts"].sum() > 3 and answers["truncated"].tolist() == [False] * 4 + [True]
    for row, text in enumerate(TEXTS[:3]):
        words = text.split()
        if not words:
            assert answers["counts"][row] == 0
            continue
        examples = tfmodels.data.token_classification([words], [["O"] * len(words)], wordpiece, labels)
        ((x, _, first),) = examples
        tags = np.argmax(model({n: v[None] for n, v in x.items()})[0], -1)[np.flatnonzero(first)]
        found, before, at = [], "", 0
        for word, tag in zip(words, tags, strict=True):
            at = text.index(word, at)
            prefix, _, kind = labels[tag].rpartition("-")
            if kind != "O" and kind == before and prefix != "B":
                found[-1] = (found[-1][0], found[-1][1], at + len(word))
            elif kind != "O":
                found.append((kind, at, at + len(word)))
            before, at = kind, at + len(word)
        count = answers["counts"][row]
        assert [
            (label.decode(), begin, end)
            for label, begin, end in zip(
                *(answers[name][row][:count].tolist() for name in ("labels", "starts", "ends")), strict=True
            )
        ] == found
        texts = [text[begin:end].encode() for _, begin, end in found]
        assert answers["entities"][row][:count].tolist() == texts


def test_vectors(wordpiece, tmp_path):
    model = SentenceEmbedder(small_bert(wordpiece))
    _, signatures = exported(model, wordpiece, tmp_path, max_length=10)
    answers = rows_are_as_alone(signatures["serving_default"], text=TEXTS)
    np.testing.assert_allclose(answers["embedding"], model(wordpiece.encode(TEXTS, max_length=10)), atol=1e-5)
    ids = wordpiece.encode(TEXTS, max_length=10)
    raw = signatures["logits"](**ids)["logits"]
    np.testing.assert_allclose(raw, answers["embedding"], atol=1e-5)


def test_words_and_next_sentence(wordpiece, tmp_path):
    """BERT's heads of pre-training together: each kind's signatures."""
    model = PreTrainingModel(small_bert(wordpiece))
    _, signatures = exported(model, wordpiece, tmp_path, signatures=["serving_default", "pair"])
    texts = ["Ann [MASK] to Rome.", "no mask", "[MASK] and [MASK] " + "stop " * 40]
    answers = rows_are_as_alone(signatures["serving_default"], text=texts)
    assert answers["truncated"].tolist() == [False, False, True]
    inputs = wordpiece.encode(texts, max_length=24)
    probabilities = softmax(model(inputs)["token_logits"].numpy())
    masks = np.argwhere(inputs["token_ids"].numpy() == wordpiece.mask_id)
    place = {0: 0, 1: 0, 2: 0}
    for row, at in masks:
        expected = probabilities[row, at]
        best = np.argsort(-expected)[:5]
        words = wordpiece.detokenize(best[:, None].astype("int32"), skip_special_tokens=False)
        assert answers["words"][row, place[row]].tolist() == words.numpy().tolist()
        np.testing.assert_allclose(answers["probabilities"][row, place[row]], expected[best], atol=1e-5)
        place[row] += 1
    assert place == {0: 1, 1: 0, 2: 2}
    assert (answers["words"][1] == b"").all() and answers["words"].shape == (3, 2, 5)
    follows = ["Bob to Paris", "", "they [MASK]"]
    pairs = signatures["pair"](text=tf.constant(texts), pair=tf.constant(follows))
    outputs = model(wordpiece.encode(texts, follows, max_length=24))
    expected = softmax(outputs["next_sentence_logits"].numpy())[:, 0]
    np.testing.assert_allclose(pairs["follows_probability"], expected, atol=1e-5)
    assert pairs["words"].shape == (3, 3, 5)  # the pair's masks after the text's


def test_choices(wordpiece, tmp_path):
    model = MultipleChoiceModel(small_bert(wordpiece))
    _, signatures = exported(model, wordpiece, tmp_path, signatures=["serving_default"])
    texts = ["Ann went to Rome.", "Did they stop?"]
    choices = [["they did", "", "Bob"], ["a long text " * 9, "no", "to Paris"]]
    answers = rows_are_as_alone(
        signatures["serving_default"], text=np.array(texts, object), choices=np.array(choices, object)
    )
    assert answers["truncated"].tolist() == [False, True]
    for i, text in enumerate(texts):
        inputs = wordpiece.encode([text] * 3, choices[i], max_length=24)
        expected = softmax(model({name: x[None] for name, x in inputs.items()}).numpy())[0]
        np.testing.assert_allclose(answers["probabilities"][i], expected, atol=1e-5)
        assert answers["choice"][i] == expected.argmax()


@pytest.mark.parametrize("head", [MaskedLanguageModel, NextSentencePredictor])
def test_one_head_of_pre_training(wordpiece, head):
    """The signatures alone: what is traced and written is as of both heads."""
    model = head(small_bert(wordpiece))
    randomise(model, seed=3, scale=0.4)
    signatures, _ = head_signatures(model, wordpiece)
    texts = ["Ann [MASK] to Rome.", "[MASK]"]
    if head is MaskedLanguageModel:
        answers = signatures["serving_default"].call(tf.constant(texts))
        inputs = wordpiece.encode(texts)
        at = np.argwhere(inputs["token_ids"].numpy() == wordpiece.mask_id)
        expected = softmax(model(inputs).numpy()[at[:, 0], at[:, 1]]).max(1)
        np.testing.assert_allclose(answers["probabilities"][:, 0, 0], expected, atol=1e-5)
    else:
        answers = signatures["serving_default"].call(tf.constant(texts), tf.constant(texts[::-1]))
        expected = softmax(model(wordpiece.encode(texts, texts[::-1])).numpy())[:, 0]
        np.testing.assert_allclose(answers["probability"], expected, atol=1e-5)


def test_errors(wordpiece, tmp_path):
    with pytest.raises(ValueError, match="Received: Bert. Put a head on it, such as SentenceEmbedder"):
        tfmodels.export(small_bert(wordpiece), wordpiece, tmp_path)
    model = SentenceEmbedder(small_bert(wordpiece))
    with pytest.raises(ValueError, match=r"writes no text. Received: .*\['max_new_tokens'\]"):
        tfmodels.export(model, wordpiece, tmp_path, max_new_tokens=3)
    with pytest.raises(ValueError, match="at most the model's 24. Received: 30"):
        tfmodels.export(model, wordpiece, tmp_path, max_length=30)
    assert not list(tmp_path.iterdir())
