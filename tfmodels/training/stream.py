"""Training on streams: a memory that `fit` carries from batch to batch.

Shape letters: b batch, s slices (a model's layers), m memory length, l length, d hidden_dim.
"""

import contextlib
import re

import keras
import tensorflow as tf

from tfmodels.training._keras_internals import is_multi_worker
from tfmodels.training.adaptive_loss import adaptive_loss
from tfmodels.training.errors import one_a_token
from tfmodels.training.resume import find_resume
from tfmodels.training.strategy import flat


class StreamTraining:
    """A model with a memory: `compile(optimizer, stateful=True)` carries it from batch to batch.

    Row i of each batch must continue row i of the batch before, so `fit` on such a dataset, or on
    arrays with `shuffle=False`. The memory is emptied at the start of each epoch and of each
    evaluation; training and evaluation have one each, so validation does not disturb training. It
    is no weight: it is not saved, and calling the model or `predict` neither reads nor writes it.

    A subclass has `memory_shape`, (s, m, d), or None without a memory, and
    `stream_hidden(x, memory, memory_mask, training)`, which returns final hidden states, (b, l, d),
    and what the memory remembers of them, (b, s, l, d); and `output_parts(hidden, y)`, the parts of
    `adaptive_loss`.
    """

    def compile(self, optimizer="adamw", loss=None, *, stateful=False, jit_compile="auto", **kwargs):
        """Configures training, as `keras.Model.compile`.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: None: the model's own task loss; otherwise as Keras documents.
            stateful: bool, whether batches continue one another row by row.
            jit_compile: as for other models; "auto" means not at all where `stateful`.
            **kwargs: as Keras documents.

        Raises:
            ValueError: `stateful` with a loss of Keras, without a memory, or with `jit_compile`.
        """
        if stateful and loss is not None:
            raise ValueError(
                f"stateful=True needs the model's own loss. Received: loss={loss!r}. Leave loss out."
            )
        if stateful and kwargs.get("micro_batches", 1) != 1:
            raise ValueError(
                "stateful=True carries the memory of whole batches. "
                f"Received: micro_batches={kwargs['micro_batches']}."
            )
        if stateful and self.memory_shape is None:
            raise ValueError("stateful=True needs a memory. Received: a config with memory_length=None.")
        if stateful and jit_compile is True:  # the memory's batch size is known only as the stream begins
            raise ValueError(
                "With stateful=True XLA cannot keep a memory. Received: jit_compile=True. Leave it out."
            )
        if stateful:
            jit_compile = False
        super().compile(optimizer, loss, jit_compile=jit_compile, **kwargs)
        streams = None
        if stateful:
            dtype = self.dtype_policy.compute_dtype
            with self.distribute_strategy.scope():
                streams = {training: _Memory(self.memory_shape, dtype) for training in (True, False)}
        # Past Keras's attribute tracking: the memory is no part of what is saved.
        vars(self)["_streams"] = streams

    def get_compile_config(self):
        config = super().get_compile_config()
        return config | {"stateful": True} if config and self._is_stateful() else config

    def _is_stateful(self):
        return vars(self).get("_streams") is not None

    def reset_memory(self):
        """Empties the memory, as at the start of an epoch: a new stream may begin, of any batch size."""
        if self._is_stateful():
            for memory in self._streams.values():
                memory.reset()

    def run_variables(self):
        """The memory too belongs to a checkpoint in the middle of an epoch."""
        if not self._is_stateful():
            return super().run_variables()
        found, memory = super().run_variables(), self._streams[True]
        for name in ("hidden", "mask", "rows"):
            # Each replica's: the variable of all would give the first one's.
            parts = self.distribute_strategy.experimental_local_results(getattr(memory, name))
            found |= {f"memory/{name}/{i}": part for i, part in enumerate(parts)}
        return found

    def run_options(self):
        """Rows of a batch, and their memories, belong to replicas."""
        own = {"stateful": True, "replicas": self.distribute_strategy.num_replicas_in_sync}
        return super().run_options() | (own if self._is_stateful() else {})

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs):
        """As `keras.Model.fit`; with `stateful=True` each epoch begins with an empty memory."""
        if not self._is_stateful():
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)
        if is_multi_worker(self.distribute_strategy) and find_resume(callbacks):
            raise ValueError(
                "Resume cannot save the memories that other workers have. Received: stateful=True on several "
                "workers. Leave Resume out, or train on one machine."
            )
        begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: self._streams[True].reset())
        callbacks = [begin, *flat(callbacks)]
        with _stream_errors():
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def evaluate(self, *args, **kwargs):
        """As `keras.Model.evaluate`; with `stateful=True` it begins with an empty memory."""
        if not self._is_stateful():
            return super().evaluate(*args, **kwargs)
        self._streams[False].reset()
        with _stream_errors():
            return super().evaluate(*args, **kwargs)

    def task_loss(self, x, y, sample_weight, training):
        if not self._is_stateful():
            return self.score_hidden(self.final_hidden(x, training=training), y, sample_weight, training)
        x, y, sample_weight = _real_tokens_first(self.complete_inputs(x), y, sample_weight)
        stream, padding_mask = self._streams[training], x["padding_mask"]
        memory, memory_mask = stream.read(padding_mask)
        hidden, remembered = self.stream_hidden(x, memory, memory_mask, training=training)
        # Section 3.2: no gradient reaches the segments before.
        stream.write(memory, memory_mask, tf.stop_gradient(remembered), padding_mask)
        return self.score_hidden(hidden, y, sample_weight, training)

    def score_hidden(self, hidden, y, sample_weight, training):
        """The sums of `task_loss`, given final hidden states, (b, l, d)."""
        weights = tf.reshape(sample_weight, (-1,))
        parts = self.output_parts(hidden, one_a_token(y, hidden))
        loss, nll, correct = adaptive_loss(parts, weights, differentiable=training)
        tokens = tf.reduce_sum(weights)
        return {"loss": (loss, tokens), "accuracy": (correct, tokens), "perplexity": (nll, tokens)}


class _Memory:
    """The last real tokens of each row, at the right, and a mask of what is filled."""

    def __init__(self, shape, dtype):
        self.shape = tuple(shape)

        def variable(empty, shape):
            # Each replica has its own rows.
            return tf.Variable(
                empty,
                shape=shape,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

        slices, length, hidden_dim = self.shape
        self._empty = (
            tf.zeros((1, slices, length, hidden_dim), dtype),
            tf.zeros((1, length), tf.int32),
            tf.constant(0),
        )
        self.hidden = variable(self._empty[0], (None, slices, length, hidden_dim))  # (b, s, m, d)
        self.mask = variable(self._empty[1], (None, length))  # (b, m)
        self.rows = variable(self._empty[2], ())  # b; 0 where the stream begins

    def reset(self):
        for variable, empty in zip((self.hidden, self.mask, self.rows), self._empty, strict=True):
            variable.assign(empty)

    def read(self, padding_mask):
        """(b, s, m, d) and (b, m), empty where the stream begins."""
        batch = tf.shape(padding_mask)[0]
        before = tf.convert_to_tensor(self.rows)
        fits = (before == 0) | (before == batch)
        size_rule = tf.strings.format(
            "The batch size must stay the same within a stream. Received: a batch of {} rows after "
            "batches of {}. Drop the last part of a batch, or call reset_memory() first.",
            (batch, before),
        )
        packed_rule = (
            "With stateful=True a row must hold one sequence: padding_mask must be 0 or 1. Received: "
            "packed rows. Compile without stateful."
        )
        checks = [
            tf.debugging.Assert(fits, [size_rule]),
            tf.debugging.Assert(tf.reduce_max(padding_mask) <= 1, [packed_rule]),
        ]
        with tf.control_dependencies([check for check in checks if check is not None]):
            # An empty memory has one row, which stands for all. A gather, and a count of its own:
            # TensorFlow 2.21 drops a broadcast here, taking the size that is assigned later.
            rows = tf.range(batch) * tf.minimum(before, 1)
            return tf.gather(self.hidden, rows), tf.gather(self.mask, rows)

    def write(self, memory, memory_mask, remembered, padding_mask):
        """Keeps the last real tokens of memory and segment."""
        mask = tf.concat([memory_mask, padding_mask], axis=1)  # (b, m + l)
        # A stable sort by 0 and 1 puts padding left and keeps the order of the rest.
        kept = tf.argsort(mask, axis=1, stable=True)[:, -self.shape[1] :]  # (b, m)
        both = tf.concat([memory, remembered], axis=2)  # (b, s, m + l, d)
        rows = tf.repeat(kept[:, None], self.shape[0], axis=1)  # (b, s, m)
        self.hidden.assign(tf.gather(both, rows, batch_dims=2))
        self.mask.assign(tf.gather(mask, kept, batch_dims=1))
        self.rows.assign(tf.shape(mask)[0])


def _real_tokens_first(x, y, sample_weight):
    """Moves padding to the right end of each row: then a token's place is its position."""
    order = tf.argsort(-tf.minimum(x["padding_mask"], 1), axis=1, stable=True)  # (b, l)

    def sort(value):
        return tf.gather(value, order, batch_dims=1)

    return {name: sort(value) for name, value in x.items()}, sort(y), sort(sample_weight)


@contextlib.contextmanager
def _stream_errors():
    """What is found inside the compiled step, as ValueError with its own sentence alone."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(
            r"assertion failed: \[(The batch size must stay.*?|With stateful.*?)\]", error.message
        )
        if not found:
            raise
        raise ValueError(found.group(1)) from error
