"""What the task heads share: a backbone's layers and the head's own in one functional model.

Shape letters: b batch, l length, d hidden_dim, n num_labels.
"""

import collections
import dataclasses

import keras
from keras import ops

from tfmodels.layers import FirstToken, LastToken, MeanToken
from tfmodels.layers.steps import Dense
from tfmodels.models.base import TransformerModel, check_fields, token_input
from tfmodels.models.readers import OneTextModel

_POOLINGS = {"first": FirstToken, "last": LastToken, "mean": MeanToken}


class HeadModel(TransformerModel):
    """Base of the task heads.

    A subclass says in `answers` what kind of answer an export of it gives; None: none.

    A subclass makes its own layers in `make_layers` and its forward pass in `forward`; both serve the
    graph that `__init__` makes. The backbone's variables are shared, not copied.

    Args:
        backbone: a model with `final_hidden`, such as a `Bert` or a `GPT2`.
        config: an instance of the subclass's `config_class`; None: its defaults.
        dtype: Keras dtype policy of the head; None: the backbone's. A head that is made from its own
            config gives the backbone its policy.
        **kwargs: `name`, `trainable` of the Keras model; without a config its fields too.
    """

    answers = None

    def __init__(self, backbone, config=None, dtype=None, **kwargs):
        self.backbone = backbone
        if config is None:
            names = {field.name for field in dataclasses.fields(self.config_class)} & kwargs.keys()
            config = self.config_class(**{name: kwargs.pop(name) for name in names})
        self.config = self.complete_config(config)
        dtype = keras.dtype_policies.get(dtype or backbone.dtype_policy)
        self.make_layers(dtype)
        inputs = {name: self.make_input(name) for name in backbone.input}
        super().__init__(inputs=inputs, outputs=self.forward(inputs), **kwargs)
        self.dtype_policy = dtype  # a functional model does not take it as an argument

    def complete_config(self, config):
        """Puts what suits the backbone where the config leaves a field open."""
        if getattr(config, "pooling", "") is None:
            reads_forward = hasattr(self.backbone, "init_cache") or isinstance(self.backbone, OneTextModel)
            pooling = "last" if reads_forward else "first"
            config = dataclasses.replace(config, pooling="pooler" if self._has_pooler() else pooling)
        if getattr(config, "pooling", "") == "pooler" and not self._has_pooler():
            raise ValueError(
                'pooling="pooler" needs a backbone that has a pooler. Received: '
                f'{type(self.backbone).__name__} without one. Use pooling="first", "last" or "mean".'
            )
        return config

    def _has_pooler(self):
        return getattr(self.backbone.config, "pooler", False)

    def make_layers(self, dtype):
        """Makes the head's own layers."""

    def make_input(self, name):
        """The symbolic input of a name: (batch, length)."""
        return token_input(name)

    def forward(self, inputs, training=None):
        """The one forward pass, from complete inputs to the model's outputs."""
        raise NotImplementedError

    def dense(self, units, dtype, name, **options):
        """A dense layer that starts as the backbone's kernels do."""
        stddev = getattr(self.backbone.config, "initializer_range", 0.02)  # BERT's, section A.2
        initializer = keras.initializers.TruncatedNormal(stddev=stddev)
        return Dense(units, kernel_initializer=initializer, dtype=dtype, name=name, **options)

    def make_pooling(self, dtype):
        """The layer of `config.pooling`; None where the backbone's own pooler is used."""
        if self.config.pooling == "pooler":
            return None
        return _POOLINGS[self.config.pooling](dtype=dtype, name="pooling")

    def pool(self, hidden, inputs):
        """One vector a row, (b, d), of hidden states (b, l, d)."""
        padding_mask = inputs[self.mask_name]
        if self.pooling is None:
            return self.backbone.pool(hidden, padding_mask)
        return self.pooling(hidden, padding_mask=padding_mask)

    @property
    def input_pairs(self):
        return self.backbone.input_pairs

    @property
    def mask_name(self):
        """The mask of the ids whose hidden states the backbone returns: its last pair's."""
        return list(self.input_pairs.values())[-1][0]

    def complete_inputs(self, inputs):
        return self.backbone.complete_inputs(inputs)

    def final_hidden(self, x, training=None):
        """The backbone's last hidden states, (batch, length, hidden_dim)."""
        return self.backbone.final_hidden(x, training=training)

    def get_config(self):
        backbone_class = keras.saving.get_registered_name(type(self.backbone))
        return super().get_config() | {
            "backbone": {"class_name": backbone_class, "config": self.backbone.get_config()},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        backbone = config["backbone"]
        backbone_class = keras.saving.get_registered_object(backbone["class_name"], custom_objects)
        config["backbone"] = backbone_class.from_config({**backbone["config"], "dtype": config["dtype"]})
        return super().from_config(config, custom_objects)


def check_head_config(config, **choices):
    """Checks a head config: numbers and rates, labels, and fields that have a few values."""
    names = {field.name for field in dataclasses.fields(config)}
    if "labels" in names:
        _complete_labels(config)
    check_fields(config)
    if "pooling" in names:
        choices["pooling"] = (None, "pooler", *_POOLINGS)
    for name, allowed in choices.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(
                f"{type(config).__name__}.{name} must be one of {', '.join(map(repr, allowed))}. "
                f"Received: {value!r}."
            )


def _complete_labels(config):
    """`labels` as a tuple, and as many as `num_labels` says; either may be left open."""
    name, labels = type(config).__name__, config.labels
    if labels is not None:
        labels = tuple(labels)
        if not labels or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"{name}.labels must be strings. Received: {config.labels!r}.")
        label, count = collections.Counter(labels).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{name}.labels must have each name once. Received: {label!r} {count} times.")
        object.__setattr__(config, "labels", labels)
        if config.num_labels not in (None, len(labels)):
            raise ValueError(
                f"{name}.num_labels must be the number of labels. "
                f"Received: num_labels={config.num_labels}, labels={list(labels)}."
            )
    if config.num_labels is None:
        default = 1 if getattr(config, "problem", "") == "regression" else 2
        object.__setattr__(config, "num_labels", len(labels) if labels else default)
    elif not isinstance(config.num_labels, int) or config.num_labels < 1:
        raise ValueError(
            f"{name}.num_labels must be a whole number of at least 1. Received: {config.num_labels!r}."
        )


def cross_entropy(logits, labels, weights):
    """Sums over targets times their weights.

    Args:
        logits: float tensor, (..., n).
        labels: int tensor, (...); any value where the weight is 0.
        weights: float32 tensor, (...).

    Returns:
        A tuple of float32 scalars: the cross-entropy and the correct labels.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.where(weights != 0, ops.cast(labels, "int32"), 0)
    loss = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    correct = ops.cast(ops.cast(ops.argmax(logits, axis=-1), "int32") == labels, "float32")
    return ops.sum(loss * weights), ops.sum(correct * weights)


def check_targets(y, logits, what):
    """Raises ValueError for targets whose rank is not `what` asks: the one of logits without labels."""
    if len(y.shape) != len(logits.shape) - 1:
        raise ValueError(f"The targets must be {what}. Received: shape {tuple(y.shape)}.")


def check_target_names(y, names):
    """Raises ValueError unless the targets are a dict with the outputs' names."""
    received = sorted(y) if isinstance(y, dict) else type(y).__name__
    if received != sorted(names):
        raise ValueError(f"The targets must be a dict of {', '.join(names)}. Received: {received}.")
