"""The training step: one loss, the mean over the real target tokens of the global batch."""

import keras
import tensorflow as tf

from tfmodels.training._keras_internals import StrategyModel, forget_loss, leave_out_of_weight_decay
from tfmodels.training.allocator import kept_memory
from tfmodels.training.callbacks import give_directions
from tfmodels.training.errors import in_plain_words, none_negative, one_a_token, quiet_end_of_data
from tfmodels.training.losses import vocabulary_loss
from tfmodels.training.metrics import Perplexity, WeightedSum
from tfmodels.training.micro_batches import pad_rows, row_count, sum_over_parts
from tfmodels.training.replay import ResumableFit
from tfmodels.training.strategy import flat, is_chief, sum_over_replicas, without_writers
from tfmodels.training.update import StepCounts, StepGuard, apply_gradients, check_row_count, is_bias_or_norm


class TaskModel(ResumableFit, StrategyModel):
    """Base class of all models: `compile(optimizer)` alone trains on the model's own task loss.

    A subclass says how targets are scored, in `task_loss`, and names its losses and metrics. An
    explicit `loss=` behaves as Keras documents.

    The task loss is the mean over the real targets of the global batch, however many replicas and
    micro-batches it is cut into. The gradients are summed over all of them first; clipping, the test
    for finite numbers and the averages of weights (`use_ema`) of the optimizer see these sums. A step
    whose gradients are not finite changes nothing; ten in a row end `fit` with a FloatingPointError.
    """

    task_losses = {"loss": 1.0}  # name -> its factor in the sum that is trained on
    task_metrics = {"accuracy": keras.metrics.Mean}  # name -> class of a Keras mean
    # Whether an example's loss depends on others in the batch, which then cannot be cut.
    batch_is_one = False

    _task_metrics = None  # until `compile`

    def compile(self, optimizer="adamw", loss=None, *, micro_batches=1, jit_compile="auto", **kwargs):
        """Configures training, as `keras.Model.compile`.

        Weight decay leaves out biases and the weights of norms; call `exclude_from_weight_decay` of
        the optimizer before to choose otherwise.

        Args:
            optimizer: a Keras optimizer or its name. Under a strategy make it within its scope.
            loss: None: the model's own task loss; otherwise as Keras documents.
            micro_batches: int, into how many parts each replica's batch is cut: as many times less
                memory for activations, and the same update. Needs the model's own task loss.
            jit_compile: "auto" compiles with XLA on a GPU and not on a CPU, where its matrix
                products are slower than the plain ops'. It compiles anew for each size of batches: for
                data of many sizes, False.
            **kwargs: as Keras documents.

        Raises:
            ValueError: `micro_batches` with a loss that cannot be cut; metrics or `loss_weights` of Keras
                without a loss.
        """
        self._check_micro_batches(micro_batches, loss)
        self.micro_batches = micro_batches
        self._task_metrics = self._counts = None
        optimizer = keras.optimizers.get(optimizer)
        if loss is None:
            self._check_no_metrics(kwargs)
            forget_loss(self)
            self._task_metrics = _TaskMetrics(self.task_losses, self.task_metrics)
            with self.distribute_strategy.scope():
                self._counts = StepCounts()
            leave_out_of_weight_decay(optimizer, [v for v in self.trainable_variables if is_bias_or_norm(v)])
        if jit_compile == "auto" and not tf.config.list_physical_devices("GPU"):
            jit_compile = False
        super().compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile, **kwargs)

    def _check_micro_batches(self, micro_batches, loss):
        if not isinstance(micro_batches, int) or micro_batches < 1:
            raise ValueError(
                f"micro_batches must be a whole number of at least 1. Received: {micro_batches!r}."
            )
        if micro_batches > 1 and loss is not None:
            raise ValueError(
                f"micro_batches needs the model's own loss. Received: loss={loss!r}. Leave one of them out."
            )
        if micro_batches > 1 and self.batch_is_one:
            raise ValueError(
                f"The loss of {type(self).__name__} compares the examples of a batch with one another, so "
                f"the batch cannot be cut. Received: micro_batches={micro_batches}."
            )

    def _check_no_metrics(self, options):
        for name in ("metrics", "weighted_metrics", "loss_weights"):
            if options.get(name):
                raise ValueError(
                    f"{name} needs loss= too: the built-in loss makes no outputs that Keras could read. "
                    f"Received: {name}={options[name]!r}, loss=None. The built-in loss reports "
                    f"{', '.join([*self.task_losses, *self.task_metrics])}."
                )

    def get_compile_config(self):
        config = super().get_compile_config()
        return config | {"micro_batches": self.micro_batches} if config and self.micro_batches > 1 else config

    def compile_from_config(self, config):
        """Compiles a loaded model as it was compiled when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force=False):
        if self._task_metrics is not None and not self.trainable_variables:
            raise ValueError(
                "Training needs a weight that is trainable. Received: a model whose weights are all frozen. "
                "Set trainable = True on a layer, and compile again."
            )
        # Before the step is traced: it updates within a condition, where nothing can be made, and
        # TensorFlow traces a step that makes variables twice.
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs):
        """As `keras.Model.fit`. Of several workers only the first prints, and calls what writes files."""
        own = []
        if self._task_metrics is not None:
            least_rows = self.distribute_strategy.num_replicas_in_sync * self.micro_batches
            own = [StepGuard(self._counts, least_rows)]
            _check_class_weight(x, y, kwargs.get("class_weight"))
            give_directions(flat(callbacks), self.metrics)
        callbacks = [*own, *flat(callbacks)]
        if not is_chief(self.distribute_strategy):
            verbose, callbacks = 0, without_writers(callbacks)
        with in_plain_words(), kept_memory(), quiet_end_of_data(kwargs.get("steps_per_epoch")):
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`."""
        with in_plain_words():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        """As `keras.Model.predict`."""
        with in_plain_words():
            return super().predict(*args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        """As `keras.Model.train_on_batch`."""
        with in_plain_words():
            return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        """As `keras.Model.test_on_batch`."""
        with in_plain_words():
            return super().test_on_batch(*args, **kwargs)

    def run_variables(self):
        """The counts too belong to a checkpoint."""
        if self._task_metrics is None:
            return super().run_variables()
        counts = {f"counts/{name}": variable for name, variable in vars(self._counts).items()}
        return super().run_variables() | counts

    def run_options(self):
        """What is trained on belongs to a run."""
        if self._task_metrics is not None:
            return super().run_options() | {"loss": "the model's own"}

        def plain(loss):  # what Keras serialises of other functions may differ by process
            is_function = callable(loss) and not isinstance(loss, keras.losses.Loss)
            return getattr(loss, "__name__", type(loss).__name__) if is_function else loss

        return super().run_options() | {"loss": keras.tree.map_structure(plain, self.loss)}

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

    def loss_weights(self, x, y, sample_weight):
        """What `task_loss` will divide each loss by, known before the forward pass.

        Args:
            x: dict of the model's inputs.
            y: the targets, a tensor or a dict of tensors.
            sample_weight: float32 tensor of y's shape, or a dict of them.

        Returns:
            Dict of name -> weight, a float32 scalar, for each of `task_losses`.
        """
        if isinstance(y, dict):
            raise ValueError(f"The targets must be one array. Received: a dict of {', '.join(y)}.")
        (name,) = self.task_losses
        return {name: tf.reduce_sum(sample_weight)}

    def train_step(self, data):
        if self._task_metrics is None:
            return self._logs_of_replica(super().train_step(data))
        batch = _unpack(data)
        rows = row_count(batch)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if isinstance(rows, int) and replicas == 1:
            check_row_count(rows, self.micro_batches)
        names = list(self.task_losses)
        weights = self.loss_weights(*batch)
        weights = tf.stack([tf.cast(rows, tf.float32), *(weights[name] for name in names)])
        # The weights first: each part's gradients are then of its share of the one mean, neither
        # larger nor smaller than they will be applied (float16 has little room for either).
        global_rows, *global_weights = tf.unstack(sum_over_replicas(weights))
        divisors = dict(zip(names, global_weights, strict=True))
        variables = self.trainable_variables
        gradients, scores = sum_over_parts(
            lambda part: self._gradients(*part, divisors, variables),
            batch,
            self.micro_batches,
            variables,
            num_scores=2 * len(self._task_metrics.means),
        )
        gradients, scores = sum_over_replicas((gradients, scores))
        finite, hopeless = apply_gradients(self.optimizer, gradients, variables)
        self._counts.count(finite, hopeless, tf.cast(global_rows, tf.int32))
        return self._update(scores)

    def _gradients(self, x, y, sample_weight, divisors, variables):
        """Gradients of a part's share of the loss, and the part's scores."""
        with tf.GradientTape() as tape:
            sums = self.task_loss(x, y, sample_weight, training=True)
            loss = 0.0
            for name, factor in self.task_losses.items():
                loss += factor * sums[name][0] / tf.maximum(divisors[name], 1e-9)
            loss = self.optimizer.scale_loss(loss)
        return tape.gradient(loss, [v.value for v in variables]), self._task_metrics.scores(sums)

    def test_step(self, data):
        if self._task_metrics is None:
            return self._logs_of_replica(super().test_step(data))
        (x, y, weights), _ = pad_rows(_unpack(data), 1)
        return self._update(self._task_metrics.scores(self.task_loss(x, y, weights, training=False)))

    def _update(self, scores):
        self._task_metrics.update(scores)
        return self._logs_of_replica(self.get_metrics_result())


class VocabularyModel(TaskModel):
    """A model whose targets are words: adds the blockwise loss over the vocabulary.

    A subclass has `final_hidden(x, training)`, (batch, length, hidden_dim), `output_kernel()`,
    (vocabulary, hidden_dim), perhaps `output_bias()`, (vocabulary,), and `config.label_smoothing`.
    """

    task_metrics = {"accuracy": keras.metrics.Mean, "perplexity": Perplexity}

    def output_bias(self):
        """What is added to the logits, (vocabulary,), or None."""
        return None

    def compile(self, optimizer="adamw", loss=None, *, z_loss=0.0, **kwargs):
        """Configures training, as other models do.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: None: the model's own task loss; otherwise as Keras documents.
            z_loss: float, times the square of the log-normaliser of the words' logits, added to a
                token's loss in training (Chowdhery et al. 2022, section 5, have 1e-4).
            **kwargs: `micro_batches`, `jit_compile`, and as Keras documents.

        Raises:
            ValueError: `z_loss` below 0 or with another loss.
        """
        if z_loss < 0 or (z_loss and loss is not None):
            raise ValueError(
                "z_loss must be at least 0, and needs the model's own loss. "
                f"Received: z_loss={z_loss}, loss={loss!r}."
            )
        self.z_loss = z_loss
        super().compile(optimizer, loss, **kwargs)

    def get_compile_config(self):
        config = super().get_compile_config()
        return config | {"z_loss": self.z_loss} if config and self.z_loss else config

    def run_options(self):
        return super().run_options() | {"z_loss": self.z_loss}

    def task_loss(self, x, y, sample_weight, training):
        loss, nll, correct = self.vocabulary_sums(self.final_hidden(x, training), y, sample_weight, training)
        tokens = tf.reduce_sum(sample_weight)
        return {"loss": (loss, tokens), "accuracy": (correct, tokens), "perplexity": (nll, tokens)}

    def vocabulary_sums(self, hidden, y, sample_weight, training):
        """Sums of the loss, of the negative log-likelihood and of the correct tokens."""
        y = one_a_token(y, hidden)
        hidden = tf.reshape(hidden, (-1, hidden.shape[-1]))
        bias = self.output_bias()
        return vocabulary_loss(
            hidden,
            tf.cast(tf.convert_to_tensor(self.output_kernel()), hidden.dtype),
            tf.cast(tf.reshape(y, (-1,)), tf.int32),
            tf.reshape(sample_weight, (-1,)),
            bias=None if bias is None else tf.convert_to_tensor(bias),
            label_smoothing=self.config.label_smoothing if training else 0.0,
            z_loss=getattr(self, "z_loss", 0.0) if training else 0.0,  # not compiled: none
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

    def scores(self, sums):
        """The sums of `task_loss` as one tensor: total and weight of each mean."""
        values = [value for name in self.means for value in sums[name]]
        return tf.stop_gradient(tf.stack([tf.cast(value, tf.float32) for value in values]))

    def update(self, scores):
        scores = tf.unstack(scores)
        for metric, total, weight in zip(self.means.values(), scores[::2], scores[1::2], strict=True):
            metric.update_state(tf.math.divide_no_nan(total, weight), sample_weight=weight)


def _unpack(data):
    """(x, y, float32 weights of y's shapes)."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    if y is None:
        raise ValueError(
            "The built-in loss needs targets: fit on (x, y) or (x, y, sample_weight). Received: y=None."
        )
    x = none_negative(x)
    if not isinstance(y, dict):
        return x, y, _full_weights(y, weights)
    weights = weights if isinstance(weights, dict) else dict.fromkeys(y, weights)
    if not weights.keys() <= y.keys():
        raise ValueError(
            "sample_weight must have the names of the targets. "
            f"Received: {sorted(weights)} for targets {sorted(y)}."
        )
    return x, y, {name: _full_weights(y[name], weights.get(name)) for name in y}


def _check_class_weight(x, y, class_weight):
    if class_weight is None:
        return
    if isinstance(x, tf.data.Dataset) and isinstance(x.element_spec, tuple):
        y = x.element_spec[1]
    shape = tf.TensorShape(getattr(y, "shape", None))
    if (shape.rank or 1) > 1:
        raise ValueError(
            f"class_weight is for one label an example. Received: targets of shape {tuple(shape)}. "
            "Give each target its sample_weight."
        )


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
