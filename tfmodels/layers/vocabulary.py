"""From hidden states to words. Shape letters: b batch, l length, d hidden_dim."""

import keras
from keras import ops

from tfmodels.layers.feed_forward import activation_function, read_activation, write_activation
from tfmodels.layers.norm import LayerNormalization
from tfmodels.layers.steps import Dense, leading


@keras.saving.register_keras_serializable("tfmodels")
class VocabularyTransform(keras.layers.Layer):
    """What BERT puts before the output words: dense, activation, layer normalisation.

    The paper leaves it out; it is in the code of Devlin et al. 2019, `get_masked_lm_output`.

    Args:
        activation: Keras's name or function, or "gelu_tanh".
        norm_epsilon: float, added to the variance in layer normalisation.
        kernel_initializer: initializer of the kernel.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).

    Returns:
        Float tensor, (batch, length, hidden_dim).

    Example:
        >>> VocabularyTransform()(keras.random.normal((2, 3, 8))).shape
        TensorShape([2, 3, 8])
    """

    def __init__(self, activation="gelu", norm_epsilon=1e-12, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.activation = read_activation(activation)
        self.norm_epsilon = norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        self.dense = Dense(
            input_shape[-1],
            activation=activation_function(self.activation),
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name="dense",
        )
        self.dense.build((None, input_shape[-1]))
        self.norm = LayerNormalization(epsilon=self.norm_epsilon, dtype=self.dtype_policy, name="norm")
        self.norm.build(input_shape)

    def call(self, inputs):
        x = self.dense(ops.reshape(inputs, (-1, inputs.shape[-1])))  # (b * l, d): see attention._project
        return self.norm(ops.reshape(x, (*leading(inputs), inputs.shape[-1])))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return super().get_config() | {
            "activation": write_activation(self.activation),
            "norm_epsilon": self.norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable("tfmodels")
class Bias(keras.layers.Layer):
    """Adds a learned vector: the part of an output layer that is not tied to the embedding.

    Call arguments:
        inputs: float tensor, (..., units).

    Returns:
        Float tensor of the same shape.

    Example:
        >>> Bias()(keras.ops.ones((2, 3))).shape
        TensorShape([2, 3])
    """

    def build(self, input_shape):
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, inputs):
        return inputs + ops.cast(self.bias, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):  # Keras makes none of a layer with a policy and no `__init__`
        return super().get_config()
