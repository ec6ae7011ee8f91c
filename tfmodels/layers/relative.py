"""Relative positions as a bias on attention scores (T5). Shape letters: n heads, q query, k key length."""

import math

import keras
import numpy as np
from keras import ops

from tfmodels.layers.masks import cached_key_positions, cached_positions


@keras.saving.register_keras_serializable("tfmodels")
class RelativePositionBias(keras.layers.Layer):
    """A learnt number a head and distance, added to the scores (Raffel et al. 2020, section 2.1).

    Once a forward pass, for all of a stack's layers: pass the result on as `position_bias=`. Half of
    the buckets hold one distance each, the rest grow logarithmically up to `max_distance`.

    Args:
        num_heads: int, attention heads.
        num_buckets: int, kinds of distance.
        max_distance: int, from which on all distances are one bucket.
        bidirectional: bool, whether keys after the query have buckets of their own (an encoder), or
            count as distance 0 (a decoder, which does not see them).
        initializer: initializer of the table.

    Call arguments:
        inputs: tensor, (batch, query_length, ...), of which only the shape counts.
        key_length: int, number of keys; None: `query_length`.
        start_index: int tensor, (batch,) or a scalar: the position of the first query; or
            those of all, (batch, query_length).

    Returns:
        Float tensor, (batch or 1, num_heads, query_length, key_length).

    Raises:
        ValueError: too few buckets, or a maximal distance that has a bucket of its own.

    Example:
        >>> RelativePositionBias(num_heads=2)(keras.ops.zeros((1, 3, 8))).shape
        TensorShape([1, 2, 3, 3])
    """

    def __init__(
        self,
        num_heads,
        num_buckets=32,
        max_distance=128,
        bidirectional=True,
        initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        exact = num_buckets // 4 if bidirectional else num_buckets // 2
        if not 1 <= exact < max_distance:
            raise ValueError(
                f"num_buckets must be at least {4 if bidirectional else 2}, and max_distance greater "
                f"than the {exact} distances that have buckets of their own. "
                f"Received: num_buckets={num_buckets}, max_distance={max_distance}."
            )
        self.num_heads = num_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape):
        buckets = self.num_buckets // 2 if self.bidirectional else self.num_buckets
        self._buckets = _buckets(buckets, self.max_distance)
        self.table = self.add_weight(
            shape=(self.num_buckets, self.num_heads), initializer=self.initializer, name="table"
        )

    def call(self, inputs, key_length=None, start_index=None):
        length = ops.shape(inputs)[1]
        positions = cached_positions(0 if start_index is None else start_index, length)  # (b or 1, q)
        keys = cached_key_positions(length if key_length is None else key_length)  # (b or 1, k)
        buckets = self._bucket(keys[:, None] - positions[:, :, None])  # (b or 1, q, k)
        bias = ops.take(self.table, buckets, axis=0)  # (b or 1, q, k, n)
        return ops.cast(ops.transpose(bias, (0, 3, 1, 2)), self.compute_dtype)

    def _bucket(self, distance):
        """The bucket of key position - query position."""
        first = 0
        if self.bidirectional:
            first = ops.where(distance > 0, self.num_buckets // 2, 0)
            distance = ops.abs(distance)
        else:
            distance = ops.maximum(-distance, 0)
        return first + ops.take(self._buckets, ops.minimum(distance, self.max_distance), axis=0)

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "num_buckets": self.num_buckets,
            "max_distance": self.max_distance,
            "bidirectional": self.bidirectional,
            "initializer": keras.initializers.serialize(self.initializer),
        }


def _buckets(count, max_distance):
    """The bucket of each distance, 0 to `max_distance`: int32 array, (max_distance + 1,)."""
    exact = count // 2
    distance = np.arange(max_distance + 1, dtype="int32")
    # Each step rounded to float32, as the published models round: it decides on which side of a
    # border a distance falls. The logarithm by float64, since NumPy's own may be a digit off.
    ratio = np.maximum(distance, exact).astype("float32") / np.float32(exact)
    logarithm = np.log(ratio.astype("float64")).astype("float32")
    step = logarithm / np.float32(math.log(max_distance / exact)) * np.float32(count - exact)
    far = np.minimum(exact + step.astype("int32"), count - 1)
    return np.where(distance < exact, distance, far).astype("int32")
