"""Rotary positions (Su et al. 2021). Shape letters: b batch, n heads, l length, h head_dim."""

import keras
import numpy as np
from keras import ops

from tfmodels.layers.masks import cached_positions, first_given, positions_in_sequence


@keras.saving.register_keras_serializable("tfmodels")
class RotaryEmbedding(keras.layers.Layer):
    """Cosines and sines by which attention turns queries and keys (Su et al. 2021, section 3.4.2).

    Once a forward pass, for all of a model's layers: pass the result on as `rotary=`.

    Args:
        head_dim: int, even, size of a head.
        base: float, of the wave lengths: pair i turns by position / base ** (2i / head_dim).
        factor: float of at least 1, by which turns are slowed, for texts that are longer than those of
            the training (position interpolation, Chen et al. 2023, section 2.3).
        low_factor, high_factor: float; a wave that is longer than `original_length / low_factor` is
            slowed, a shorter one than `original_length / high_factor` is not, and between them the
            rate goes over linearly (as Llama 3.1 does); None: all are slowed.
        original_length: int, the longest text of the training, in tokens; needed by the two.

    Call arguments:
        inputs: tensor, (batch, length, ...), of which only the shape counts.
        padding_mask: int tensor, (batch, length); given, positions start again at 0 in each packed
            sequence.
        start_index: int tensor, (batch,) or a scalar: the position of the first token; or those of
            all, (batch, length). It replaces `padding_mask`.
        mask: Keras's implicit mask, which it passes by itself; stands for a `padding_mask` that is None.

    Returns:
        A tuple of cosines and sines, float32 tensors, (batch or 1, length, head_dim / 2).

    Raises:
        ValueError: `head_dim` is odd; `factor` is below 1; `low_factor`, `high_factor` and
            `original_length` are not all there, or not in order.

    Example:
        >>> cosines, sines = RotaryEmbedding(head_dim=8)(keras.ops.zeros((1, 3, 16)))
        >>> cosines.shape
        TensorShape([1, 3, 4])
    """

    def __init__(
        self,
        head_dim,
        base=10000.0,
        factor=1.0,
        low_factor=None,
        high_factor=None,
        original_length=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if head_dim % 2:
            raise ValueError(f"head_dim must be even. Received: head_dim={head_dim}.")
        check_scaling(factor, low_factor, high_factor, original_length)
        self.head_dim = head_dim
        self.base = base
        self.factor = factor
        self.low_factor = low_factor
        self.high_factor = high_factor
        self.original_length = original_length
        self._frequencies = self._make_frequencies().astype("float32")

    def _make_frequencies(self):
        """Radians a position of each pair, (head_dim / 2,)."""
        frequencies = self.base ** -(np.arange(0, self.head_dim, 2) / self.head_dim)
        slowed = frequencies / self.factor
        if self.low_factor is None:
            return slowed
        waves = self.original_length * frequencies / (2 * np.pi)  # in the longest text of the training
        share = (waves - self.low_factor) / (self.high_factor - self.low_factor)
        share = np.clip(share, 0, 1)  # 1 = as it was
        return share * frequencies + (1 - share) * slowed

    def call(self, inputs, padding_mask=None, start_index=None, mask=None):
        padding_mask = first_given(padding_mask, mask)
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

    def compute_mask(self, inputs, previous_mask):
        """None: cosines and sines have no padding."""

    def get_config(self):
        return super().get_config() | {
            "head_dim": self.head_dim,
            "base": self.base,
            "factor": self.factor,
            "low_factor": self.low_factor,
            "high_factor": self.high_factor,
            "original_length": self.original_length,
        }


def check_scaling(factor, low_factor, high_factor, original_length):
    """Raises ValueError for options of `RotaryEmbedding` that contradict each other."""
    received = (
        f"Received: factor={factor}, low_factor={low_factor}, high_factor={high_factor}, "
        f"original_length={original_length}."
    )
    if factor < 1:
        raise ValueError(f"factor must be at least 1. {received}")
    given = [value is not None for value in (low_factor, high_factor, original_length)]
    if any(given) and not (all(given) and 0 < low_factor < high_factor and original_length >= 1):
        raise ValueError(
            "low_factor, high_factor and original_length go together, with 0 < low_factor < high_factor. "
            f"{received}"
        )


def rotate(x, rotary):
    """Turns x (b, n, l, h) by cosines and sines (b or 1, l, h / 2).

    The pairs are (i, i + h / 2), as Llama's checkpoints have them, not the paper's (2i, 2i + 1): the
    same attention with the channels of queries and keys in another order.
    """
    cosines, sines = (ops.cast(part, x.dtype)[:, None] for part in rotary)  # (b or 1, 1, l, h / 2)
    first, second = ops.split(x, 2, axis=-1)
    turned = (first * cosines - second * sines, second * cosines + first * sines)
    return ops.concatenate(turned, axis=-1)
