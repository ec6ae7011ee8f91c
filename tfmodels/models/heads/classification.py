"""Classification and regression of sequences, of their tokens, and of choices.

Shape letters: b batch, l length, d hidden_dim, n num_labels, c choices.
"""

import dataclasses

import keras
from keras import ops

from tfmodels.layers import FoldChoices, UnfoldChoices
from tfmodels.layers.dropout import Dropout
from tfmodels.models.heads.base import (
    HeadModel,
    check_head_config,
    check_targets,
    cross_entropy,
)


@dataclasses.dataclass(frozen=True)
class SequenceClassifierConfig:
    """A head that gives each sequence a label, several labels, or numbers.

    Attributes:
        num_labels: int, labels or numbers; None: as many as `labels`, or 2, or 1 for regression.
        labels: tuple of str, the labels' names; None: they have none.
        problem: "single_label", one label a sequence; "multi_label", each label or not;
            "regression", real numbers.
        pooling: "pooler", the backbone's own; "first", "last" or "mean" of the real tokens; None: the
            pooler if there is one, else "last" over a decoder and "first" over an encoder.
        hidden_activation: of one more dense layer before the labels, hidden_dim wide; None: no such
            layer.
        use_bias: bool, of the labels' layer.
        dropout: float, before the labels' layer.
        input_dropout: float, before the hidden layer.
    """

    num_labels: int | None = None
    labels: tuple | None = None
    problem: str = "single_label"
    pooling: str | None = None
    hidden_activation: str | None = None
    use_bias: bool = True
    dropout: float = 0.1
    input_dropout: float = 0.0

    def __post_init__(self):
        check_head_config(self, problem=("single_label", "multi_label", "regression"))
        if self.problem == "single_label" and self.num_labels < 2:
            raise ValueError(
                'problem="single_label" needs at least two labels. Received: '
                f'num_labels={self.num_labels}. Pass problem="regression" for one number.'
            )


class _PooledHead(HeadModel):
    """A vector a row, an optional hidden layer, and a dense layer of outputs."""

    def make_layers(self, dtype):
        config = self.config
        self.pooling = self.make_pooling(dtype)
        self.hidden_dense = None
        if config.hidden_activation:
            self.input_dropout = Dropout(config.input_dropout, dtype=dtype, name="input_dropout")
            self.hidden_dense = self.dense(
                self.backbone.config.hidden_dim, dtype, "hidden_dense", activation=config.hidden_activation
            )
        self.output_dropout = Dropout(config.dropout, dtype=dtype, name="output_dropout")

    def score(self, inputs, training=None):
        """Logits of the rows: (b, units of the output layer)."""
        x = self.pool(self.backbone.final_hidden(inputs, training=training), inputs)  # (b, d)
        if self.hidden_dense:
            x = self.hidden_dense(self.input_dropout(x, training=training))
        return self.output_dense(self.output_dropout(x, training=training))


@keras.saving.register_keras_serializable("tfmodels")
class SequenceClassifier(_PooledHead):
    """A backbone that classifies whole sequences, or gives them numbers.

    Args:
        backbone: a model such as a `Bert` or a `GPT2`.
        config: a `SequenceClassifierConfig`.
        **kwargs: `dtype`, `name`, `trainable` of the Keras model.

    Call arguments:
        inputs: what the backbone takes.

    Returns:
        Logits or numbers, (batch, num_labels).

    Targets:
        "single_label": int, (batch,); "multi_label": 0 or 1, (batch, num_labels); "regression":
        float, (batch, num_labels), or (batch,) for one number. The losses are cross-entropy, binary
        cross-entropy and the squared error, each a mean over all targets.

    Raises:
        ValueError: the config asks for what the backbone does not have.

    Example:
        >>> model = SequenceClassifier(bert("tiny"), SequenceClassifierConfig(num_labels=3))
        >>> model.compile("adamw")
        >>> model({"token_ids": [[5, 2, 9]]}).shape
        TensorShape([1, 3])
    """

    config_class = SequenceClassifierConfig
    answers = "labels"

    def make_layers(self, dtype):
        super().make_layers(dtype)
        config = self.config
        self.output_dense = self.dense(config.num_labels, dtype, "output_dense", use_bias=config.use_bias)

    def forward(self, inputs, training=None):
        return self.score(inputs, training=training)

    @property
    def task_metrics(self):
        name = "mean_absolute_error" if self.config.problem == "regression" else "accuracy"
        return {name: keras.metrics.Mean}

    def task_loss(self, x, y, sample_weight, training):
        logits = ops.cast(self(x, training=training), "float32")  # (b, n)
        if self.config.problem == "single_label":
            check_targets(y, logits, "int, (batch,)")
            loss, metric = cross_entropy(logits, y, sample_weight)
        else:
            shape, labels = tuple(y.shape), self.config.num_labels
            if shape[1:] not in [(labels,), ()][: 2 if labels == 1 else 1]:
                raise ValueError(f"The targets must be (batch, {labels}). Received: shape {shape}.")
            y = ops.reshape(ops.cast(y, "float32"), ops.shape(logits))
            sample_weight = ops.reshape(sample_weight, ops.shape(logits))
            if self.config.problem == "regression":
                each, metric = ops.square(logits - y), ops.abs(logits - y)
            else:
                each = ops.binary_crossentropy(y, logits, from_logits=True)
                metric = ops.cast((logits > 0) == (y > 0.5), "float32")
            loss, metric = ops.sum(each * sample_weight), ops.sum(metric * sample_weight)
        weight = ops.sum(sample_weight)
        return {"loss": (loss, weight), next(iter(self.task_metrics)): (metric, weight)}


@dataclasses.dataclass(frozen=True)
class MultipleChoiceModelConfig:
    """A head that chooses one of several sequences.

    Attributes:
        pooling: "pooler", "first", "last", "mean" or None, as in `SequenceClassifierConfig`.
        hidden_activation: of a hidden layer, or None, as in `SequenceClassifierConfig`.
        dropout: float, before the score's layer.
        input_dropout: float, before the hidden layer.
    """

    pooling: str | None = None
    hidden_activation: str | None = None
    dropout: float = 0.1
    input_dropout: float = 0.0

    def __post_init__(self):
        check_head_config(self)


@keras.saving.register_keras_serializable("tfmodels")
class MultipleChoiceModel(_PooledHead):
    """A backbone that scores several sequences an example, such as a question with each answer.

    Args:
        backbone: a model such as a `Bert` or a `GPT2`.
        config: a `MultipleChoiceModelConfig`.
        **kwargs: `dtype`, `name`, `trainable` of the Keras model.

    Call arguments:
        inputs: what the backbone takes, each (batch, choices, length).

    Returns:
        Logits, (batch, choices).

    Targets:
        int, (batch,), the right choice; the loss is cross-entropy over the choices.

    Raises:
        ValueError: the config asks for what the backbone does not have.

    Example:
        >>> model = MultipleChoiceModel(bert("tiny"))
        >>> model({"token_ids": [[[5, 2, 9], [5, 2, 7]]]}).shape
        TensorShape([1, 2])
    """

    config_class = MultipleChoiceModelConfig
    answers = "choice"

    def make_layers(self, dtype):
        super().make_layers(dtype)
        self.fold = FoldChoices(dtype=dtype, name="fold")
        self.unfold = UnfoldChoices(dtype=dtype, name="unfold")
        self.output_dense = self.dense(1, dtype, "output_dense")

    def make_input(self, name):
        return keras.Input((None, None), dtype="int32", name=name)

    def forward(self, inputs, training=None):
        rows = {name: self.fold(value) for name, value in inputs.items()}  # (b * c, l)
        scores = self.score(rows, training=training)  # (b * c, 1)
        return self.unfold(scores, like=inputs[self.mask_name])

    def final_hidden(self, x, training=None):
        """The backbone's last hidden states, (batch * choices, length, hidden_dim)."""
        rows = {name: self.fold(value) for name, value in self.complete_inputs(x).items()}
        return self.backbone.final_hidden(rows, training=training)

    task_metrics = {"accuracy": keras.metrics.Mean}

    def task_loss(self, x, y, sample_weight, training):
        logits = self(x, training=training)  # (b, c)
        check_targets(y, logits, "int, (batch,)")
        loss, correct = cross_entropy(logits, y, sample_weight)
        weight = ops.sum(sample_weight)
        return {"loss": (loss, weight), "accuracy": (correct, weight)}


@dataclasses.dataclass(frozen=True)
class TokenClassifierConfig:
    """A head that gives each token a label.

    Attributes:
        num_labels: int; None: as many as `labels`, or 2.
        labels: tuple of str, the labels' names; None: they have none.
        dropout: float, before the labels' layer.
    """

    num_labels: int | None = None
    labels: tuple | None = None
    dropout: float = 0.1

    def __post_init__(self):
        check_head_config(self)


@keras.saving.register_keras_serializable("tfmodels")
class TokenClassifier(HeadModel):
    """A backbone that classifies each token, as named-entity recognition does.

    Args:
        backbone: a model such as a `Bert` or a `GPT2`.
        config: a `TokenClassifierConfig`.
        **kwargs: `dtype`, `name`, `trainable` of the Keras model.

    Call arguments:
        inputs: what the backbone takes.

    Returns:
        Logits, (batch, length, num_labels).

    Targets:
        int, (batch, length), with a `sample_weight` of 0 where nothing is scored; the loss is
        cross-entropy, the mean over the scored tokens.

    Example:
        >>> model = TokenClassifier(bert("tiny"), TokenClassifierConfig(labels=("O", "B", "I")))
        >>> model({"token_ids": [[5, 2, 9]]}).shape
        TensorShape([1, 3, 3])
    """

    config_class = TokenClassifierConfig
    answers = "entities"
    task_metrics = {"accuracy": keras.metrics.Mean}

    def make_layers(self, dtype):
        self.output_dropout = Dropout(self.config.dropout, dtype=dtype, name="output_dropout")
        self.output_dense = self.dense(self.config.num_labels, dtype, "output_dense")

    def forward(self, inputs, training=None):
        hidden = self.backbone.final_hidden(inputs, training=training)  # (b, l, d)
        return self.output_dense(self.output_dropout(hidden, training=training))  # (b, l, n)

    def task_loss(self, x, y, sample_weight, training):
        logits = self(x, training=training)
        check_targets(y, logits, "int, (batch, length)")
        loss, correct = cross_entropy(logits, y, sample_weight)
        weight = ops.sum(sample_weight)
        return {"loss": (loss, weight), "accuracy": (correct, weight)}
