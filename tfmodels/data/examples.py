"""Text to examples: (x, y, sample_weight), one example an element, not yet batched."""

import tensorflow as tf

# Texts that one tokenizer call takes: enough to make its overhead vanish.
_TEXTS_A_CALL = 1024


def sequence_to_sequence(pairs, tokenizer, target_tokenizer=None, max_length=128):
    """Pairs of texts to examples for an encoder-decoder.

    Args:
        pairs: list of (source, target) strings, or a tf.data.Dataset of such.
        tokenizer: has `tokenize`, `start_id` and `end_id`.
        target_tokenizer: for the target; None: `tokenizer`.
        max_length: int; pairs with more tokens on either side, end included, are left out.

    Returns:
        tf.data.Dataset of (x, y, sample_weight): x a dict of `encoder_token_ids` and
        `encoder_padding_mask`, int32 (source_length,), `decoder_token_ids` and
        `decoder_padding_mask`, int32 (target_length,); y int32 (target_length,); sample_weight
        float32 (target_length,).

    Raises:
        ValueError: there are no pairs, or an element is not a pair of texts.
    """
    target_tokenizer = target_tokenizer or tokenizer
    if not isinstance(pairs, tf.data.Dataset):
        pairs = list(pairs)
        if not pairs:
            raise ValueError("There must be at least one pair of texts. Received: none.")
        for i, pair in enumerate(pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(f"Each example must be a (source, target) pair. Number {i}: {pair!r}.")
        pairs = tf.data.Dataset.from_tensor_slices(tuple(map(list, zip(*pairs, strict=True))))

    def tokenize(source, target):
        return tokenizer.tokenize(source), target_tokenizer.tokenize(target)

    def short_enough(source, target):
        return tf.maximum(tf.size(source), tf.size(target)) < max_length

    def example(source, target):
        encoder_ids = tf.concat([source, [tokenizer.end_id]], 0)
        decoder_ids = tf.concat([[target_tokenizer.start_id], target], 0)
        x = {
            "encoder_token_ids": encoder_ids,
            "encoder_padding_mask": tf.ones_like(encoder_ids),
            "decoder_token_ids": decoder_ids,
            "decoder_padding_mask": tf.ones_like(decoder_ids),
        }
        y = tf.concat([target, [target_tokenizer.end_id]], 0)
        return x, y, tf.ones_like(y, tf.float32)

    return (
        pairs.batch(_TEXTS_A_CALL)
        .map(tokenize, num_parallel_calls=tf.data.AUTOTUNE)
        .unbatch()
        .filter(short_enough)
        .map(example)
    )


def causal_language_modelling(texts, tokenizer, length, stride=None):
    """Running text to rows of `length` tokens for a decoder: each token predicts the next.

    The texts are joined, each ended by the end token, and cut into rows. The last row is padded.

    Args:
        texts: list of str, in their order.
        tokenizer: has `tokenize`, `end_id` and `pad_id`.
        length: int, tokens a row.
        stride: int, where the next row begins; None: `length`. With a smaller stride rows overlap,
            and tokens that the row before has scored get weight 0 and serve as context: each token
            of the text is scored exactly once.

    Returns:
        tf.data.Dataset of (x, y, sample_weight): x a dict of `token_ids` and `padding_mask`, int32
        (length,); y int32 (length,), the next tokens; sample_weight float32 (length,).

    Raises:
        ValueError: there is no text; stride is not between 1 and length.
    """
    stride = length if stride is None else stride
    if not 1 <= stride <= length:
        raise ValueError(f"stride must be from 1 to length={length}. Received: stride={stride}.")
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError("There must be at least one text. Received: none.")
    parts = []
    for begin in range(0, len(texts), _TEXTS_A_CALL):
        ids = tokenizer.tokenize(texts[begin : begin + _TEXTS_A_CALL])
        ends = tf.fill((ids.nrows(), 1), tokenizer.end_id)
        parts.append(tf.concat([ids, ends], axis=1).flat_values)
    # An end first: the beginning of the text is predicted like that of any other.
    stream = tf.concat([[tokenizer.end_id], *parts], 0)
    count = tf.size(stream) - 1  # targets
    # The first row scores all its tokens, each later one its last `stride`.
    rows = 1 + tf.maximum(0, -(-(count - length) // stride))

    def row(i):
        begin = tf.cast(i, tf.int32) * stride
        window = stream[begin : begin + length + 1]
        targets = tf.size(window) - 1
        padding = [[0, length - targets]]
        scored = (tf.range(length) < targets) & ((i == 0) | (tf.range(length) >= length - stride))
        x = {
            "token_ids": tf.ensure_shape(
                tf.pad(window[:-1], padding, constant_values=tokenizer.pad_id), (length,)
            ),
            "padding_mask": tf.ensure_shape(tf.pad(tf.ones_like(window[:-1]), padding), (length,)),
        }
        y = tf.ensure_shape(tf.pad(window[1:], padding, constant_values=tokenizer.pad_id), (length,))
        return x, y, tf.cast(scored, tf.float32)

    return tf.data.Dataset.range(tf.cast(rows, tf.int64)).map(row)
