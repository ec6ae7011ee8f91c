"""What all tokenizers share."""

import tensorflow as tf

from tfmodels.tokenizers import _template
from tfmodels.tokenizers._rows import take


class Tokenizer(tf.Module):
    """Text to ids and back in graph ops, so that it works inside tf.data and in a SavedModel.

    Attributes:
        vocabulary_size: int, one more than the highest id.
        pad_id, unknown_id, start_id, end_id, mask_id: int, ids of the special tokens; -1 where there is
            none.
        template: where special tokens stand around one text and around two.
        has_segments: bool, whether `encode` gives `segment_ids`.
    """

    pad_id = unknown_id = start_id = end_id = mask_id = -1
    template = _template.PLAIN
    has_segments = False

    def _set_template(self, template, id_of, segments=None):
        """Checks a template, or None, or its text form, and keeps it with its ids."""
        if not isinstance(template, _template.Template):
            forms = ("$A",) if template is None else template
            template = _template.parse(*((forms,) if isinstance(forms, str) else forms))
        self._template_ids = {token: id_of(token) for token in template.tokens}
        unknown = [token for token, i in self._template_ids.items() if i is None]
        if unknown:
            raise ValueError(f"The template's tokens must be in the vocabulary. Received: {unknown}.")
        self.template = template
        self.has_segments = template.has_segments if segments is None else segments

    def special_id(self, token):
        """The id of a special token of the template."""
        return self._template_ids[token]

    def tokenize(self, texts):
        """Strings to ids, without special tokens around them.

        Args:
            texts: str, list of str or string tensor, (batch,) or a scalar.

        Returns:
            int32 ragged tensor, (batch, length); for a scalar a tensor, (length,).
        """
        texts = tf.convert_to_tensor(texts, tf.string)
        if texts.shape.rank == 0:
            return self._tokenize_flat(texts[None]).flat_values
        if texts.shape.rank != 1:
            raise ValueError(
                f"texts must be a string or a list of strings. Received: shape={texts.shape}. "
                "Flatten them first."
            )
        return self._tokenize_flat(texts)

    def encode(self, texts, pairs=None, max_length=None, padding="longest", add_special_tokens=True):
        """Strings to what a model takes: ids with the template's special tokens, padded on the right.

        Args:
            texts: str, list of str or string tensor, (batch,) or a scalar.
            pairs: the same, a second text for each; None: there is none.
            max_length: int; longer rows are cut at their end, of two texts the longer one first; None:
                cuts nothing.
            padding: "longest": to the longest row; "max_length": to max_length.
            add_special_tokens: bool.

        Returns:
            Dict of int32 tensors, (batch, length), for a scalar (length,): `token_ids`, `padding_mask`
            and, if `has_segments`, `segment_ids`.

        Raises:
            ValueError: max_length has no room for the special tokens; there is no token to pad with.

        Example:
            >>> tokenizer.encode(["A question"], ["An answer"], max_length=128)
        """
        form = self._form(pairs, max_length, padding, add_special_tokens)
        texts = [tf.convert_to_tensor(x, tf.string) for x in (texts, *(() if pairs is None else (pairs,)))]
        scalar = texts[0].shape.rank == 0
        rows = [self.tokenize(x[None] if scalar else x) for x in texts]
        if max_length is not None:
            special = sum(token in self._template_ids for token, _ in form)
            rows = _truncate(rows, max_length - special)
        ids, segments = self._fill(form, rows)
        shape = (None, max_length if padding == "max_length" else None)
        dense = {
            "token_ids": ids.to_tensor(self.pad_id, shape=shape),
            "padding_mask": tf.ones_like(ids).to_tensor(0, shape=shape),
        }
        if self.has_segments:
            dense["segment_ids"] = ids.with_flat_values(segments).to_tensor(0, shape=shape)
        return {name: x[0] for name, x in dense.items()} if scalar else dense

    def _form(self, pairs, max_length, padding, add_special_tokens):
        """The template's items for a call of `encode`, whose arguments are checked."""
        template = self.template
        form = template.single if pairs is None else template.pair
        if not add_special_tokens:
            form = [item for item in form if item[0] not in self._template_ids]
        if padding not in ("longest", "max_length"):
            raise ValueError(f'padding must be "longest" or "max_length". Received: padding={padding!r}.')
        if padding == "max_length" and max_length is None:
            raise ValueError('padding="max_length" needs a max_length. Received: max_length=None.')
        special = sum(token in self._template_ids for token, _ in form)
        if max_length is not None and max_length < special:
            raise ValueError(
                f"max_length must have room for the template's {special} special tokens. "
                f"Received: max_length={max_length}."
            )
        if self.pad_id < 0:
            raise ValueError(
                "Rows are padded with the padding token, or else the end token. Received: a tokenizer "
                "without both. Give it a pad_token."
            )
        return form

    def _fill(self, form, rows):
        """Ids and segments of a form's items: a ragged tensor, (batch, length), and its values' segments."""
        texts = dict(zip(("$A", "$B"), rows, strict=False))
        column = tf.ones((rows[0].nrows(), 1), tf.int32)
        ids, segments = [], []
        for token, segment in form:
            ids.append(texts[token] if token in texts else column * self._template_ids[token])
            segments.append(tf.ones_like(ids[-1]) * segment)
        ids, segments = (tf.concat(parts, 1) if len(parts) > 1 else parts[0] for parts in (ids, segments))
        return ids, segments.flat_values

    def detokenize(self, token_ids, skip_special_tokens=True):
        """Ids to strings, valid UTF-8: bytes that are cut off from their character become U+FFFD.

        Args:
            token_ids: int tensor, ragged tensor or nested list, (batch, length) or (length,). Ids that
                the vocabulary lacks vanish.
            skip_special_tokens: bool, whether special tokens vanish.

        Returns:
            String tensor, (batch,) or a scalar.
        """
        ids = as_token_ids(token_ids)
        if isinstance(ids, tf.RaggedTensor):
            return self._detokenize_ragged(ids, skip_special_tokens)
        rows = tf.RaggedTensor.from_tensor(ids if ids.shape.rank == 2 else ids[None])
        texts = self._detokenize_ragged(rows, skip_special_tokens)
        return texts if ids.shape.rank == 2 else texts[0]


def known_ids(ids, size):
    """Ids with those out of range at `size`, where tables of texts have an empty one."""
    return tf.where((ids >= 0) & (ids < size), ids, size)


def as_token_ids(token_ids):
    """Int tensor, ragged tensor or nested list to an int32 tensor or ragged tensor."""
    if not isinstance(token_ids, tf.RaggedTensor):
        if isinstance(token_ids, list) and token_ids and not isinstance(token_ids[0], int):
            token_ids = tf.ragged.constant(token_ids, dtype=tf.int32, ragged_rank=1)
        else:
            token_ids = tf.convert_to_tensor(token_ids)
    return tf.cast(token_ids, tf.int32)


def _truncate(rows, room):
    """Cuts rows of one text or of two to a joint length, as the tokenizers library's "longest_first"."""
    lengths = [row.row_lengths() for row in rows]
    if len(rows) == 1:
        return [_first(rows[0], tf.minimum(lengths[0], room))]
    room = tf.constant(room, lengths[0].dtype)
    short, long = tf.minimum(*lengths), tf.maximum(*lengths)
    # The longer one gives until both are equal, and then both; of an odd room the longer gets more.
    even = room // 2
    fits = short + long <= room
    cut_both = short > even
    new_short = tf.where(fits | ~cut_both, short, even)
    new_long = tf.where(fits, long, tf.where(cut_both, even + room % 2, room - short))
    swapped = lengths[0] > lengths[1]
    return [
        _first(rows[0], tf.where(swapped, new_long, new_short)),
        _first(rows[1], tf.where(swapped, new_short, new_long)),
    ]


def _first(row, lengths):
    """The first `lengths` items of each row; no length is above its row's."""
    values, splits = take(row.flat_values, row.row_splits[:-1], lengths)
    return tf.RaggedTensor.from_row_splits(values, splits, validate=False)
