"""The training step: one loss, the mean over the real target tokens of the global batch."""

import keras
import tensorflow as tf

from tfmodels.training.losses import vocabulary_loss
from tfmodels.training.metrics import Perplexity, WeightedSum
from tfmodels.training.replay import ResumableFit


class TaskModel(ResumableFit, keras.Model):
    """Base class of all models: `compile(optimizer)` alone trains on the model's own task loss.

    A subclass says how targets are scored, in `task_loss`, and names its losses and metrics. An
    explicit `loss=` behaves as Keras documents.
    """

    task_losses = {"loss": 1.0}  # name -> its factor in the sum that is trained on
    task_metrics = {"accuracy": keras.metrics.Mean}  # name -> class of a Keras mean

    def compile(self, optimizer="adamw", loss=None, *, jit_compile="auto", **kwargs):
        """Configures training, as `keras.Model.compile`.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: None: the model's own task loss; otherwise as Keras documents.
            jit_compile: "auto" compiles with XLA on a GPU and not on a CPU, where its matrix
                products are slower than the plain ops'.
            **kwargs: as Keras documents.
        """
        self._task_metrics = None
        if loss is None:
            self._task_metrics = _TaskMetrics(self.task_losses, self.task_metrics)
        if jit_compile == "auto" and not tf.config.list_physical_devices("GPU"):
            jit_compile = False
        super().compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile, **kwargs)

    def compile_from_config(self, config):
        """Compiles a loaded model as it was compiled when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def task_loss(self, x, y, sample_weight, training):
        """Scores targets: sums over them times their weights, and the sums of the weights.

        Args:
            x: dict of the model's inputs.
            y: the targets, a tensor or a dict of tensors.
            sample_weight: float32 tensor of y's shape, or a dict of them.
            training: bool.

        Returns:
            Dict of name -> (total, weight), float32 scalars, for each of `task_losses` and
            `task_metrics`. What is trained on is the sum of the losses, each the mean over the global
            batch times its factor.
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
        with tf.GradientTape() as tape:
            sums = self.task_loss(x, y, weights, training=True)
            loss = 0.0
            for name, factor in self.task_losses.items():
                total, weight = sums[name]
                # Gradients are summed over replicas, so each replica divides by the global weight.
                global_weight = _sum_over_replicas(tf.stop_gradient(weight))
                loss += factor * total / tf.maximum(global_weight, 1e-9)
            loss = self.optimizer.scale_loss(loss)
        variables = self.trainable_weights
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._update(sums)

    def test_step(self, data):
        if self._task_metrics is None:
            return super().test_step(data)
        x, y, weights = _unpack(data)
        return self._update(self.task_loss(x, y, weights, training=False))

    def _update(self, sums):
        self._task_metrics.update(sums)
        return self.get_metrics_result()


class VocabularyModel(TaskModel):
    """A model whose targets are words: adds the blockwise loss over the vocabulary.

    A subclass has `final_hidden(x, training)`, (batch, length, hidden_dim), `output_kernel()`,
    (vocabulary, hidden_dim), perhaps `output_bias()`, (vocabulary,), and `config.label_smoothing`.
    """

    task_metrics = {"accuracy": keras.metrics.Mean, "perplexity": Perplexity}

    def output_bias(self):
        """What is added to the logits, (vocabulary,), or None."""
        return None

    def task_loss(self, x, y, sample_weight, training):
        loss, nll, correct = self.vocabulary_sums(self.final_hidden(x, training), y, sample_weight, training)
        tokens = tf.reduce_sum(sample_weight)
        return {"loss": (loss, tokens), "accuracy": (correct, tokens), "perplexity": (nll, tokens)}

    def vocabulary_sums(self, hidden, y, sample_weight, training):
        """Sums of the loss, of the negative log-likelihood and of the correct tokens."""
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
    """The means of losses and metrics. No Keras object, so that checkpoints hold no metrics."""

    def __init__(self, losses, metrics):
        self.means = {name: keras.metrics.Mean(name=name) for name in losses}
        self.means |= {name: metric(name=name) for name, metric in metrics.items()}
        self.all = list(self.means.values())
        if len(losses) > 1:
            parts = [(self.means[name], factor) for name, factor in losses.items()]
            self.all.insert(0, WeightedSum(parts, name="loss"))

    def update(self, sums):
        for name, metric in self.means.items():
            total, weight = sums[name]
            metric.update_state(tf.math.divide_no_nan(total, weight), sample_weight=weight)


def _unpack(data):
    """(x, y, float32 weights of y's shapes)."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    if y is None:
        raise ValueError(
            "The built-in loss needs targets: fit on (x, y) or (x, y, sample_weight). Received: y=None."
        )
    if not isinstance(y, dict):
        return x, y, _full_weights(y, weights)
    weights = weights if isinstance(weights, dict) else dict.fromkeys(y, weights)
    if not weights.keys() <= y.keys():
        raise ValueError(
            "sample_weight must have the names of the targets. "
            f"Received: {sorted(weights)} for targets {sorted(y)}."
        )
    return x, y, {name: _full_weights(y[name], weights.get(name)) for name in y}


def _full_weights(y, weights):
    """float32 weights of y's shape; without a weight, 1; a weight an example holds for all in it."""
    if weights is None:
        return tf.ones_like(y, dtype=tf.float32)
    weights = tf.cast(weights, tf.float32)
    if weights.shape.rank > y.shape.rank:
        raise ValueError(
            "sample_weight must have no more axes than the targets. "
            f"Received: {weights.shape} for targets {y.shape}."
        )
    while weights.shape.rank < y.shape.rank:
        weights = weights[..., None]
    return tf.broadcast_to(weights, tf.shape(y))


def _sum_over_replicas(value):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
