"""Questions with a context that holds the answer, cut in overlapping windows, and answers back as text."""

import re

import numpy as np

from tfmodels.data.examples import Examples
from tfmodels.data.ragged import Ragged
from tfmodels.data.tokens import Frame, Table, blank_before, check_text, padding_id, tokenize, where

# A word's parts, where a tokenizer may cut: letters and digits, or one other sign.
_PARTS = re.compile(r"\w+|[^\w\s]")


def question_answering(records, tokenizer, max_length=384, stride=128, max_question_length=64):
    """Questions with contexts to windows that a span is found in (Rajpurkar et al. 2016).

    The context is tokenized word by word, so the place of each token in it is known: exactly where the
    tokenizer cuts a word at its punctuation as if the parts stood alone (WordPiece does), else as that of
    its whole word. An answer's tokens are those that touch its characters.

    Args:
        records: list of dicts in SQuAD's form: `question`; `context`; `answers`, a dict of lists `text`
            and `answer_start`, in characters, of which the first is the target. No answers, or none in
            the window: the target is the row's first token. Without `answers` anywhere, for prediction
            alone, the same.
        tokenizer: has `tokenize`, `encode`, `template` and `pad_id`.
        max_length: int, tokens of a window with question and special ones.
        stride: int, tokens of context that two windows share.
        max_question_length: int; longer questions are cut at their end.

    Returns:
        `QuestionExamples` of x, a dict of `token_ids` and, if the tokenizer has them, `segment_ids`; y, a
        dict of `start_logits` and `end_logits`, () int32, the places of the answer's first and last
        token.

    Raises:
        ValueError: there are no records, one lacks a part, an answer does not stand where it says, or
            windows have no room to go on.
    """
    if not len(records):
        raise ValueError("There must be at least one question. Received: none.")
    spans = [_check(records[i], where(records, i)) for i in range(len(records))]
    contexts = [record["context"] for record in records]
    questions = tokenize(tokenizer, [record["question"] for record in records]).first(max_question_length)
    frame = Frame(tokenizer, pair=True)
    located = _located(contexts, tokenizer)
    question_of, firsts, counts = _windows(questions, located, max_length - frame.size, stride)
    ids = Ragged.from_rows(
        located[i][0][f : f + c] for i, f, c in zip(question_of, firsts, counts, strict=True)
    )
    x, (_, begins) = frame.around(questions.select(question_of), ids)
    targets = np.zeros((len(question_of), 2), np.int32)
    for row, (i, first, count) in enumerate(zip(question_of, firsts, counts, strict=True)):
        if spans[i] is not None:
            targets[row] = _target(located[i], spans[i], first, count, begins[row])
    examples = QuestionExamples.from_ragged(
        {"padding_mask": x},
        pad={"x/token_ids": padding_id(tokenizer)},
        **{"y/start_logits": targets[:, 0], "y/end_logits": targets[:, 1]},
    )
    examples.contexts, examples.question_of = contexts, question_of
    examples.places = [
        (begin, located[i][1][f : f + c], located[i][2][f : f + c])
        for i, f, c, begin in zip(question_of, firsts, counts, begins, strict=True)
    ]
    return examples


class QuestionExamples(Examples):
    """Windows of contexts, and the way back from scores to text.

    Attributes:
        contexts: list of str, one a question.
        question_of: int array, (examples,), the question of each window.
        places: list of (begin, first, last): where the context begins in the row, and the characters at
            which each of its tokens begins and ends.
    """

    def answers(self, start_logits, end_logits, max_answer_tokens=30, may_be_none=False):
        """The best span of all windows of each question, as the context's own characters.

        Args:
            start_logits, end_logits: for each example a row of scores, (at least its length,), in the
                examples' order: an array, or a list of rows, since batches have their own widths.
            max_answer_tokens: int.
            may_be_none: bool, whether the answer is "" where the first token scores best, start and end
                together (Devlin et al. 2019, section 4.3).

        Returns:
            List of str, one a question.
        """
        best = [(-np.inf, "")] * len(self.contexts)
        none = np.full(len(self.contexts), np.inf)
        if len(start_logits) != len(self) or len(end_logits) != len(self):
            raise ValueError(
                f"There must be scores for each of {len(self)} examples. "
                f"Received: {len(start_logits)} and {len(end_logits)}."
            )
        for row, i in enumerate(self.question_of):
            start, end = (np.asarray(logits[row], np.float64) for logits in (start_logits, end_logits))
            none[i] = min(none[i], start[0] + end[0])
            begin, first, last = self.places[row]
            if not len(first):  # a context of blanks
                continue
            inside = slice(begin, begin + len(first))
            scores = start[inside, None] + end[None, inside]  # (first token, last token)
            length = np.arange(len(first))[None] - np.arange(len(first))[:, None] + 1
            scores = np.where((length > 0) & (length <= max_answer_tokens), scores, -np.inf)
            a, b = np.unravel_index(scores.argmax(), scores.shape)
            if scores[a, b] > best[i][0]:
                best[i] = scores[a, b], self.contexts[i][first[a] : last[b]]
        return ["" if may_be_none and none[i] > score else text for i, (score, text) in enumerate(best)]


def _check(record, place):
    """The answer's first and last character, or None."""
    for name in ("question", "context"):
        if name not in record:
            raise ValueError(f"{place}: a record must have {name!r}. Received: {sorted(record)}.")
        check_text(record[name], place)
    answers = record.get("answers") or []
    try:
        if isinstance(answers, dict):  # Hugging Face's data set; SQuAD's own files have a list of dicts
            names = ("text", "answer_start")
            answers = [{name: answers[name][0] for name in names}] if len(answers["text"]) else []
        if not len(answers):
            return None
        text, start = answers[0]["text"], int(answers[0]["answer_start"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{place}: answers must be a dict of the lists text and answer_start, or a list of dicts of "
            f"both. Received: {answers!r}."
        ) from error
    found = record["context"][start : start + len(text)] if start >= 0 else ""
    if not text or found != text:
        raise ValueError(
            f"{place}: the answer must stand at its answer_start in the context. "
            f"Received: {text!r}, and {found!r} at {start}."
        )
    return start, start + len(text)


def _located(contexts, tokenizer):
    """For each context its ids and the characters at which each token begins and ends."""
    blank = blank_before(tokenizer)
    words = [[(m.group(), m.start()) for m in re.finditer(r"\S+", context)] for context in contexts]
    strings = {word if i == 0 else blank + word for found in words for i, (word, _) in enumerate(found)}
    parts = {string: _PARTS.findall(string) for string in strings}
    blanks = {string: " " * string.startswith(" ") for string in strings}
    table = Table(
        tokenizer,
        [*sorted(strings), *sorted({p for found in parts.values() for p in found})]
        + sorted(blanks[string] + parts[string][0] for string in strings if parts[string]),
    )
    # Ids of each string, and where each token begins and ends in its word.
    cut = {string: _cut(string, parts[string], blanks[string], table) for string in strings}
    located = []
    for found in words:
        rows = [cut[word if i == 0 else blank + word] for i, (word, _) in enumerate(found)]
        starts = [start for _, start in found]
        located.append(
            (
                np.concatenate([np.zeros(0, np.int32), *(ids for ids, _, _ in rows)]),
                np.concatenate(
                    [np.zeros(0, int), *(b + s for (_, b, _), s in zip(rows, starts, strict=True))]
                ),
                np.concatenate(
                    [np.zeros(0, int), *(e + s for (_, _, e), s in zip(rows, starts, strict=True))]
                ),
            )
        )
    return located


def _cut(string, parts, blank, table):
    """A word's ids with the characters of each: those of its part, if the parts' ids are the word's."""
    ids, word = table[string], string.removeprefix(blank)
    rows = [table[part if i else blank + part] for i, part in enumerate(parts)]
    if not rows or not np.array_equal(np.concatenate(rows), ids):
        return ids, np.zeros(len(ids), int), np.full(len(ids), len(word))
    spans = [match.span() for match in _PARTS.finditer(word)]
    counts = list(map(len, rows))
    return ids, *(np.repeat(np.array(side), counts) for side in zip(*spans, strict=True))


def _windows(questions, located, room, stride):
    """Windows of all contexts: the question of each, its first token and how many it has."""
    windows = []
    for i, (ids, _, _) in enumerate(located):
        size = room - int(questions.lengths[i])
        if size <= stride or size < 1:
            raise ValueError(
                "max_length must have room for the question, special tokens and more than stride tokens of "
                f"context. Received: room for {size}, stride={stride}, in number {i}."
            )
        first = 0
        while True:
            windows.append((i, first, min(size, len(ids) - first)))
            if first + size >= len(ids):
                break
            first += size - stride
    return (np.array(column) for column in zip(*windows, strict=True))


def _target(located, span, first, count, begin):
    """First and last place of the answer in a window's row, or 0, 0 if it is not wholly there."""
    _, begins, ends = located
    tokens = np.flatnonzero((begins < span[1]) & (ends > span[0]))
    if not len(tokens) or tokens[0] < first or tokens[-1] >= first + count:
        return 0, 0
    return begin + tokens[0] - first, begin + tokens[-1] - first
