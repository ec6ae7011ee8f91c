"""Normalisation whose training step keeps little and passes over its input few times."""

import keras
from keras import ops

from tfmodels.layers._kernels import not_before


@keras.saving.register_keras_serializable("tfmodels")
class LayerNormalization(keras.layers.LayerNormalization):
    """Keras's over the last axis, with a gradient of its own while training.

    The gradient keeps the input and two numbers a row (Ba et al. 2016, section 3); derived from Keras's
    operations it keeps several tensors of the input's size in float32, and takes longer.
    """

    def call(self, inputs, training=None):
        wide = keras.backend.result_type(inputs.dtype, "float32")

        def normalise(x, gamma, beta):
            x32 = ops.cast(x, wide)
            mean = ops.mean(x32, axis=-1, keepdims=True)
            centred = x32 - mean
            scale = ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + self.epsilon)
            scaled = centred * (scale * ops.cast(gamma, wide))
            return ops.cast(scaled + ops.cast(beta, wide), self.compute_dtype), mean, scale

        if not training:
            return normalise(inputs, self.gamma, self.beta)[0]

        @ops.custom_gradient
        def normalise_with_gradient(x, gamma, beta):
            output, mean, scale = normalise(x, gamma, beta)

            def gradient(upstream):
                upstream = ops.cast(upstream, wide)
                normal = (ops.cast(not_before(upstream, x), wide) - mean) * scale
                error = upstream * ops.cast(gamma, wide)
                along = ops.mean(error * normal, axis=-1, keepdims=True)
                x_error = (error - ops.mean(error, axis=-1, keepdims=True) - normal * along) * scale
                rows = tuple(range(len(x.shape) - 1))
                gamma_error = ops.cast(ops.sum(upstream * normal, axis=rows), gamma.dtype)
                beta_error = ops.cast(ops.sum(upstream, axis=rows), beta.dtype)
                return ops.cast(x_error, x.dtype), gamma_error, beta_error

            return output, gradient

        # Copies: of a variable as it stands, eager TensorFlow would want the gradient itself.
        return normalise_with_gradient(inputs, ops.copy(self.gamma), ops.copy(self.beta))


@keras.saving.register_keras_serializable("tfmodels")
class RMSNormalization(keras.layers.RMSNormalization):
    """Keras's over the last axis (Zhang & Sennrich 2019, section 4), with such a gradient too."""

    def __init__(self, **options):
        super().__init__(**options)
        self.supports_masking = True

    def call(self, inputs, training=None):
        if not training:
            return super().call(inputs)

        @ops.custom_gradient
        def normalise(x, gamma):
            wide = keras.backend.result_type(x.dtype, "float32")
            x32, gamma32 = ops.cast(x, wide), ops.cast(gamma, wide)
            scale = ops.rsqrt(ops.mean(ops.square(x32), axis=-1, keepdims=True) + self.epsilon)

            def gradient(upstream):
                upstream = ops.cast(upstream, wide)
                normal = ops.cast(not_before(upstream, x), wide) * scale
                error = upstream * gamma32
                x_error = (error - normal * ops.mean(error * normal, axis=-1, keepdims=True)) * scale
                gamma_error = ops.sum(upstream * normal, axis=tuple(range(len(x.shape) - 1)))
                return ops.cast(x_error, x.dtype), ops.cast(gamma_error, gamma.dtype)

            return ops.cast(x32 * (scale * gamma32), x.dtype), gradient

        # Copies: of a variable as it stands, eager TensorFlow would want the gradient itself.
        return normalise(inputs, ops.copy(self.scale))
