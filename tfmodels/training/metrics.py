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


class WeightedSum(keras.metrics.Metric):
    """The sum of other metrics' results times factors; it keeps nothing of its own.

    Args:
        parts: list of (Keras metric, float) pairs.
        name: str.
    """

    def __init__(self, parts, name):
        super().__init__(name=name)
        # Out of sight of Keras, which would report the parts' variables as its own.
        self._read = lambda: sum(factor * metric.result() for metric, factor in parts)

    def update_state(self, *args, **kwargs):
        pass

    def result(self):
        return self._read()
