"""Examples of each task, followed back to their texts."""

import numpy as np
import pytest

import tfmodels
from tfmodels.data import (
    batches,
    causal_language_modelling,
    classification,
    dialogue,
    item_sequences,
    prompt_response,
    question_answering,
    sequence_to_sequence,
    token_classification,
)
from tfmodels.data.sources import Records


def ids(tokenizer, text):
    return tokenizer.tokenize(text).numpy().tolist()


def test_texts_apart(byte_pair):
    """Each text an example, long ones cut, each token scored once."""
    texts = ["Jesus wept.", "", "In the beginning God created the heavens and the earth."]
    end, found = byte_pair.end_id, []
    for x, y, weight in causal_language_modelling(texts, byte_pair, 7, stride=3, join=False):
        real = weight == 1
        if x["token_ids"][0] == end:
            found.append([end])
        found[-1] += y[real].tolist()
        assert x["token_ids"][1:].tolist() == y[:-1].tolist()
    assert found == [[end, *ids(byte_pair, text), end] for text in texts if text]


@pytest.mark.parametrize("pairs", [False, True])
def test_classification(wordpiece, pairs):
    texts, labels = ["God is love", "Jesus wept " * 9, "Amen"], ["b", "a", "b"]
    second = ["the beginning", "the end " * 9, "so be it"] if pairs else None
    examples = classification(texts, labels, wordpiece, second, max_length=16)
    assert examples.labels == ["a", "b"]
    encoded = wordpiece.encode(texts, second, max_length=16)
    for i, (x, y, weight) in enumerate(examples):
        for name in x:
            assert x[name].tolist() == encoded[name][i].numpy()[: len(x[name])].tolist()
        assert set(x) == set(encoded) and len(x["token_ids"]) == np.sum(encoded["padding_mask"][i])
        assert (y, weight) == ([1, 0, 1][i], 1)
    x, y, _ = next(batches(examples, batch_size=3).as_numpy_iterator())
    assert y.tolist() == [1, 0, 1] and x["token_ids"].shape[1] == 16
    other = classification(
        ["x"], ["b"], wordpiece, ["y"] * pairs or None, label_names=["z", *examples.labels]
    )
    assert [y for _, y, _ in other] == [2]


def test_regression(wordpiece):
    examples = classification(["a", "b"], [1.5, -2.0], wordpiece)
    assert [float(y) for _, y, _ in examples] == [1.5, -2.0] and examples.labels is None
    assert [float(y) for _, y, _ in classification(["a", "b"], [1, 0.5], wordpiece)] == [1.0, 0.5]


def test_token_classification(wordpiece, byte_pair):
    verse = "In the beginning God created the heavens and the earth ."
    sentences = [["Jesus", "wept", "."], verse.split()]
    labels = [["NAME", "O", "O"], ["O"] * 3 + ["NAME"] + ["O"] * 7]
    for t in (wordpiece, byte_pair):
        for length in (64, 7):
            examples = token_classification(sentences, labels, t, max_length=length)
            assert examples.labels == ["NAME", "O"]
            tokens, found = [], []
            for x, y, weight in examples:
                specials = t.encode([""])["token_ids"].shape[1]
                inside = x["token_ids"][bool(specials) : len(y) - bool(specials)].tolist()
                assert len(x["token_ids"]) <= length and weight.any()
                tokens += inside
                found += y[weight == 1].tolist()
            # Joined, the tokens of the words are those of the text.
            assert tokens == sum((ids(t, " ".join(words)) for words in sentences), [])
            assert found == [examples.labels.index(label) for row in labels for label in row]


def test_token_classification_labels_stand_at_first_tokens(wordpiece):
    x, y, weight = next(iter(token_classification([["Jesus", "weptest"]], [["A", "B"]], wordpiece)))
    first, second = ids(wordpiece, "Jesus"), ids(wordpiece, "weptest")
    assert len(second) > 1
    assert x["token_ids"].tolist() == [wordpiece.start_id, *first, *second, wordpiece.end_id]
    expected = [0, 1, *[0] * (len(first) - 1), 1, *[0] * (len(second) - 1), 0]
    assert weight.tolist() == expected
    assert y[1 : 1 + len(first)].tolist() == [0] * len(first)
    assert y[1 + len(first) : -1].tolist() == [1] * len(second)


CONTEXT = (
    "And God said, Let there be light; and there was light. And God saw the light, that it was good: and God "
    "divided the light from the darkness. And God called the light Day, and the darkness he called Night."
)


def record(question, answer):
    answers = {"text": [answer], "answer_start": [CONTEXT.index(answer)]} if answer else {"text": []}
    return {"question": question, "context": CONTEXT, "answers": answers}


RECORDS = [record("What was there?", "light"), record("What did he call it?", "Night"), record("Who?", None)]


def test_answers_as_squads_own_files_have_them(wordpiece):
    """A list of answers, and not a dict of lists."""

    def targets(record):
        examples = question_answering([record], wordpiece, max_length=300, stride=12)
        ((_, y, _),) = batches(examples, batch_size=1).as_numpy_iterator()
        return int(y["start_logits"][0]), int(y["end_logits"][0])

    answer = {"text": "light", "answer_start": CONTEXT.index("light")}
    assert targets(RECORDS[0] | {"answers": [answer]}) == targets(RECORDS[0]) != (0, 0)
    assert targets(RECORDS[0] | {"answers": []}) == (0, 0)
    for wrong in ({"text": ["light"]}, ["light"], {"text": ["light"], "answer_start": []}, 3):
        with pytest.raises(ValueError, match="answers must be a dict of the lists .*Received: "):
            targets(RECORDS[0] | {"answers": wrong})


@pytest.mark.parametrize("kind", ["wordpiece", "byte_pair"])
@pytest.mark.parametrize("max_length", [40, 300])
def test_question_answering(kind, max_length, request):
    """Scores that are 1 at the targets give the answers back, through batches of other widths."""
    t = request.getfixturevalue(kind)
    examples = question_answering(RECORDS, t, max_length=max_length, stride=12)
    assert (len(examples) > 6) == (max_length == 40)
    starts, ends, targets = [], [], []
    for x, y, _ in batches(examples, batch_size=2).as_numpy_iterator():
        for row in range(len(y["start_logits"])):
            place = y["start_logits"][row], y["end_logits"][row]
            targets.append(place)
            start, end = np.zeros((2, x["token_ids"].shape[1]))
            start[place[0]], end[place[1]] = 1, 1
            if place != (0, 0):  # a window with the answer is surer
                start, end = start * 2, end * 2
            starts.append(start)
            ends.append(end)
    answers = examples.answers(starts, ends, may_be_none=True)
    assert answers == ["light", "Night", ""]
    for row, (x, _, _) in enumerate(examples):
        question = ids(t, RECORDS[examples.question_of[row]]["question"])
        begin, first, last = examples.places[row]
        context = x["token_ids"][begin : begin + len(first)].tolist()
        assert len(x["token_ids"]) <= max_length
        inside = x["token_ids"][:begin].tolist()
        assert any(inside[k : k + len(question)] == question for k in range(len(inside)))
        # The tokens are those of the running text.
        whole = ids(t, CONTEXT)
        assert any(whole[k : k + len(context)] == context for k in range(len(whole)))
        assert len(context) == len(first) == len(last)


def test_windows_overlap_by_the_stride(wordpiece):
    examples = question_answering(RECORDS[:1], wordpiece, max_length=40, stride=12)
    whole = ids(wordpiece, CONTEXT)
    found = [
        x["token_ids"][b : b + len(f)].tolist()
        for (x, _, _), (b, f, _) in zip(examples, examples.places, strict=True)
    ]
    joined = found[0]
    for window in found[1:]:
        assert joined[-12:] == window[:12]
        joined = joined + window[12:]
    assert joined == whole


def test_the_best_span_is_the_best_of_all(wordpiece):
    """Against a loop over all spans of all windows."""
    examples = question_answering(RECORDS[:1], wordpiece, max_length=40, stride=12)
    generator = np.random.default_rng(4)
    start, end = generator.normal(size=(2, len(examples), 40))
    best, answer = -np.inf, None
    for row, (begin, first, last) in enumerate(examples.places):
        for a in range(len(first)):
            for b in range(a, min(a + 3, len(first))):
                score = start[row, begin + a] + end[row, begin + b]
                if score > best:
                    best, answer = score, CONTEXT[first[a] : last[b]]
    assert examples.answers(start, end, max_answer_tokens=3) == [answer]


def test_a_context_of_blanks_has_no_answer(wordpiece):
    examples = question_answering([RECORDS[0], {"question": "Who?", "context": "  "}], wordpiece, 400, 12)
    start, end = np.random.default_rng(4).normal(size=(2, len(examples), 400))
    assert [bool(text) for text in examples.answers(start, end)] == [True, False]


def test_prompt_response(byte_pair):
    pairs = [("Who wept?", " Jesus"), ("Why? " * 20, " x")]
    examples = prompt_response(pairs, byte_pair, max_length=30)
    assert len(examples) == examples.left_out == 1
    x, y, weight = next(iter(examples))
    prompt, response = ids(byte_pair, "Who wept?"), ids(byte_pair, " Jesus")
    assert [*x["token_ids"].tolist(), y[-1]] == [*prompt, *response, byte_pair.end_id]
    assert y[weight == 1].tolist() == [*response, byte_pair.end_id]


def test_dialogue(byte_pair):
    turns = [("user", "Who wept?"), ("bot", "Jesus"), ("user", "Why?"), ("bot", "Lazarus was dead.")]
    prefixes = {"user": "User: ", "bot": "Bot: "}
    end = byte_pair.end_id
    whole = [[*ids(byte_pair, prefixes[who]), *ids(byte_pair, text), end] for who, text in turns]
    learnt = [[*ids(byte_pair, text), end] for who, text in turns if who == "bot"]
    for drop in range(4):  # as many first turns do not fit
        length = sum(map(len, whole[drop:])) - 1
        (example,) = dialogue([turns], byte_pair, length, speaker="bot", prefixes=prefixes)
        x, y, weight = example
        assert [*x["token_ids"].tolist(), y[-1]] == sum(whole[drop:], [])
        assert y[weight == 1].tolist() == sum(learnt[drop // 2 :], [])
    assert dialogue([turns], byte_pair, 3, speaker="bot").left_out == 1
    x, y, weight = next(iter(dialogue([turns], byte_pair, 100)))
    first = len(ids(byte_pair, turns[0][1])) + 1
    assert weight.tolist() == [0] * (first - 1) + [1] * (len(y) - first + 1)


def test_item_sequences():
    examples = item_sequences([["b", "a", "c", "b"], ["a"], ["c", "a"]], length=2)
    assert examples.labels == ["a", "b", "c"] and examples.left_out == 1
    found = [(x["token_ids"].tolist(), y.tolist(), w.tolist()) for x, y, w in examples]
    assert found == [([1, 3], [3, 2], [1, 1]), ([3], [1], [1])]
    last = item_sequences([["b", "a", "c"]], length=5, items=examples.labels, score="last")
    assert [w.tolist() for _, _, w in last] == [[0, 1]]


def test_a_model_learns_from_each(wordpiece, byte_pair):
    """One step of the model that the examples are for."""
    gpt2 = tfmodels.models.gpt2("tiny", vocabulary_size=400, num_layers=1)
    gpt2.compile("sgd")
    for examples in (
        prompt_response([("Who wept?", " Jesus")], byte_pair, 30),
        item_sequences([[5, 6, 7], [6, 7]], 5),
        causal_language_modelling(["Jesus wept."], byte_pair, 8, join=False),
    ):
        history = gpt2.fit(batches(examples, batch_size=2), verbose=0, shuffle=False)
        assert np.isfinite(history.history["loss"][0])


def texts_with(bad):
    return ["fine", bad]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda w, b: causal_language_modelling(texts_with(3), b, 8), "number 1: a text must be a string"),
        (lambda w, b: causal_language_modelling(texts_with("\ud800"), b, 8), "number 1: .*surrogate"),
        (lambda w, b: causal_language_modelling(texts_with(b"\xff"), b, 8), "number 1: .*UTF-8"),
        (lambda w, b: causal_language_modelling("text", b, 8), "one string, 'text'"),
        (lambda w, b: classification(["a", "b"], [True, 0.5], w), "number 1: a label must be"),
        (lambda w, b: sequence_to_sequence([("a", "")], b), "number 0: .*must not be empty"),
        (lambda w, b: classification(["a", ""], ["x", "y"], w), "number 1: .*must not be empty"),
        (lambda w, b: classification(["a"], ["x", "y"], w), "as many labels as texts. Received: 2 and 1"),
        (lambda w, b: classification(["a"], ["x"], w, label_names=["y"]), "number 0: unknown label.*'x'"),
        (
            lambda w, b: classification(["a"], ["x"], w, label_names=["x", "y", "x"]),
            "label_names .*'x' twice",
        ),
        (lambda w, b: token_classification([["a"]], [["X"]], w, ["X", "X"]), "label_names .*'X' twice"),
        (lambda w, b: item_sequences([["a", "b"]], 3, items=["a", "b", "a"]), "items .*'a' twice"),
        (lambda w, b: classification(["a"], [float("nan")], w), "number 0: .*finite"),
        (lambda w, b: classification(["a", "b"], ["x", 3], w), "all strings or all ints"),
        (lambda w, b: classification(["a"], [None], w), "number 0: a label must be"),
        (lambda w, b: classification("text", ["x"], w), "one string, 'text'"),
        (lambda w, b: token_classification([["a", "b"]], [["X"]], w), "number 0: .*as many labels"),
        (lambda w, b: token_classification([["a", "\x01"]], [["X", "Y"]], w), "number 0: .*have a token"),
        (lambda w, b: token_classification([["a"]], [["X"]], w, ["Y"]), "number 0: unknown label.*'X'"),
        (lambda w, b: question_answering([], w), "at least one question"),
        (lambda w, b: question_answering([{"question": "a"}], w), "number 0: .*have 'context'"),
        (
            lambda w, b: question_answering([RECORDS[0] | {"context": "x" + CONTEXT}], w),
            "number 0: the answer must stand.*'light', and",
        ),
        (lambda w, b: question_answering(RECORDS, w, max_length=30, stride=25), "stride=25, in number 0"),
        (lambda w, b: prompt_response([("a",)], b, 9), r"\(prompt, response\).*Number 0"),
        (
            lambda w, b: prompt_response(Records([("a",)], "Corpus/EN-De.JSONL", [3]), b, 9),
            "pair. Corpus/EN-De.JSONL:3: ",
        ),
        (lambda w, b: dialogue([], b, 9), "at least one conversation"),
        (lambda w, b: dialogue([[("x", "a")]], b, 9, prefixes={"y": ""}), "unknown speaker.*'x'. Known: y"),
        (lambda w, b: item_sequences([["a", "b"]], 3, items=["a"]), "number 0: unknown item.*'b'"),
        (
            lambda w, b: item_sequences([[1, 2], ["a", 2]], 3),
            "number 1: items must be all strings",
        ),
        (lambda w, b: item_sequences([], 3), "Received: 0, length=3"),
    ],
)
def test_bad_input(wordpiece, byte_pair, make, message):
    with pytest.raises(ValueError, match=message):
        make(wordpiece, byte_pair)
