"""What the new tokens of a text attended to.

Shape letters: r rows, n heads, j new tokens, k keys, t tokens of prompt and text.
"""

import tensorflow as tf

from tfmodels.generation.loop import prefill, repeat
from tfmodels.generation.protocol import prompt_names
from tfmodels.generation.step_model import StepModel


def attention_paid(model, inputs, prompt, lengths, token_ids, written, options):
    """The attention weights by which each new token was chosen, of one pass over the finished text.

    Args:
        model, inputs, prompt, lengths, options: as of `loop.decode`.
        token_ids: int32 tensor, (rows, most), new tokens.
        written: int32 tensor, (rows,), how many there are.

    Returns:
        Dict of "self", and "cross" for an encoder-decoder, -> a list with an entry a block: float32
        tensor, (rows, num_heads, new_length, key_length), as `GenerationResult.attention` has it.
    """
    copies = options.num_return_sequences
    cache, _, last_index = prefill(StepModel(model), inputs, prompt, lengths, options)
    cache, prompt, starts = repeat((cache, prompt, lengths), copies)
    longest = tf.maximum(tf.reduce_max(written), 1)
    text = _joined(prompt, starts, token_ids[:, :longest])
    # The first new token was chosen by the step that read the prompt's last. At the end of the cache
    # some tokens of the prompt are fed again, so that all places fit.
    index = tf.minimum(starts - 1, last_index - (longest - 1))  # (r,)
    new = tf.range(longest)[None]  # (1, j)
    with model.record_attention() as paid:
        model.decode_step(tf.gather(text, index[:, None] + new, batch_dims=1), cache, index)
    place = tf.minimum((starts - 1 - index)[:, None] + new, longest - 1)  # (r, j)
    real = tf.sequence_mask(written, longest)[:, None, :, None]
    source = tf.reduce_sum(inputs[prompt_names(model)[1]], axis=1)
    key_lengths = {"self": tf.reduce_max(starts + written) - 1, "cross": tf.reduce_max(source)}

    def chosen_by(kind, weights):
        weights = tf.gather(weights[..., : key_lengths[kind]], place, axis=2, batch_dims=1)  # (r, n, j, k)
        return tf.where(real, tf.cast(weights, tf.float32), 0.0)

    return {kind: [chosen_by(kind, weights) for weights in layers] for kind, layers in paid.items()}


def _joined(prompt, lengths, token_ids):
    """Each row's prompt with its new tokens right behind: int32 (r, t)."""
    new_tokens = tf.shape(token_ids)[1]
    place = tf.range(tf.shape(prompt)[1] + new_tokens)[None] - lengths[:, None]  # (r, t)
    new = tf.gather(token_ids, tf.clip_by_value(place, 0, new_tokens - 1), batch_dims=1)
    return tf.where(place < 0, tf.pad(prompt, ((0, 0), (0, new_tokens))), new)
