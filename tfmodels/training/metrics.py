"""Metrics of the built-in task loss."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfmodels")
class Perplexity(keras.metrics.Mean):
    """exp of the mean negative log-likelihood a token.

    `update_state(nll, sample_weight=tokens)` takes means in nats and the tokens they stand for.
    """

    def __init__(self, name="perplexity", dtype=None):
        super().__init__(name=name, dtype=dtype)

    def result(self):
        return ops.exp(super().result())
