"""What all tokenizers share."""

import tensorflow as tf


class Tokenizer(tf.Module):
    """Text to ids and back in graph ops, so that it works inside tf.data and in a SavedModel."""

    def tokenize(self, texts):
        """Strings to ids, without start or end.

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

    def detokenize(self, token_ids, skip_special_tokens=True):
        """Ids to strings, valid UTF-8: bytes that are cut off from their character become U+FFFD.

        Args:
            token_ids: int tensor, ragged tensor or nested list, (batch, length) or (length,).
            skip_special_tokens: bool, whether special tokens vanish. Without, the result is the text
                that was tokenized, byte by byte if it was valid UTF-8.

        Returns:
            String tensor, (batch,) or a scalar.
        """
        return self._detokenize_ragged(as_token_ids(token_ids), skip_special_tokens)


def as_token_ids(token_ids):
    """Int tensor, ragged tensor or nested list to an int32 tensor or ragged tensor."""
    if not isinstance(token_ids, tf.RaggedTensor):
        if isinstance(token_ids, list) and token_ids and not isinstance(token_ids[0], int):
            token_ids = tf.ragged.constant(token_ids, dtype=tf.int32)
        else:
            token_ids = tf.convert_to_tensor(token_ids)
    return tf.cast(token_ids, tf.int32)
