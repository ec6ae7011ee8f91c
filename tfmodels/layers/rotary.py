"""Rotary positions (Su et al. 2021). Shape letters: b batch, n heads, l length, h head_dim."""

import keras
import numpy as np
from keras import ops

from tfmodels.layers.masks import cached_positions, positions_in_sequence


@keras.saving.register_keras_serializable("tfmodels")
class RotaryEmbedding(keras.layers.Layer):
    """Cosines and sines by which attention turns queries and keys (Su et al. 2021, section 3.4.2).

    Once a forward pass, for all of a model's layers: pass the result on as `rotary=`.

    Args:
        head_dim: int, even, size of a head.
        base: float, of the wave lengths: pair i turns by position / base ** (2i / head_dim).

    Call arguments:
        inputs: tensor, (batch, length, ...), of which only the shape counts.
        padding_mask: int tensor, (batch, length); given, positions start again at 0 in each packed
            sequence.
        start_index: int tensor, (batch,) or a scalar: the position of the first token. It replaces
            `padding_mask`.

    Returns:
        A tuple of cosines and sines, float32 tensors, (batch or 1, length, head_dim / 2).

    Raises:
        ValueError: `head_dim` is odd.

    Example:
        >>> cosines, sines = RotaryEmbedding(head_dim=8)(keras.ops.zeros((1, 3, 16)))
        >>> cosines.shape
        TensorShape([1, 3, 4])
    """

    def __init__(self, head_dim, base=10000.0, **kwargs):
        super().__init__(**kwargs)
        if head_dim % 2:
            raise ValueError(f"head_dim must be even. Received: head_dim={head_dim}.")
        self.head_dim = head_dim
        self.base = base
        self._frequencies = (base ** -(np.arange(0, head_dim, 2) / head_dim)).astype("float32")

    def call(self, inputs, padding_mask=None, start_index=None):
        length = ops.shape(inputs)[1]
        if start_index is not None:
            positions = cached_positions(start_index, length)  # (b or 1, l)
        elif padding_mask is not None:
            positions = positions_in_sequence(padding_mask)  # (b, l)
        else:
            positions = ops.arange(length)[None]  # (1, l)
        # In float32: bfloat16 cannot tell position 257 from 258.
        angles = ops.cast(positions, "float32")[:, :, None] * self._frequencies  # (b or 1, l, h / 2)
        return ops.cos(angles), ops.sin(angles)

    def get_config(self):
        return super().get_config() | {"head_dim": self.head_dim, "base": self.base}


def rotate(x, rotary):
    """Turns x (b, n, l, h) by cosines and sines (b or 1, l, h / 2).

    The pairs are (i, i + h / 2), as Llama's checkpoints have them, not the paper's (2i, 2i + 1): the
    same attention with the channels of queries and keys in another order.
    """
    cosines, sines = (ops.cast(part, x.dtype)[:, None] for part in rotary)  # (b or 1, 1, l, h / 2)
    first, second = ops.split(x, 2, axis=-1)
    turned = (first * cosines - second * sines, second * cosines + first * sines)
    return ops.concatenate(turned, axis=-1)
