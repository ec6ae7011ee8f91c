"""Position codes. Shape letters: b batch, l length, d hidden_dim."""

import keras
import numpy as np
from keras import ops

from tfmodels.layers.masks import are_positions, cached_positions, first_given, positions_in_sequence


def sinusoidal_table(length, hidden_dim):
    """The position code of Vaswani et al. 2017, section 3.5, sine and cosine interleaved.

    Args:
        length: int, positions 0 to length - 1.
        hidden_dim: int, even or odd.

    Returns:
        float32 array, (length, hidden_dim):
        PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(pos / 10000^(2i/d)).
    """
    dimension = np.arange(hidden_dim)
    angle = np.arange(length)[:, None] / 10000 ** (2 * (dimension // 2) / hidden_dim)
    return np.where(dimension % 2 == 0, np.sin(angle), np.cos(angle)).astype("float32")


def sinusoidal_halves_table(length, hidden_dim):
    """The same code with all sines first and then all cosines, as Marian has it."""
    table = sinusoidal_table(length, hidden_dim)
    return np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)


_KINDS = ("sinusoidal", "sinusoidal_halves", "learned")


@keras.saving.register_keras_serializable("tfmodels")
class PositionalEmbedding(keras.layers.Layer):
    """Adds a position code to token embeddings (Vaswani et al. 2017, section 3.5).

    Args:
        max_sequence_length: int, the longest sequence; later positions are an error.
        kind: "sinusoidal" (fixed), "sinusoidal_halves", all sines before all cosines (fixed, but a
            weight, since checkpoints store it), or "learned".
        initializer: initializer of the learned table.
        offset: int, rows of the table before that of position 0, which stay unused.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        padding_mask: int tensor, (batch, length); given, positions start again at 0 in each packed
            sequence.
        start_index: int tensor, (batch,) or a scalar: the position of the first token; or those of
            all, (batch, length). It replaces `padding_mask`.
        mask: Keras's implicit mask, which it passes by itself; stands for a `padding_mask` that is None.

    Returns:
        Float tensor, (batch, length, hidden_dim): inputs plus the code of each token's position.

    Raises:
        ValueError: `kind` is unknown; the length of the inputs is over `max_sequence_length`.

    Example:
        >>> PositionalEmbedding(max_sequence_length=7)(keras.ops.zeros((1, 2, 4)))[0, 1].numpy()
        array([0.84147096, 0.5403023 , 0.00999983, 0.99995   ], dtype=float32)
    """

    def __init__(
        self,
        max_sequence_length,
        kind="sinusoidal",
        initializer="uniform",
        offset=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        if kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}. Received: kind={kind!r}.")
        self.max_sequence_length = max_sequence_length
        self.kind = kind
        self.initializer = keras.initializers.get(initializer)
        self.offset = offset

    def build(self, input_shape):
        shape = (self.max_sequence_length + self.offset, input_shape[-1])
        if self.kind == "learned":
            self.table = self.add_weight(shape=shape, initializer=self.initializer, name="embeddings")
        elif self.kind == "sinusoidal_halves":
            self.table = self.add_weight(
                shape=shape,
                initializer=lambda shape, dtype: sinusoidal_halves_table(*shape),
                trainable=False,
                name="embeddings",
            )
        else:
            self.table = sinusoidal_table(*shape)

    def call(self, inputs, padding_mask=None, start_index=None, mask=None):
        padding_mask = first_given(padding_mask, mask)
        length = ops.shape(inputs)[1]
        too_long = isinstance(length, int) and length > self.max_sequence_length
        if too_long and not are_positions(start_index):
            raise ValueError(
                f"The input must not be longer than max_sequence_length={self.max_sequence_length}. "
                f"Received: length={length}. Cut the input, or build the model longer."
            )
        if start_index is not None:
            positions = cached_positions(start_index, length)  # (b or 1, l)
        elif padding_mask is not None:
            positions = positions_in_sequence(padding_mask)  # (b, l)
        else:
            positions = ops.arange(length)[None]  # (1, l)
        codes = ops.take(self.table, positions + self.offset, axis=0)  # (b or 1, l, d)
        return inputs + ops.cast(codes, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return super().get_config() | {
            "max_sequence_length": self.max_sequence_length,
            "kind": self.kind,
            "initializer": keras.initializers.serialize(self.initializer),
            "offset": self.offset,
        }
