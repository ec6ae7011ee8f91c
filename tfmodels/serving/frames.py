"""The special tokens around token ids, by the tokenizer's template, in graph ops."""

import tensorflow as tf

from tfmodels.serving.signatures import rounded


class Frame:
    """What stands around one text or two.

    Args:
        head: a `Head`.
        pair: bool, whether there are two texts.

    Attributes:
        size: int, special tokens.
        blank: str, what a word that is not its text's first is tokenized with.
    """

    def __init__(self, head, pair=False):
        self._head = head
        tokenizer = head.tokenizer
        self._items = tokenizer.template.pair if pair else tokenizer.template.single
        self.size = sum(token not in ("$A", "$B") for token, _ in self._items)
        words = ["a b", "a", "b"]
        whole, a, b = tokenizer.tokenize(words).to_list()
        self.blank = "" if whole == a + b else " "

    def around(self, *rows):
        """Ids, one or two int32 ragged tensors (batch, length), to the model's inputs.

        Returns:
            The inputs, and where the last text begins in each row, int32 (batch,).
        """
        tokenizer = self._head.tokenizer
        texts = dict(zip(("$A", "$B"), rows, strict=False))
        last = list(texts)[-1]
        column = tf.ones((rows[0].nrows(), 1), tf.int32)
        ids, segments, begins = [], [], tf.zeros(tf.shape(column)[0], tf.int32)
        before = True
        for token, segment in self._items:
            part = (
                texts[token]
                if token in texts
                else tf.RaggedTensor.from_tensor(column * tokenizer.special_id(token))
            )
            before = before and token != last
            if before:
                begins += tf.cast(part.row_lengths(), tf.int32)
            ids.append(part)
            segments.append(part.with_flat_values(tf.fill(tf.shape(part.flat_values), segment)))
        ids, segments = tf.concat(ids, 1), tf.concat(segments, 1)
        inputs = {
            "token_ids": ids.to_tensor(tokenizer.pad_id),
            "padding_mask": tf.ones_like(ids).to_tensor(),
            "segment_ids": segments.to_tensor(),
        }
        return self._head.named(rounded(inputs, self._head.max_length)), begins
