"""Sentence embeddings (Reimers & Gurevych 2019). Shape letters: b batch, l length, d hidden_dim."""

import dataclasses

import keras
from keras import ops

from tfmodels.models.heads.base import HeadModel, check_head_config, check_targets


@dataclasses.dataclass(frozen=True)
class SentenceEmbedderConfig:
    """A head that makes one vector of a sequence.

    Attributes:
        pooling: "mean", "first" or "last" of the real tokens, or "pooler", the backbone's own.
        normalize: bool, whether vectors have length 1.
        temperature: float, that cosines are divided by in the built-in loss.
    """

    pooling: str = "mean"
    normalize: bool = True
    temperature: float = 0.05  # Gao et al. 2021, section 3.1

    def __post_init__(self):
        check_head_config(self)
        if self.pooling is None or self.temperature == 0:
            raise ValueError(
                "SentenceEmbedderConfig needs a pooling and a temperature above 0. "
                f"Received: pooling={self.pooling!r}, temperature={self.temperature}."
            )


@keras.saving.register_keras_serializable("tfmodels")
class SentenceEmbedder(HeadModel):
    """A backbone that makes one vector of a sequence: near vectors mean near meanings.

    Args:
        backbone: a model such as a `Bert` or a `GPT2`.
        config: a `SentenceEmbedderConfig`.
        **kwargs: `dtype`, `name`, `trainable` of the Keras model.

    Call arguments:
        inputs: what the backbone takes.

    Returns:
        Vectors, (batch, hidden_dim).

    Targets:
        int, (batch,): sentences of one number belong together, such as a question and its answer.
        The loss is the supervised contrastive one (Khosla et al. 2020, equation 2) over the batch's
        cosines: each sentence has to find its like among all others. A sentence that is alone with
        its number is not scored. Under a strategy each replica looks at its own part of the batch.

    Raises:
        ValueError: the config asks for what the backbone does not have.

    Example:
        >>> model = SentenceEmbedder(bert("tiny"))
        >>> model({"token_ids": [[5, 2, 9]]}).shape
        TensorShape([1, 128])
    """

    config_class = SentenceEmbedderConfig
    answers = "vectors"
    task_metrics = {"accuracy": keras.metrics.Mean}
    batch_is_one = True

    def make_layers(self, dtype):
        self.pooling = self.make_pooling(dtype)
        self.unit = None
        if self.config.normalize:
            self.unit = keras.layers.UnitNormalization(dtype=dtype, name="unit")

    def forward(self, inputs, training=None):
        x = self.pool(self.backbone.final_hidden(inputs, training=training), inputs)  # (b, d)
        return self.unit(x) if self.unit else x

    def loss_weights(self, x, y, sample_weight):
        _, alike = _who_is_alike(y)
        return {"loss": ops.sum(sample_weight * ops.cast(ops.any(alike, axis=1), "float32"))}

    def task_loss(self, x, y, sample_weight, training):
        vectors = ops.normalize(ops.cast(self(x, training=training), "float32"), axis=-1)  # (b, d)
        check_targets(y, vectors, "int, (batch,)")
        itself, alike = _who_is_alike(y)
        cosines = ops.matmul(vectors, ops.transpose(vectors)) / self.config.temperature
        scores = ops.where(itself, -1e30, cosines)  # exp of it is 0
        alike = ops.cast(alike, "float32")  # (b, b)
        count = ops.sum(alike, axis=1)  # (b,)
        nll = -ops.sum(alike * ops.where(itself, 0.0, ops.log_softmax(scores)), axis=1)
        nearest = ops.argmax(scores, axis=1)[:, None]
        correct = ops.take_along_axis(alike, nearest, axis=1)[:, 0]
        weights = sample_weight * ops.cast(count > 0, "float32")
        weight = ops.sum(weights)
        loss = ops.sum(nll / ops.maximum(count, 1.0) * weights)
        return {"loss": (loss, weight), "accuracy": (ops.sum(correct * weights), weight)}


def _who_is_alike(y):
    """Two boolean tensors (b, b): each sentence itself, and the others of its number."""
    itself = ops.eye(ops.shape(y)[0]) > 0
    return itself, ops.logical_and(y[:, None] == y[None, :], ops.logical_not(itself))
