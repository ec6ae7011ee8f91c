"""Texts to entities: names with labels and places.

Shape letters: b batch, l length, e entities, n labels.
"""

import re

import tensorflow as tf

from tfmodels.serving.frames import Frame
from tfmodels.serving.located import locate
from tfmodels.serving.signatures import TEXT, Signature


class Entities:
    """The signature of a token-classification head.

    A word has the label of its first token, as it was trained. Words that follow each other are one
    entity by the labels' own scheme: I- goes on, B- begins anew; labels without a prefix go on as long
    as they are the same; "O" is none.
    """

    def __init__(self, head):
        self.head = head
        self.frame = Frame(head)
        kinds, begins = [], []
        names = []
        for label in head.labels:
            match = re.fullmatch(r"([BIESLU])-(.+)", label)
            prefix, name = match.groups() if match else ("", label)
            if name not in names:
                names.append(name)
            kinds.append(-1 if label == "O" else names.index(name))
            begins.append(prefix in ("B", "S", "U"))
        self._names = names
        self._kinds, self._begins = kinds, begins

    def signature(self):
        return Signature(
            self._answer,
            {"text": TEXT},
            "The entities of each text.",
            {
                "entities": "their texts, (batch, entities), empty after each row's counts",
                "labels": "their labels, without B- and I-",
                "starts": "the character (Unicode code point) at which each begins",
                "ends": "the character after its last",
                "probabilities": "the mean of its words'",
                "counts": "entities of each row",
                "truncated": "whether the text was too long and cut",
            },
        )

    def _answer(self, text):
        located = locate(self.head.tokenizer, text, self.frame.blank)
        located, truncated = located.cut(self.head.max_length - self.frame.size)
        inputs, begins = self.frame.around(located.ids)
        probabilities = tf.nn.softmax(self.head(inputs))  # (b, l, n)
        # Each word's first token, over the batch as one flat list.
        row = located.ids.value_rowids()
        place = tf.range(tf.size(row, tf.int64)) - tf.gather(located.ids.row_splits, row)
        word = located.words.flat_values
        first = (place == 0) | (word != tf.concat([[-1], word[:-1]], 0))
        at = tf.where(first)[:, 0]
        row, place = tf.gather(row, at), tf.gather(place, at)
        index = tf.stack([row, place + tf.cast(tf.gather(begins, row), tf.int64)], 1)
        each = tf.gather_nd(probabilities, index)  # (words, n)
        label = tf.argmax(each, axis=1)
        score = tf.reduce_max(each, axis=1)
        begin = tf.gather(located.begins.flat_values, at)
        # A word ends with its last token: the one before the next word's first.
        last = tf.concat([at[1:], [tf.size(word, tf.int64)]], 0)[: tf.size(at)] - 1
        end = tf.gather(located.ends.flat_values, last)
        return self._joined(located.text, row, label, score, begin, end) | {"truncated": truncated}

    def _joined(self, text, row, label, score, begin, end):
        """Words (words,) to entities, padded to (b, e)."""
        kind = tf.gather(tf.constant(self._kinds), label)
        new = tf.gather(tf.constant(self._begins), label)
        none = tf.constant([-1], tf.int32)
        new |= kind != tf.concat([none, kind[:-1]], 0)
        new |= row != tf.concat([tf.cast(none, tf.int64), row[:-1]], 0)
        number = tf.cumsum(tf.cast(new, tf.int64)) - 1  # the run of each word
        runs = tf.reduce_sum(tf.cast(new, tf.int64))
        starts = tf.where(new)[:, 0]
        kind, row, begin = (tf.gather(x, starts) for x in (kind, row, begin))
        end = tf.math.unsorted_segment_max(end, number, runs)
        score = tf.math.unsorted_segment_mean(score, number, runs)
        kept = kind >= 0
        kind, row, begin, end, score = (tf.boolean_mask(x, kept) for x in (kind, row, begin, end, score))
        words = tf.strings.substr(tf.gather(text, row), begin, end - begin, unit="UTF8_CHAR")
        rows = tf.size(text, tf.int64)

        def padded(values):
            return tf.RaggedTensor.from_value_rowids(values, row, rows, validate=False).to_tensor()

        return {
            "entities": padded(words),
            "labels": padded(tf.gather(tf.constant(self._names), kind)),
            "starts": padded(begin),
            "ends": padded(end),
            "probabilities": padded(score),
            "counts": tf.math.bincount(tf.cast(row, tf.int32), minlength=tf.cast(rows, tf.int32)),
        }
