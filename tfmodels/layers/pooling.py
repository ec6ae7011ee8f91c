"""One vector of a sequence. Shape letters: b batch, l length, d hidden_dim."""

import keras
from keras import ops

from tfmodels.layers.masks import as_numbers, first_given


class PoolingBase(keras.layers.Layer):
    """Has `_pool` of inputs (b, l, d) and which tokens are real, int (b, l)."""

    def call(self, inputs, padding_mask=None, mask=None):
        padding_mask = as_numbers(first_given(padding_mask, mask))
        if padding_mask is None:
            padding_mask = ops.ones(ops.shape(inputs)[:2], dtype="int32")
        return self._pool(inputs, ops.cast(padding_mask != 0, "int32"))

    def compute_mask(self, inputs, previous_mask):
        """None: one vector a row has no padding."""

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):  # Keras makes none of a layer with a policy and no `__init__`
        return super().get_config()


@keras.saving.register_keras_serializable("tfmodels")
class FirstToken(PoolingBase):
    """The first real token of each row, which BERT sums a sequence up in (Devlin et al. 2019, section 3).

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        padding_mask: int tensor, (batch, length), 0 = padding; None: every token is real.
        mask: Keras's implicit mask, which it passes by itself; stands for a `padding_mask` that is None.

    Returns:
        Float tensor, (batch, hidden_dim).

    Example:
        >>> FirstToken()(keras.ops.ones((1, 3, 2)), padding_mask=[[0, 1, 1]]).shape
        TensorShape([1, 2])
    """

    def _pool(self, inputs, real):
        first = ops.argmax(real, axis=1)[:, None, None]  # (b, 1, 1), the first of the largest
        return ops.take_along_axis(inputs, first, axis=1)[:, 0]  # (b, d)


@keras.saving.register_keras_serializable("tfmodels")
class LastToken(PoolingBase):
    """The last real token of each row: the one that has read all others in a decoder.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        padding_mask: int tensor, (batch, length), 0 = padding; None: every token is real.
        mask: Keras's implicit mask, which it passes by itself; stands for a `padding_mask` that is None.

    Returns:
        Float tensor, (batch, hidden_dim).

    Example:
        >>> LastToken()(keras.ops.ones((1, 3, 2)), padding_mask=[[1, 1, 0]]).shape
        TensorShape([1, 2])
    """

    def _pool(self, inputs, real):
        index = ops.arange(ops.shape(real)[1], dtype="int32")
        last = ops.max(real * index, axis=1)[:, None, None]  # (b, 1, 1)
        return ops.take_along_axis(inputs, last, axis=1)[:, 0]  # (b, d)


@keras.saving.register_keras_serializable("tfmodels")
class MeanToken(PoolingBase):
    """The mean of the real tokens of each row (Reimers & Gurevych 2019, section 3).

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        padding_mask: int tensor, (batch, length), 0 = padding; None: every token is real.
        mask: Keras's implicit mask, which it passes by itself; stands for a `padding_mask` that is None.

    Returns:
        Float tensor, (batch, hidden_dim).

    Example:
        >>> MeanToken()(keras.ops.ones((1, 3, 2)), padding_mask=[[1, 1, 0]]).shape
        TensorShape([1, 2])
    """

    def _pool(self, inputs, real):
        # Sums in float32: bfloat16 drifts over hundreds of tokens.
        real = ops.cast(real, "float32")[:, :, None]  # (b, l, 1)
        total = ops.sum(ops.cast(inputs, "float32") * real, axis=1)  # (b, d)
        count = ops.maximum(ops.sum(real, axis=1), 1.0)  # (b, 1); a row of padding alone is 0
        return ops.cast(total / count, self.compute_dtype)
