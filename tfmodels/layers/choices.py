"""Several sequences an example. Shape letters: b batch, c choices, l length."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfmodels")
class FoldChoices(keras.layers.Layer):
    """Makes each choice of an example a row of its own.

    Call arguments:
        inputs: tensor, (batch, choices, length).

    Returns:
        Tensor, (batch * choices, length), of the same dtype.

    Example:
        >>> FoldChoices()(keras.ops.ones((2, 3, 5), "int32")).shape
        TensorShape([6, 5])
    """

    def call(self, inputs):
        return ops.reshape(inputs, (-1, ops.shape(inputs)[2]))  # (b * c, l)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((None, inputs.shape[2]), dtype=inputs.dtype)

    def get_config(self):  # Keras makes none of a layer with a policy and no `__init__`
        return super().get_config()


@keras.saving.register_keras_serializable("tfmodels")
class UnfoldChoices(keras.layers.Layer):
    """Puts one score a row back beside those of the other choices: `FoldChoices` backwards.

    Call arguments:
        inputs: float tensor, (batch * choices, 1).
        like: tensor, (batch, choices, length), what was folded.

    Returns:
        Float tensor, (batch, choices).

    Example:
        >>> UnfoldChoices()(keras.ops.ones((6, 1)), like=keras.ops.ones((2, 3, 5), "int32")).shape
        TensorShape([2, 3])
    """

    def call(self, inputs, like):
        return ops.reshape(inputs, ops.shape(like)[:2])  # (b, c)

    def compute_output_spec(self, inputs, like):
        return keras.KerasTensor(like.shape[:2], dtype=inputs.dtype)

    def get_config(self):  # Keras makes none of a layer with a policy and no `__init__`
        return super().get_config()
