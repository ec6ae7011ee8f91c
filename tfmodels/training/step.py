"""The training step: one loss, the mean over the real target tokens of the global batch."""

import keras
import tensorflow as tf

from tfmodels.training.losses import vocabulary_loss
from tfmodels.training.metrics import Perplexity


class TaskModel(keras.Model):
    """Base class of all models: `compile(optimizer)` alone trains on the model's own task loss.

    A subclass says how targets are scored, in `task_loss`. An explicit `loss=` behaves as Keras
    documents.
    """

    def compile(self, optimizer="adamw", loss=None, *, jit_compile="auto", **kwargs):
        """Configures training, as `keras.Model.compile`.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: None: the model's own task loss; otherwise as Keras documents.
            jit_compile: "auto" compiles with XLA on a GPU and not on a CPU, where its matrix
                products are slower than the plain ops'.
            **kwargs: as Keras documents.
        """
        self._task_metrics = _TaskMetrics() if loss is None else None
        if jit_compile == "auto" and not tf.config.list_physical_devices("GPU"):
            jit_compile = False
        super().compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile, **kwargs)

    def compile_from_config(self, config):
        """Compiles a loaded model as it was compiled when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def task_loss(self, x, y, sample_weight, training):
        """Scores targets: sums over tokens times their weights.

        Args:
            x: dict of the model's inputs.
            y: int tensor, (batch, length), the target ids.
            sample_weight: float32 tensor, (batch, length).
            training: bool.

        Returns:
            A tuple of float32 scalars: loss, negative log-likelihood in nats, correct tokens.
        """
        raise NotImplementedError

    @property
    def metrics(self):
        task = getattr(self, "_task_metrics", None)
        if task is None:
            return super().metrics
        return [*task.all, *super().metrics[1:]]  # Keras's first is its own loss tracker

    def train_step(self, data):
        if self._task_metrics is None:
            return super().train_step(data)
        x, y, weights = _unpack(data)
        tokens = tf.reduce_sum(weights)
        # Gradients are summed over replicas, so each replica divides by the global count.
        global_tokens = tf.maximum(_sum_over_replicas(tokens), 1e-9)
        with tf.GradientTape() as tape:
            sums = self.task_loss(x, y, weights, training=True)
            loss = self.optimizer.scale_loss(sums[0] / global_tokens)
        variables = self.trainable_weights
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._update(sums, tokens)

    def test_step(self, data):
        if self._task_metrics is None:
            return super().test_step(data)
        x, y, weights = _unpack(data)
        return self._update(self.task_loss(x, y, weights, training=False), tf.reduce_sum(weights))

    def _update(self, sums, tokens):
        self._task_metrics.update(sums, tokens)
        return self.get_metrics_result()


class VocabularyModel(TaskModel):
    """A model whose targets are words: adds the blockwise loss over the vocabulary.

    A subclass has `final_hidden(x, training)`, (batch, length, hidden_dim), `output_kernel()`,
    (vocabulary, hidden_dim), perhaps `output_bias()`, (vocabulary,), and `config.label_smoothing`.
    """

    def output_bias(self):
        """What is added to the logits, (vocabulary,), or None."""
        return None

    def task_loss(self, x, y, sample_weight, training):
        hidden = self.final_hidden(x, training=training)
        hidden = tf.reshape(hidden, (-1, hidden.shape[-1]))
        bias = self.output_bias()
        return vocabulary_loss(
            hidden,
            tf.cast(tf.convert_to_tensor(self.output_kernel()), hidden.dtype),
            tf.reshape(y, (-1,)),
            tf.reshape(sample_weight, (-1,)),
            bias=None if bias is None else tf.convert_to_tensor(bias),
            label_smoothing=self.config.label_smoothing if training else 0.0,
            differentiable=training,
        )


class _TaskMetrics:
    """Loss, accuracy and perplexity a token. No Keras object, so that checkpoints hold no metrics."""

    def __init__(self):
        self.loss = keras.metrics.Mean(name="loss")
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.perplexity = Perplexity()
        self.all = [self.loss, self.accuracy, self.perplexity]

    def update(self, sums, tokens):
        loss, nll, correct = (tf.math.divide_no_nan(total, tokens) for total in sums)
        self.loss.update_state(loss, sample_weight=tokens)
        self.perplexity.update_state(nll, sample_weight=tokens)
        self.accuracy.update_state(correct, sample_weight=tokens)


def _unpack(data):
    """(x, y, float32 weights of y's shape)."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    if y is None:
        raise ValueError(
            "The built-in loss needs targets: fit on (x, y) or (x, y, sample_weight). Received: y=None."
        )
    if weights is None:
        weights = tf.ones_like(y, dtype=tf.float32)
    weights = tf.cast(weights, tf.float32)
    if weights.shape.rank == 1:  # a weight an example, as Keras allows
        weights = tf.broadcast_to(weights[:, None], tf.shape(y))
    return x, y, weights


def _sum_over_replicas(value):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
