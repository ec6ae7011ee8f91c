"""The position-wise feed-forward network. Shape letters: b batch, l length, d hidden_dim."""

import keras
from keras import ops


def gelu_tanh(x):
    """GELU by its tanh approximation (Hendrycks & Gimpel 2016, section 2), as GPT-2 has it."""
    return ops.gelu(x, approximate=True)


# Names that Keras does not know: its "gelu" is the exact form.
_ACTIVATIONS = {"gelu_tanh": gelu_tanh}


@keras.saving.register_keras_serializable("tfmodels")
class FeedForward(keras.layers.Layer):
    """`activation(x W1 + b1) W2 + b2` (Vaswani et al. 2017, section 3.3).

    Args:
        intermediate_dim: int, the inner width.
        activation: Keras's name or function, or "gelu_tanh", GELU as GPT-2 has it.
        use_bias: bool.
        kernel_initializer: initializer of the first kernel.
        output_initializer: initializer of the second kernel; None: `kernel_initializer`.

    Call arguments:
        inputs: float tensor, (batch, length, hidden_dim).

    Returns:
        Float tensor, (batch, length, hidden_dim).

    Example:
        >>> FeedForward(intermediate_dim=16)(keras.random.normal((3, 5, 8))).shape
        TensorShape([3, 5, 8])
    """

    def __init__(
        self,
        intermediate_dim,
        activation="relu",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.activation = activation
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer or kernel_initializer)

    def build(self, input_shape):
        hidden_dim = input_shape[-1]
        self.intermediate_dense = keras.layers.Dense(
            self.intermediate_dim,
            use_bias=self.use_bias,
            activation=_ACTIVATIONS.get(self.activation, self.activation),
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name="intermediate",
        )
        self.intermediate_dense.build((None, hidden_dim))
        self.output_dense = keras.layers.Dense(
            hidden_dim,
            use_bias=self.use_bias,
            kernel_initializer=self.output_initializer.clone(),
            dtype=self.dtype_policy,
            name="output",
        )
        self.output_dense.build((None, self.intermediate_dim))

    def call(self, inputs):
        batch, length, hidden_dim = ops.shape(inputs)
        x = ops.reshape(inputs, (-1, hidden_dim))  # (b * l, d): see attention._split_heads
        x = self.output_dense(self.intermediate_dense(x))
        return ops.reshape(x, (batch, length, hidden_dim))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return super().get_config() | {
            "intermediate_dim": self.intermediate_dim,
            "activation": self.activation
            if isinstance(self.activation, str)
            else keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }
