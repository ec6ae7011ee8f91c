"""BERT's two tasks of pre-training (Devlin et al. 2019, section 3.1), over any backbone.

Shape letters: b batch, l length, d hidden_dim, v vocabulary_size.
"""

import dataclasses

import keras
from keras import ops

from tfmodels.layers import Bias, VocabularyTransform
from tfmodels.models.heads.base import (
    HeadModel,
    check_head_config,
    check_target_names,
    check_targets,
    cross_entropy,
)


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModelConfig:
    """A head that says which word stands at each place.

    Attributes:
        activation: of the layer before the words; None: the backbone's.
        tie_embeddings: bool, whether the words out are the words in; False: a matrix of their own.
        label_smoothing: float, of the built-in loss.
    """

    activation: str | None = None
    tie_embeddings: bool = True
    label_smoothing: float = 0.0

    def __post_init__(self):
        check_head_config(self)


@keras.saving.register_keras_serializable("tfmodels")
class MaskedLanguageModel(HeadModel):
    """A backbone that says which word stands at each place, hidden ones above all.

    Args:
        backbone: a model with a `token_embedding`, such as a `Bert`.
        config: a `MaskedLanguageModelConfig`.
        **kwargs: `dtype`, `name`, `trainable` of the Keras model.

    Call arguments:
        inputs: what the backbone takes.

    Returns:
        Logits, (batch, length, vocabulary_size).

    Targets:
        int, (batch, length), the words, with a `sample_weight` of 1 at the places that were hidden
        and 0 elsewhere; the loss is cross-entropy, computed without the whole logits.

    Example:
        >>> model = MaskedLanguageModel(bert("tiny"))
        >>> model({"token_ids": [[5, 2, 9]]}).shape
        TensorShape([1, 3, 4000])
    """

    config_class = MaskedLanguageModelConfig
    answers = "words"

    def complete_config(self, config):
        if config.activation is None:
            # A decoder's config may not have one; BERT's is gelu.
            activation = getattr(self.backbone.config, "activation", "gelu")
            config = dataclasses.replace(config, activation=activation)
        return config

    def make_layers(self, dtype):
        backbone = self.backbone.config
        stddev = getattr(backbone, "initializer_range", 0.02)
        self.transform = VocabularyTransform(
            self.config.activation,
            backbone.norm_epsilon,
            keras.initializers.TruncatedNormal(stddev=stddev),
            dtype=dtype,
            name="transform",
        )
        self.output_dense = self.bias = None
        if self.config.tie_embeddings:
            self.bias = Bias(dtype=dtype, name="output_bias")
        else:
            self.output_dense = self.dense(self.backbone.config.vocabulary_size, dtype, "output_dense")

    def forward(self, inputs, training=None):
        return self.word_logits(self.transform(self.backbone.final_hidden(inputs, training=training)))

    def word_logits(self, hidden):
        """Logits (b, l, v) of the transformed hidden states."""
        if self.config.tie_embeddings:
            return self.bias(self.backbone.token_embedding(hidden, reverse=True))
        return self.output_dense(hidden)

    def output_kernel(self):
        return (self.output_dense or self.backbone.token_embedding).output_kernel()  # (v, d)

    def output_bias(self):
        return self.bias.bias if self.config.tie_embeddings else self.output_dense.bias

    def task_loss(self, x, y, sample_weight, training):
        return self.word_loss(self.backbone.final_hidden(x, training=training), y, sample_weight, training)

    def word_loss(self, hidden, y, sample_weight, training):
        """Loss, accuracy and perplexity of the words, given the backbone's hidden states."""
        check_targets(y, hidden, "int, (batch, length)")
        sums = self.vocabulary_sums(self.transform(hidden), y, sample_weight, training)
        tokens = ops.sum(sample_weight)
        return {
            name: (total, tokens)
            for name, total in zip(("loss", "perplexity", "accuracy"), sums, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class NextSentencePredictorConfig:
    """A head that says whether one text follows the other.

    Attributes:
        pooling: "pooler", "first", "last", "mean" or None, as in `SequenceClassifierConfig`.
    """

    pooling: str | None = None

    def __post_init__(self):
        check_head_config(self)


@keras.saving.register_keras_serializable("tfmodels")
class NextSentencePredictor(HeadModel):
    """A backbone that says whether the second of two texts follows the first.

    Args:
        backbone: a model such as a `Bert`.
        config: a `NextSentencePredictorConfig`.
        **kwargs: `dtype`, `name`, `trainable` of the Keras model.

    Call arguments:
        inputs: what the backbone takes; `segment_ids` tell the texts apart.

    Returns:
        Logits, (batch, 2).

    Targets:
        int, (batch,): 0 = the second text follows the first, 1 = it does not.

    Example:
        >>> model = NextSentencePredictor(bert("tiny"))
        >>> model({"token_ids": [[5, 2, 9]], "segment_ids": [[0, 0, 1]]}).shape
        TensorShape([1, 2])
    """

    config_class = NextSentencePredictorConfig
    answers = "follows"
    task_metrics = {"accuracy": keras.metrics.Mean}

    def make_layers(self, dtype):
        self.pooling = self.make_pooling(dtype)
        self.next_dense = self.dense(2, dtype, "next_dense")

    def forward(self, inputs, training=None):
        return self.next_dense(self.pool(self.backbone.final_hidden(inputs, training=training), inputs))

    def task_loss(self, x, y, sample_weight, training):
        logits = self(x, training=training)
        check_targets(y, logits, "int, (batch,)")
        loss, correct = cross_entropy(logits, y, sample_weight)
        weight = ops.sum(sample_weight)
        return {"loss": (loss, weight), "accuracy": (correct, weight)}


@dataclasses.dataclass(frozen=True)
class PreTrainingModelConfig(MaskedLanguageModelConfig):
    """Both heads of BERT's pre-training.

    Attributes:
        activation: of the layer before the words; None: the backbone's.
        tie_embeddings: bool, whether the words out are the words in; False: a matrix of their own.
        label_smoothing: float, of the built-in loss of the words.
        pooling: "pooler", "first", "last", "mean" or None, as in `SequenceClassifierConfig`.
    """

    pooling: str | None = None


@keras.saving.register_keras_serializable("tfmodels")
class PreTrainingModel(MaskedLanguageModel):
    """A backbone with both heads of BERT's pre-training: the hidden words and the next sentence.

    Args:
        backbone: a model with a `token_embedding`, such as a `Bert`.
        config: a `PreTrainingModelConfig`.
        **kwargs: `dtype`, `name`, `trainable` of the Keras model.

    Call arguments:
        inputs: what the backbone takes; `segment_ids` tell the texts apart.

    Returns:
        Dict of `token_logits`, (batch, length, vocabulary_size), and `next_sentence_logits`,
        (batch, 2).

    Targets:
        Dict of `token_logits`, int, (batch, length), and `next_sentence_logits`, int, (batch,). A
        `sample_weight` is a dict of the same names; a `tf.data` pipeline may leave one out, or give
        one weight an example. The loss is the sum of both means.

    Example:
        >>> model = PreTrainingModel(bert("tiny"))
        >>> model({"token_ids": [[5, 2, 9]]})["next_sentence_logits"].shape
        TensorShape([1, 2])
    """

    config_class = PreTrainingModelConfig
    answers = "words_and_follows"
    task_losses = {"token_loss": 1.0, "next_sentence_loss": 1.0}
    task_metrics = {
        "token_accuracy": keras.metrics.Mean,
        "token_perplexity": MaskedLanguageModel.task_metrics["perplexity"],
        "next_sentence_accuracy": keras.metrics.Mean,
    }

    def complete_config(self, config):
        return HeadModel.complete_config(self, super().complete_config(config))

    def make_layers(self, dtype):
        super().make_layers(dtype)
        self.pooling = self.make_pooling(dtype)
        self.next_dense = self.dense(2, dtype, "next_dense")

    def forward(self, inputs, training=None):
        hidden = self.backbone.final_hidden(inputs, training=training)  # (b, l, d)
        return {
            "token_logits": self.word_logits(self.transform(hidden)),
            "next_sentence_logits": self.next_dense(self.pool(hidden, inputs)),
        }

    def loss_weights(self, x, y, sample_weight):
        check_target_names(y, ("token_logits", "next_sentence_logits"))
        names = {name: name.replace("loss", "logits") for name in self.task_losses}
        return {name: ops.sum(sample_weight[target]) for name, target in names.items()}

    def task_loss(self, x, y, sample_weight, training):
        check_target_names(y, ("token_logits", "next_sentence_logits"))
        inputs = self.complete_inputs(x)
        hidden = self.backbone.final_hidden(inputs, training=training)
        words = self.word_loss(hidden, y["token_logits"], sample_weight["token_logits"], training)
        sums = {f"token_{name}": value for name, value in words.items()}
        logits = self.next_dense(self.pool(hidden, inputs))
        check_targets(y["next_sentence_logits"], logits, "int, (batch,)")
        weights = sample_weight["next_sentence_logits"]
        loss, correct = cross_entropy(logits, y["next_sentence_logits"], weights)
        weight = ops.sum(weights)
        return sums | {"next_sentence_loss": (loss, weight), "next_sentence_accuracy": (correct, weight)}
