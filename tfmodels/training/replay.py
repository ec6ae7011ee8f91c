"""`fit` that goes on where a checkpoint was.

A restarted run goes through Keras's own loop from its first step. Up to the position of the checkpoint the
callbacks are silent and a step only takes its batch from the data, or nothing where a reader can go there at
once. So whatever Keras does with any kind of data, epochs and validation, it does again.
"""

import contextlib
import logging
import signal
import sys
import threading

import keras
import tensorflow as tf

from tfmodels.training import run_state
from tfmodels.training._keras_internals import is_multi_worker
from tfmodels.training.resume import find_resume
from tfmodels.training.strategy import flat, is_chief

_LOG = logging.getLogger(__name__)
_TERMINATED = 128 + signal.SIGTERM  # as a shell reports it: not finished, start it again


class ResumableFit:
    """A Keras model whose `fit` takes the callback `Resume`."""

    def run_variables(self):
        """Variables of a run that are no weights, optimizer or metrics: dict of name -> variable."""
        return {}

    def run_options(self):
        """What a run is besides the configs of model and optimizer: dict of name -> what Keras serialises."""
        return {}

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs):
        """As `keras.Model.fit`, and with the callback `tfmodels.training.Resume` it survives being killed."""
        resume = find_resume(callbacks)
        if resume is None:
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)
        if not self.compiled:
            return super().fit(x, y)  # Keras says what is missing
        run = _Run(
            resume,
            x,
            {"batch_size": batch_size, **kwargs},
            callbacks=flat(callbacks),
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            model=self,
        )
        if run.is_finished(epochs):
            kwargs["initial_epoch"] = epochs  # nothing to do but what follows the last epoch
        vars(self)["_run"] = run  # past Keras's tracking of attributes
        try:
            with run.leaving_on_sigterm():
                return super().fit(x, y, batch_size, epochs, verbose, run, **kwargs)
        finally:
            run.end()
            vars(self)["_run"] = None


class _Run(keras.callbacks.CallbackList):
    """The callbacks of a run, and the position of it."""

    def __init__(self, resume, x, options, model, **kwargs):
        rows, steps = _size(x, options)
        super().__init__(**kwargs, steps=steps, model=model)
        self._resume, self._model = resume, model
        self._strategy = model.distribute_strategy
        self._named = {}  # class and number -> callback
        for callback in self.callbacks:
            kind = type(callback).__name__
            same = sum(name.startswith(f"{kind}:") for name in self._named)
            self._named[f"{kind}:{same}"] = callback
        options = {name: value for name, value in options.items() if isinstance(value, (bool, int, float))}
        self._description = run_state.describe(
            model, {"rows": rows, "steps_per_execution": model.steps_per_execution, **options}
        )
        self._reader = getattr(x, "reader", None)  # of a Reader's dataset()
        self._one_pass = options.get("steps_per_epoch") is not None
        self._initial_epoch = options.get("initial_epoch", 0)
        self._epoch = self._batch = self._step = 0
        self._epoch_batches = []  # of each epoch that has ended
        self._goal = self._arrays = None  # where a replay goes, and what is put back there
        self._replaying = False
        self._terminated = False
        self._step_functions = None
        self._before_validation = None
        if is_chief(self._strategy):
            resume.make_directory()
        found = resume.newest(self._description, self._strategy)
        if found is not None:
            path, self._goal, self._arrays = found
            _LOG.info("Resuming from %s: epoch %d, batch %d.", path, self._goal["epoch"], self._goal["batch"])
        if self._reader is not None:
            self._first_position = self._reader.state() if found is None else self._goal["first_position"]

    def is_finished(self, epochs):
        goal = self._goal
        return goal is not None and goal["batch"] == 0 and (goal["stop"] or goal["epoch"] >= epochs)

    # The beginning and the end.

    def on_train_begin(self, logs=None):
        model, goal = self._model, self._goal
        model.optimizer.build(model.trainable_variables)
        if goal is not None:
            different = run_state.difference(model, self._arrays)
            if different:
                raise ValueError(f"The checkpoint belongs to another model. Received: {different}.")
            run_state.assign(run_state.variables(model), self._arrays)
        if self._reader is not None:
            self._reader.restore(self._first_position if goal is None else goal["position"])
        with run_state.going_on_with_logs(self._named, goal["log_sizes"] if goal else {}):
            super().on_train_begin(logs)
        self._first_memories = {name: run_state.remembered(c)[0] for name, c in self._named.items()}
        if goal is None:
            return
        if self.is_finished(self.params["epochs"]):
            self._put_back()
        else:
            self._names = dict.fromkeys(model.get_metrics_result(), 0.0)
            self._step_functions = model.train_function, model.test_function
            self._replaying = True
            model.train_function, model.test_function = self._skip_training, self._skip_batches

    def end(self):
        if self._replaying:  # an error or a signal on the way
            self._model.train_function, self._model.test_function = self._step_functions

    # Steps that compute nothing.

    def _skip_training(self, iterator):
        if self._reader is None:
            return self._skip_batches(iterator)
        epoch, ends = self._epoch - self._initial_epoch, self._goal["epoch_batches"]
        if epoch < len(ends) and self._batch >= ends[epoch]:
            raise StopIteration
        return self._names

    def _skip_batches(self, iterator):
        iterator = iter(iterator)
        next(iterator)
        with contextlib.suppress(StopIteration, tf.errors.OutOfRangeError):
            for _ in range(self._model.steps_per_execution - 1):
                next(iterator)
        return self._names

    def _arrive(self):
        """Ends the replay: from here on all is as it was."""
        model = self._model
        self._replaying = False
        model.train_function, model.test_function = self._step_functions
        self._put_back()

    def _put_back(self):
        goal, arrays = self._goal, self._arrays
        targets = run_state.variables(self._model) | run_state.metric_variables(self._model)
        targets |= run_state.run_variables(self._model, self._named)
        run_state.assign(targets, arrays)
        self._model.stop_training = goal["stop"]
        self._step = goal["step"]
        self._epoch_batches = list(goal["epoch_batches"])
        for name, callback in self._named.items():
            prefix = f"callbacks/{name}/"
            own = {n.removeprefix(prefix): read() for n, read in arrays.items() if n.startswith(prefix)}
            run_state.remember(callback, goal["callbacks"].get(name, {}), own)
        self._arrays = None

    # What Keras reports, passed on but during a replay.

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._batch = epoch, 0
        goal = self._goal
        if self._replaying and epoch >= goal["epoch"] and goal["batch"] == 0:
            self._arrive()
        if not self._replaying or epoch >= goal["epoch"]:
            super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        if not self._replaying:
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        before, self._batch = self._batch, batch + 1
        if self._replaying:
            if self._epoch == self._goal["epoch"] and self._batch >= self._goal["batch"]:
                self._arrive()
            return
        super().on_train_batch_end(batch, logs)
        every, last = self._resume.every_steps, self._step
        self._step += self._batch - before
        if self._terminated or self._step // every > last // every:
            self._save(self._epoch, self._batch)

    def on_epoch_end(self, epoch, logs=None):
        self._before_validation = None
        if self._replaying:
            return
        super().on_epoch_end(epoch, logs)
        self._epoch_batches.append(self._batch)
        if self._terminated or self._model.stop_training or epoch == self.params["epochs"] - 1:
            # Before Keras puts averages in the weights' place.
            self._save(epoch + 1, 0)

    def on_test_begin(self, logs=None):
        if not self._replaying:
            self._before_validation = self._passing(), self._memories()
            super().on_test_begin(logs)

    def on_test_batch_begin(self, batch, logs=None):
        if not self._replaying:
            super().on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        if not self._replaying:
            super().on_test_batch_end(batch, logs)
            if self._terminated:
                self._model.stop_evaluating = True

    def on_test_end(self, logs=None):
        if not self._replaying:
            super().on_test_end(logs)
            if self._terminated:  # after callbacks that had put other weights in
                self._save(self._epoch, self._batch)

    # Saving.

    def _memories(self):
        """What training has changed in the callbacks: JSON, and arrays."""
        found, all_arrays = {}, {}
        for name, callback in self._named.items():
            values, arrays = run_state.remembered(callback)
            has_arrays = {array.split("/")[0] for array in arrays}
            first = self._first_memories[name]
            found[name] = {n: v for n, v in values.items() if n in has_arrays or v != first.get(n, self)}
            all_arrays |= {f"callbacks/{name}/{n}": array for n, array in arrays.items()}
        return found, all_arrays

    def _passing(self, batch=1):
        """Metrics, where there is a batch of the epoch, and what model and callbacks keep besides."""
        found = run_state.run_variables(self._model, self._named)
        if batch:
            found |= run_state.metric_variables(self._model)
        return {name: keras.ops.convert_to_numpy(variable) for name, variable in found.items()}

    def _save(self, epoch, batch):
        passing, (memories, arrays) = self._before_validation or (self._passing(batch), self._memories())
        if is_chief(self._strategy) and not (self._terminated and is_multi_worker(self._strategy)):
            record = {
                "epoch": epoch,
                "batch": batch,
                "step": self._step,
                "epoch_batches": self._epoch_batches,
                "stop": bool(self._model.stop_training),
                "description": self._description,
                "callbacks": memories,
                "log_sizes": run_state.log_sizes(self._named),
            }
            if self._reader is not None:
                record["first_position"] = self._first_position
                record["position"] = self._position(epoch, batch)
            self._resume.save(self._model, passing | arrays, record)
        if self._terminated:
            sys.exit(_TERMINATED)

    def _position(self, epoch, batch):
        """Where the reader goes on."""
        if self._one_pass:
            return self._reader.state(self._step - (self._goal["step"] if self._goal else 0))
        first = self._first_position  # an epoch is a pass
        return {**first, "epoch": first["epoch"] + epoch - self._initial_epoch, "batch": batch}

    @contextlib.contextmanager
    def leaving_on_sigterm(self):
        def note(number, frame):
            if self._replaying:  # nothing to save yet
                sys.exit(_TERMINATED)
            self._terminated = True

        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's
            return
        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _size(x, options):
    """Rows of arrays or batches of a dataset, and batches an epoch; None: not known."""
    steps, rows = options.get("steps_per_epoch"), None
    if isinstance(x, tf.data.Dataset):
        rows = int(x.cardinality())
        return rows, steps or (rows if rows >= 0 else None)
    leaf = next(iter(keras.tree.flatten(x)), None)
    if hasattr(leaf, "shape") and len(leaf.shape):
        rows = int(leaf.shape[0])
        training_rows = int(rows * (1 - options.get("validation_split", 0.0)))
        steps = steps or -(-training_rows // (options["batch_size"] or 32))
    elif hasattr(x, "num_batches"):
        steps = steps or x.num_batches
    return rows, steps
