"""One vector of a sequence. Shape letters: b batch, l length, d hidden_dim."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfmodels")
class FirstToken(keras.layers.Layer):
    """The first real token of each row, which BERT sums a sequence up in (Devlin et al. 2019, section 3).

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).
        padding_mask: int tensor, (batch, length), 0 = padding.

    Returns:
        Float tensor, (batch, hidden_dim).

    Example:
        >>> FirstToken()(keras.ops.ones((1, 3, 2)), padding_mask=[[0, 1, 1]]).shape
        TensorShape([1, 2])
    """

    def call(self, inputs, padding_mask):
        real = ops.cast(ops.convert_to_tensor(padding_mask) != 0, "int32")
        first = ops.argmax(real, axis=1)[:, None, None]  # (b, 1, 1), the first of the largest
        return ops.take_along_axis(inputs, first, axis=1)[:, 0]  # (b, d)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])
