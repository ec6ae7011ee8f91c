"""Questions to answers: a span of the context, with its place, found through windows over it.

Shape letters: b batch, w windows of a context, k windows that run at once, l length.
"""

import tensorflow as tf

from tfmodels.serving.frames import Frame
from tfmodels.serving.located import locate
from tfmodels.serving.signatures import TEXT, Signature, same_rows

_MAX_ANSWER_TOKENS = 30  # as tfmodels.data's QuestionExamples.answers
_SHARED_TOKENS = 128  # of two neighbouring windows, as tfmodels.data.question_answering
_MOST_WINDOWS = 64  # of a context: one request must not keep a server for minutes
_AT_ONCE = 16  # windows; so many bound the memory, whatever the context
_NEVER = -1e9


class Spans:
    """The signature of a question-answering head."""

    def __init__(self, head):
        self.head = head
        self.frame = Frame(head, pair=True)
        # A question may take half of the room: the context needs the rest.
        self.most_question = (head.max_length - self.frame.size) // 2

    def signature(self):
        return Signature(
            self._answer,
            {"question": TEXT, "context": TEXT},
            "The span of each context that answers its question best.",
            {
                "answer": "the context's own characters",
                "start": "the character (Unicode code point) at which it begins",
                "end": "the character after its last",
                "probability": "of its first token as the first times its last as the last, in the context",
                "none_probability": "the same of the row's first token, which stands for no answer",
                "truncated": f"whether the question, or the context after {_MOST_WINDOWS} windows, was cut",
            },
        )

    def _answer(self, question, context):
        question, context = same_rows(question=question, context=context).values()
        questions = self.head.tokenizer.tokenize(question)
        long_question = questions.row_lengths() > self.most_question
        questions = questions[:, : self.most_question]
        located = locate(self.head.tokenizer, context, self.frame.blank)
        room = self.head.max_length - self.frame.size - tf.cast(questions.row_lengths(), tf.int32)
        step = room - tf.minimum(_SHARED_TOKENS, room // 2)
        located, long_context = located.cut(room + (_MOST_WINDOWS - 1) * step)
        found = self._best_of_windows(questions, located, room, step)
        return {
            "answer": tf.strings.substr(
                located.text, found["start"], found["end"] - found["start"], unit="UTF8_CHAR"
            ),
            **found,
            "truncated": long_question | long_context,
        }

    def _best_of_windows(self, questions, located, room, step):
        """The place and the probabilities of the best span in all windows of each context, (b,)."""
        first, last, row_of = _windows(located.ids, room, step)
        windows = tf.size(row_of)

        def run(at, found):
            here = tf.range(at, tf.minimum(at + _AT_ONCE, windows))
            asked = tf.gather(questions, tf.gather(row_of, here))
            scores = self._scores(asked, located, tf.gather(first, here), tf.gather(last, here))
            return at + _AT_ONCE, {name: found[name].scatter(here, x) for name, x in scores.items()}

        found = {name: tf.TensorArray(dtype, windows, element_shape=()) for name, dtype in _SCORES.items()}
        _, found = tf.while_loop(lambda at, found: at < windows, run, (0, found))

        def by_row(name, dtype):
            values = found[name].stack()
            rows = tf.RaggedTensor.from_value_rowids(values, row_of, tf.size(room), validate=False)
            missing = _NEVER if dtype.is_floating else 0
            # One window more than there are: a batch without rows has a column, too.
            return tf.pad(rows.to_tensor(missing), ((0, 0), (0, 1)), constant_values=missing)  # (b, w)

        return _joined({name: by_row(name, dtype) for name, dtype in _SCORES.items()})

    def _scores(self, questions, located, first, last):
        """What is known of each window, (k,), of the tokens from `first` to before `last`."""
        tokens = tf.ragged.range(first, last, row_splits_dtype=tf.int64)
        inputs, place = self.frame.around(questions, tf.gather(located.ids.flat_values, tokens))
        outputs = self.head(inputs)
        column = tf.range(tf.shape(outputs["start_logits"])[1])[None] - place[:, None]  # (k, l)
        inside = (column >= 0) & (column < (last - first)[:, None])
        start, end = (tf.where(inside, outputs[name], _NEVER) for name in ("start_logits", "end_logits"))
        *span, score = _best_span(start, end)
        found = {"score": score}
        for name, at, characters in zip(("start", "end"), span, (located.begins, located.ends), strict=True):
            at = first + tf.maximum(at - place, 0)
            # Of a window without tokens nothing is read: its score says so.
            found[name] = tf.gather(tf.pad(characters.flat_values, ((0, 1),)), at)
        for name, scores in (("start", start), ("end", end)):
            found[f"{name}_sum"] = tf.reduce_logsumexp(scores, axis=1)
            found[f"{name}_none"] = outputs[f"{name}_logits"][:, 0]
        return found


_SCORES = {
    **dict.fromkeys(("score", "start_sum", "end_sum", "start_none", "end_none"), tf.float32),
    **dict.fromkeys(("start", "end"), tf.int32),
}


def _windows(ids, room, step):
    """Windows over the tokens of contexts, of `room` tokens each and `step` after one another, (b,).

    Returns:
        The numbers of each window's first token, and the one after its last, in the flat list of all,
        and its row, (windows,). A context without tokens has one window.
    """
    lengths = tf.cast(ids.row_lengths(), tf.int32)
    counts = 1 + (tf.maximum(lengths - room, 0) + step - 1) // step
    row_of = tf.repeat(tf.range(tf.size(counts)), counts)
    number = tf.range(tf.size(row_of)) - tf.gather(tf.cumsum(counts, exclusive=True), row_of)
    begin = tf.gather(tf.cast(ids.row_splits, tf.int32), row_of)
    first = number * tf.gather(step, row_of)
    last = tf.minimum(first + tf.gather(room, row_of), tf.gather(lengths, row_of))
    return begin + first, begin + last, row_of


def _joined(found):
    """The answer of all windows (b, w), which compete with one another and with no answer.

    No answer is as good as in the window that is surest that it holds one (Devlin et al. 2019,
    section 4.3), so it is more probable than the span if and only if it scores better.
    """
    none = found["start_none"] + found["end_none"]
    none = tf.argmin(tf.where(none > _NEVER, none, -_NEVER), axis=1)
    best = tf.argmax(found["score"], axis=1)

    def at(name, window):
        return tf.gather(found[name], window, batch_dims=1)

    total = 0.0
    for side in ("start", "end"):
        sums = tf.concat([found[f"{side}_sum"], at(f"{side}_none", none)[:, None]], 1)
        total += tf.reduce_logsumexp(sums, axis=1)
    any_token = at("score", best) > _NEVER
    return {
        "start": tf.where(any_token, at("start", best), 0),
        "end": tf.where(any_token, at("end", best), 0),
        "probability": tf.where(any_token, tf.exp(at("score", best) - total), 0.0),
        "none_probability": tf.exp(at("start_none", none) + at("end_none", none) - total),
    }


def _best_span(start, end):
    """First and last place of the best span in each row, (k,), and its score; of ties the first."""
    length = tf.shape(start)[1]
    ends = tf.pad(end, ((0, 0), (0, _MAX_ANSWER_TOKENS - 1)), constant_values=_NEVER)
    steps = tf.range(length)[:, None] + tf.range(_MAX_ANSWER_TOKENS)[None]  # (l, answer)
    scores = start[:, :, None] + tf.gather(ends, steps, axis=1)  # (k, l, answer)
    flat = tf.reshape(scores, (tf.shape(start)[0], length * _MAX_ANSWER_TOKENS))
    best = tf.argmax(flat, axis=1, output_type=tf.int32)
    first = best // _MAX_ANSWER_TOKENS
    return first, first + best % _MAX_ANSWER_TOKENS, tf.reduce_max(flat, axis=1)
