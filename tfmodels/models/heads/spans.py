"""Extractive question answering: where in the text the answer stands.

Shape letters: b batch, l length, d hidden_dim.
"""

import dataclasses

import keras
from keras import ops

from tfmodels.layers.dropout import Dropout
from tfmodels.models.heads.base import (
    HeadModel,
    check_head_config,
    check_target_names,
    check_targets,
    cross_entropy,
)

_TARGETS = ("start_logits", "end_logits")
_FAR_BELOW = -1e30  # its exp is 0 beside any logit, and float32 holds it


@dataclasses.dataclass(frozen=True)
class QuestionAnsweringModelConfig:
    """A head that finds the first and the last token of an answer.

    Attributes:
        dropout: float, before the output layer; BERT has none (Devlin et al. 2019, section 4.2).
    """

    dropout: float = 0.0

    def __post_init__(self):
        check_head_config(self)


@keras.saving.register_keras_serializable("tfmodels")
class QuestionAnsweringModel(HeadModel):
    """A backbone that scores each token as the first and as the last of the answer.

    Args:
        backbone: a model such as a `Bert` or a `GPT2`.
        config: a `QuestionAnsweringModelConfig`.
        **kwargs: `dtype`, `name`, `trainable` of the Keras model.

    Call arguments:
        inputs: what the backbone takes.

    Returns:
        Dict of `start_logits` and `end_logits`, (batch, length).

    Targets:
        Dict of `start_logits` and `end_logits`, int, (batch,): the places of the answer's first and
        last token. The loss is the mean of both cross-entropies over the real tokens of a row; a
        place that is no real token of its row, such as an answer that was cut off, is not scored.

    Example:
        >>> model = QuestionAnsweringModel(bert("tiny"))
        >>> model({"token_ids": [[5, 2, 9]]})["start_logits"].shape
        TensorShape([1, 3])
    """

    config_class = QuestionAnsweringModelConfig
    answers = "spans"
    task_losses = {"start_loss": 0.5, "end_loss": 0.5}
    task_metrics = {"exact_match": keras.metrics.Mean}

    def make_layers(self, dtype):
        self.output_dropout = Dropout(self.config.dropout, dtype=dtype, name="output_dropout")
        self.output_dense = self.dense(2, dtype, "output_dense")

    def forward(self, inputs, training=None):
        hidden = self.backbone.final_hidden(inputs, training=training)  # (b, l, d)
        logits = self.output_dense(self.output_dropout(hidden, training=training))  # (b, l, 2)
        return {"start_logits": logits[:, :, 0], "end_logits": logits[:, :, 1]}

    def loss_weights(self, x, y, sample_weight):
        check_target_names(y, _TARGETS)
        real = self.complete_inputs(x)[self.mask_name] != 0  # (b, l)
        return {
            name.replace("logits", "loss"): ops.sum(sample_weight[name] * _inside(real, y[name]))
            for name in _TARGETS
        }

    def task_loss(self, x, y, sample_weight, training):
        check_target_names(y, _TARGETS)
        inputs = self.complete_inputs(x)
        logits = self(inputs, training=training)
        real = inputs[self.mask_name] != 0  # (b, l)
        sums, matches, weights = {}, 1.0, []
        for name in _TARGETS:
            check_targets(y[name], logits[name], "int, (batch,)")
            place = ops.cast(y[name], "int32")
            weight = sample_weight[name] * _inside(real, place)
            scores = ops.where(real, ops.cast(logits[name], "float32"), _FAR_BELOW)
            loss, _ = cross_entropy(scores, place, weight)
            sums[name.replace("logits", "loss")] = (loss, ops.sum(weight))
            best = ops.cast(ops.argmax(scores, axis=-1), "int32")
            matches = matches * ops.cast(best == place, "float32")
            weights.append(weight)
        scored = ops.minimum(*weights)
        return sums | {"exact_match": (ops.sum(matches * scored), ops.sum(scored))}


def _inside(real, place):
    """1.0 for a place that is a real token of its row, (b,)."""
    index = ops.arange(ops.shape(real)[1], dtype="int32")[None]  # (1, l)
    place = ops.cast(place, "int32")[:, None]
    return ops.cast(ops.any(ops.logical_and(real, index == place), axis=1), "float32")
