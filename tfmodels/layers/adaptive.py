"""Adaptive embedding and softmax: frequent words get long vectors, rare ones short vectors.

Grave et al. 2017, "Efficient softmax approximation for GPUs"; Baevski & Auli 2019, section 3.

Shape letters: r rows (tokens), d hidden_dim, e a cluster's vector size, v a cluster's words.
"""

import keras
from keras import ops


def check_clusters(vocabulary_size, embedding_dim, cutoffs, divisor):
    """Raises ValueError where cutoffs divide no vocabulary, or vectors would vanish."""
    bounds = (0, *cutoffs, vocabulary_size)
    if any(a >= b for a, b in zip(bounds, bounds[1:], strict=False)):
        raise ValueError(
            "cutoffs must rise between 0 and vocabulary_size. "
            f"Received: cutoffs={tuple(cutoffs)}, vocabulary_size={vocabulary_size}."
        )
    if embedding_dim // divisor ** len(cutoffs) < 1:
        raise ValueError(
            "embedding_dim must be at least divisor ** len(cutoffs). Received: "
            f"embedding_dim={embedding_dim}, divisor={divisor}, cutoffs={tuple(cutoffs)}."
        )


@keras.saving.register_keras_serializable("tfmodels")
class AdaptiveEmbedding(keras.layers.Layer):
    """Words to vectors, and with `reverse=True` hidden states to log-probabilities of words.

    Words are numbered by frequency, and `cutoffs` divides them into clusters. The softmax is one over
    the first cluster's words and the other clusters, and one inside each other cluster; the
    log-probabilities are exact. Without cutoffs it is the plain embedding and softmax.

    Args:
        vocabulary_size: int, words.
        hidden_dim: int, size of what goes in and out.
        cutoffs: tuple of int, rising, the first word of each cluster but the first.
        embedding_dim: int, size of the first cluster's vectors; None: `hidden_dim`.
        divisor: int, by which each cluster's vectors are shorter than those of the one before; 1:
            all words share one table.
        tie_embeddings: bool, whether the output has the input's tables.
        tie_projections: bool, whether the output has the input's projections to `hidden_dim`, but
            for the first cluster's, as in Dai et al. 2019.
        initializer: initializer of tables; projections start at half of its spread.

    Call arguments:
        inputs: int tensor, (batch, length); with reverse, float tensor, (batch, length, hidden_dim).
        reverse: bool.

    Returns:
        Float tensor, (batch, length, hidden_dim), vectors times sqrt(hidden_dim); with reverse,
        log-probabilities, (batch, length, vocabulary_size).

    Example:
        >>> layer = AdaptiveEmbedding(vocabulary_size=9, hidden_dim=8, cutoffs=(4,), divisor=2)
        >>> layer(layer(keras.ops.array([[1, 7]])), reverse=True).shape
        TensorShape([1, 2, 9])
    """

    def __init__(
        self,
        vocabulary_size,
        hidden_dim,
        cutoffs=(),
        embedding_dim=None,
        divisor=1,
        tie_embeddings=True,
        tie_projections=True,
        initializer="uniform",
        projection_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_clusters(vocabulary_size, embedding_dim or hidden_dim, cutoffs, divisor)
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.cutoffs = tuple(cutoffs)
        self.embedding_dim = embedding_dim
        self.divisor = divisor
        self.tie_embeddings = tie_embeddings
        self.tie_projections = tie_projections
        self.initializer = keras.initializers.get(initializer)
        self.projection_initializer = keras.initializers.get(projection_initializer)
        self._bounds = (0, *self.cutoffs, vocabulary_size)

    def build(self, input_shape):
        size, clusters = self.embedding_dim or self.hidden_dim, len(self.cutoffs) + 1
        shared = self.divisor == 1
        if shared:
            tables, projections = [(self.vocabulary_size, size)], [size] * (size != self.hidden_dim)
        else:
            sizes = [size // self.divisor**i for i in range(clusters)]
            words = [b - a for a, b in zip(self._bounds, self._bounds[1:], strict=False)]
            tables, projections = list(zip(words, sizes, strict=True)), sizes

        def weights(name, shapes, initializer):
            return [
                self.add_weight(shape=shape, initializer=initializer.clone(), name=f"{name}_{i}")
                for i, shape in enumerate(shapes)
            ]

        def projection(name, sizes):
            return weights(name, [(self.hidden_dim, e) for e in sizes], self.projection_initializer)

        zeros = keras.initializers.Zeros()
        self.tables = weights("table", tables, self.initializer)
        self.projections = projection("projection", projections)
        self.output_tables = self.tables
        if not self.tie_embeddings:
            self.output_tables = weights("output_table", tables, self.initializer)
        self.output_biases = weights("output_bias", [(v,) for v, _ in tables], zeros)
        # One of the output's own a cluster, or for the first alone; none where there is none to do.
        sizes = projections * clusters if shared else projections
        own = sizes[:1] if self.tie_projections else sizes
        self.output_projections = projection("output_projection", own)
        if clusters > 1:
            shape = (clusters - 1, size)
            self.cluster_kernel = self.add_weight(
                shape=shape, initializer=self.initializer.clone(), name="cluster_kernel"
            )
            self.cluster_bias = self.add_weight(shape=shape[:1], initializer=zeros, name="cluster_bias")

    def call(self, inputs, reverse=False):
        return self._log_probabilities(inputs) if reverse else self._embed(inputs)

    def _embed(self, token_ids):
        batch, length = ops.shape(token_ids)
        ids = ops.reshape(token_ids, (-1,))  # (r)
        if self.divisor == 1:
            x = self._project(ops.take(self.tables[0], ids, axis=0), self.projections[:1])
        else:
            # Each cluster in turn on all tokens: dense shapes, and short vectors are cheap.
            x = 0
            for i, table in enumerate(self.tables):
                local, inside = self.local_labels(i, ids)
                vectors = self._project(ops.take(table, local, axis=0), self.projections[i : i + 1])
                x = x + ops.where(inside[:, None], vectors, ops.zeros_like(vectors))
        x = ops.reshape(x, (batch, length, self.hidden_dim))
        # Vaswani et al. 2017, section 3.4.
        return ops.cast(x * self.hidden_dim**0.5, self.compute_dtype)

    @staticmethod
    def _project(vectors, projections):
        """(r, e) to (r, d), where there is a projection."""
        return ops.matmul(vectors, ops.transpose(projections[0])) if projections else vectors

    def _log_probabilities(self, hidden):
        batch, length, hidden_dim = ops.shape(hidden)
        rows = ops.reshape(hidden, (-1, hidden_dim))
        parts = []
        for i in range(len(self.cutoffs) + 1):
            x, kernel, bias = self.output_part(i, rows)
            logits = ops.cast(ops.matmul(x, ops.transpose(kernel)) + bias, "float32")
            log_probabilities = ops.log_softmax(logits, axis=-1)
            if i == 0:
                first = self._bounds[1]
                head, parts = log_probabilities, [log_probabilities[:, :first]]
            else:
                column = first + i - 1
                parts.append(head[:, column : column + 1] + log_probabilities)
        x = ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        return ops.cast(ops.reshape(x, (batch, length, self.vocabulary_size)), self.compute_dtype)

    def output_part(self, i, rows):
        """What the i-th cluster's softmax is made of.

        Args:
            i: int; the first cluster's softmax is over its words and then the other clusters.
            rows: float tensor, (rows, hidden_dim), final hidden states.

        Returns:
            Tuple of the rows' projection, (rows, e), kernel, (words, e), and bias, (words,).
        """
        shared = self.divisor == 1
        table, bias = self.output_tables[0 if shared else i], self.output_biases[0 if shared else i]
        if shared and self.cutoffs:
            table, bias = (x[self._bounds[i] : self._bounds[i + 1]] for x in (table, bias))
        if i == 0 and self.cutoffs:
            table = ops.concatenate([table, self.cluster_kernel], axis=0)
            bias = ops.concatenate([bias, self.cluster_bias], axis=0)
        if self.output_projections:
            if i == 0 or not self.tie_projections:
                projection = self.output_projections[i]
            else:
                projection = self.projections[0 if shared else i]
            rows = ops.matmul(rows, ops.cast(projection, rows.dtype))  # (r, e)
        return rows, ops.cast(table, rows.dtype), ops.cast(bias, rows.dtype)

    def local_labels(self, i, token_ids):
        """Token ids inside the i-th cluster, any id for others, and which are inside: each (r,)."""
        low, high = self._bounds[i], self._bounds[i + 1]
        inside = ops.logical_and(token_ids >= low, token_ids < high)
        return ops.clip(token_ids - low, 0, high - low - 1), inside

    def get_config(self):
        return super().get_config() | {
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
            "cutoffs": self.cutoffs,
            "embedding_dim": self.embedding_dim,
            "divisor": self.divisor,
            "tie_embeddings": self.tie_embeddings,
            "tie_projections": self.tie_projections,
            "initializer": keras.initializers.serialize(self.initializer),
            "projection_initializer": keras.initializers.serialize(self.projection_initializer),
        }
