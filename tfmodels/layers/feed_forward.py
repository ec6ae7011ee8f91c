"""The position-wise feed-forward network. Shape letters: b batch, l length, d hidden_dim."""

import functools
import math

import keras
from keras import ops

from tfmodels.layers._kernels import compiled
from tfmodels.layers.dropout import Dropout
from tfmodels.layers.steps import Dense, leading, side_by_side


def gelu_tanh(x):
    """GELU by its tanh approximation (Hendrycks & Gimpel 2016, section 2), as GPT-2 has it.

    With (1 + tanh(y)) / 2 = sigmoid(2 y) it takes six operations instead of Keras's nine, and rounds less.
    """
    slope = 2 * math.sqrt(2 / math.pi)
    return x * ops.sigmoid(x * (ops.square(x) * (slope * 0.044715) + slope))


# Names that Keras does not know: its "gelu" is the exact form.
ACTIVATIONS = {"gelu_tanh": gelu_tanh}
# Those of many operations: training compiles them to one pass in either direction, and what is left runs in
# float32, since each operation of TensorFlow's in bfloat16 takes several times as long.
_COMPILED = (gelu_tanh, keras.activations.gelu, keras.activations.silu)
_IN_FLOAT32 = (gelu_tanh, keras.activations.gelu)


def read_activation(activation):
    """As layers keep it: a name, or a function or layer, which a config holds as a dict."""
    return activation if isinstance(activation, str) else keras.activations.get(activation)


def write_activation(activation):
    """As a config holds it."""
    return activation if isinstance(activation, str) else keras.activations.serialize(activation)


def activation_function(activation):
    """The function of what `read_activation` returned."""
    return keras.activations.get(ACTIVATIONS.get(activation, activation))


@functools.cache
def _gate(activation):
    """The activation of the first argument times the second: one function object for each activation."""
    return lambda gate, x: activation(gate) * x


@keras.saving.register_keras_serializable("tfmodels")
class FeedForward(keras.layers.Layer):
    """`activation(x W1 + b1) W2 + b2` (Vaswani et al. 2017, section 3.3).

    Gated, it is `(activation(x V) * x W1) W2` (Shazeer 2020, section 2, with its biases).

    Args:
        intermediate_dim: int, the inner width.
        activation: Keras's name or function, or "gelu_tanh", GELU as GPT-2 has it.
        gated: bool, whether a second projection of the input gates the first.
        dropout: float, on the inner vector.
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
        gated=False,
        dropout=0.0,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.intermediate_dim = intermediate_dim
        self.activation = read_activation(activation)
        activation_function(self.activation)  # an unknown name is told before any work
        self.gated = gated
        self.dropout = dropout
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer or kernel_initializer)

    def build(self, input_shape):
        hidden_dim = input_shape[-1]

        def dense(name, in_dim, units, initializer):
            layer = Dense(
                units,
                use_bias=self.use_bias,
                kernel_initializer=initializer.clone(),
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build((None, in_dim))
            return layer

        inner = (hidden_dim, self.intermediate_dim, self.kernel_initializer)
        if self.gated:
            self.gate_dense = dense("gate", *inner)
        self.intermediate_dense = dense("intermediate", *inner)
        self.inner_dropout = Dropout(self.dropout, dtype=self.dtype_policy, name="dropout")
        self.output_dense = dense("output", self.intermediate_dim, hidden_dim, self.output_initializer)

    def call(self, inputs, training=None):
        x = ops.reshape(inputs, (-1, inputs.shape[-1]))  # (b * l, d): see attention._project
        layers = [self.gate_dense, self.intermediate_dense] if self.gated else [self.intermediate_dense]
        inner = self._activate(*side_by_side(x, *layers), training=training)
        x = self.output_dense(self.inner_dropout(inner, training=training))
        return ops.reshape(x, (*leading(inputs), inputs.shape[-1]))

    def _activate(self, *inner, training):
        """The activation of one tensor, or of the first of two times the second."""
        activation = activation_function(self.activation)
        function = _gate(activation) if self.gated else activation
        if training and activation in _COMPILED:
            return compiled(function)(*inner)
        if activation in _IN_FLOAT32 and inner[0].dtype in ("bfloat16", "float16"):
            return ops.cast(function(*[ops.cast(x, "float32") for x in inner]), inner[0].dtype)
        return function(*inner)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return super().get_config() | {
            "intermediate_dim": self.intermediate_dim,
            "activation": write_activation(self.activation),
            "gated": self.gated,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }
