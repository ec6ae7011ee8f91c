"""Questions to answers: a span of the context, with its place. Shape letters: b batch, l length."""

import tensorflow as tf

from tfmodels.serving.frames import Frame
from tfmodels.serving.located import locate
from tfmodels.serving.signatures import TEXT, Signature

_MAX_ANSWER_TOKENS = 30  # as tfmodels.data's QuestionExamples.answers
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
                "truncated": "whether the question or the context was too long and cut",
            },
        )

    def _answer(self, question, context):
        questions = self.head.tokenizer.tokenize(question)
        long_question = questions.row_lengths() > self.most_question
        questions = questions[:, : self.most_question]
        located = locate(self.head.tokenizer, context, self.frame.blank)
        room = self.head.max_length - self.frame.size - tf.cast(questions.row_lengths(), tf.int32)
        located, long_context = located.cut(room)
        inputs, begins = self.frame.around(questions, located.ids)
        outputs = self.head(inputs)
        length = tf.shape(outputs["start_logits"])[1]
        column = tf.range(length)[None]
        count = tf.cast(located.ids.row_lengths(), tf.int32)
        inside = (column >= begins[:, None]) & (column < (begins + count)[:, None])  # (b, l)
        allowed = inside | (column == 0)
        start, end = (
            tf.nn.log_softmax(tf.where(allowed, outputs[name], _NEVER))
            for name in ("start_logits", "end_logits")
        )
        first, last, score = _best_span(start, end, inside)
        places = [
            tf.pad(x.to_tensor(), ((0, 0), (0, length)))[:, :length] for x in (located.begins, located.ends)
        ]
        found = count > 0
        at = [tf.clip_by_value(i - begins, 0, length - 1) for i in (first, last)]
        begin, stop = (
            tf.where(found, tf.gather(x, i, batch_dims=1), 0) for x, i in zip(places, at, strict=True)
        )
        return {
            "answer": tf.strings.substr(located.text, begin, stop - begin, unit="UTF8_CHAR"),
            "start": begin,
            "end": stop,
            "probability": tf.where(found, tf.exp(score), 0.0),
            "none_probability": tf.exp(start[:, 0] + end[:, 0]),
            "truncated": long_question | long_context,
        }


def _best_span(start, end, inside):
    """First and last place of the best span in each row, (b,), and its score; of ties the first."""
    length = tf.shape(start)[1]
    start = tf.where(inside, start, _NEVER)
    end = tf.where(inside, end, _NEVER)
    ends = tf.pad(end, ((0, 0), (0, _MAX_ANSWER_TOKENS - 1)), constant_values=_NEVER)
    steps = tf.range(length)[:, None] + tf.range(_MAX_ANSWER_TOKENS)[None]  # (l, answer)
    scores = start[:, :, None] + tf.gather(ends, steps, axis=1)  # (b, l, answer)
    flat = tf.reshape(scores, (tf.shape(start)[0], length * _MAX_ANSWER_TOKENS))
    best = tf.argmax(flat, axis=1, output_type=tf.int32)
    first = best // _MAX_ANSWER_TOKENS
    return first, first + best % _MAX_ANSWER_TOKENS, tf.reduce_max(flat, axis=1)
