"""Checkpoints that a killed run goes on from."""

import glob
import logging
import os
import re

import keras

from tfmodels.training import run_state
from tfmodels.training.state_file import DamagedFileError, read_state, write_state
from tfmodels.training.strategy import flat, is_chief

_LOG = logging.getLogger(__name__)
_VERSION = 1


class Resume(keras.callbacks.Callback):
    """Saves all of a run every few steps, and lets the same script go on after it was killed.

    What is saved: weights, optimizer, seeds (dropout's too), metrics, the position in the data, and the
    plain attributes that the other callbacks have changed (early stopping's best loss, the history).
    A script that is started again with the same folder continues, in `fit`, as if it had not been
    killed: the same batches, losses and weights, bit for bit on one device.

    The data is put back by its kind. `dataset()` of a `tfmodels.data.Reader` goes on at once. All other
    data (`tf.data.Dataset`, arrays, generators) is read again from the start and thrown away up to the
    position, which takes the time of reading it; so it must come in the same order in each process: give
    shuffles a seed, or call `keras.utils.set_random_seed` first.

    On SIGTERM (a cluster that takes the machine back) the run is saved after the batch at hand, and the
    process leaves with exit code 143, which a supervisor takes as not finished. With several
    workers only the chief writes, the folder must be one that all of them see, and SIGTERM leaves
    without another checkpoint.

    A run of other configs, data or `fit` options needs another folder, and so does a second `fit` of one
    script.

    Args:
        directory: str, the folder of the checkpoints; made when needed.
        every_steps: int, batches between two checkpoints.
        keep: int, how many checkpoints to keep, at least 1. A damaged one is passed over, so 2 or more
            are safer.

    Raises:
        ValueError: in `fit`: the checkpoint belongs to another run, or all are damaged.

    Example:
        >>> keras.utils.set_random_seed(0)
        >>> model = tfmodels.models.gpt2("small")
        >>> model.compile(keras.optimizers.AdamW(3e-4))
        >>> model.fit(data, epochs=3, callbacks=[tfmodels.training.Resume("runs/1", every_steps=500)])
    """

    def __init__(self, directory, every_steps=1000, keep=3):
        super().__init__()
        for name, value in (("every_steps", every_steps), ("keep", keep)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1. Received: {value!r}.")
        if not directory:
            raise ValueError(f"directory must name a folder. Received: {directory!r}.")
        self.directory = os.fspath(directory)
        self.every_steps = every_steps
        self.keep = keep

    def on_train_begin(self, logs=None):
        if not getattr(self.model, "_run", None):
            raise ValueError(
                "Resume works in the fit of models of tfmodels. "
                f"Received: {type(self.model).__name__}. Derive it from a model of tfmodels.models."
            )

    def make_directory(self):
        """Makes the folder, or fails before training does."""
        try:
            os.makedirs(self.directory, exist_ok=True)
            for path in glob.glob(os.path.join(glob.escape(self.directory), ".writing-*")):
                os.unlink(path)  # of a process that was killed while it wrote
        except OSError as error:
            message = f"cannot write checkpoints to {self.directory!r}: {error.strerror}"
            raise type(error)(error.errno, message) from error
        if not os.access(self.directory, os.W_OK):
            raise PermissionError(f"cannot write checkpoints to {self.directory!r}: choose another folder.")

    def paths(self):
        """The checkpoints, oldest first."""
        named = []
        for name in os.listdir(self.directory) if os.path.isdir(self.directory) else ():
            found = re.fullmatch(r"step-(\d+)\.safetensors", name)
            if found:
                named.append((int(found[1]), os.path.join(self.directory, name)))
        return [path for _, path in sorted(named)]

    def save(self, model, arrays, record):
        """Writes a checkpoint of a step, and removes the oldest above `keep`."""
        path = os.path.join(self.directory, f"step-{record['step']:08d}.safetensors")
        contents = run_state.variables(model) | arrays
        write_state(path, contents, {"version": _VERSION, **record})
        for old in self.paths()[: -self.keep]:
            os.unlink(old)

    def newest(self, description, strategy):
        """The newest whole checkpoint: (path, record, arrays), or None where there is none.

        Args:
            description: dict, of `run_state.describe`.
            strategy: the model's `tf.distribute.Strategy`.

        Raises:
            ValueError: all are damaged, or it belongs to another run.
        """
        damaged = {}
        for path in reversed(self.paths()):
            try:
                record, arrays = read_state(path)
            except DamagedFileError as error:
                damaged[path] = error
                continue
            _check_same_run(path, record, description)
            for other, error in damaged.items():
                _LOG.warning("%s. Falling back to %s.", error, path)
                # Out of the way of newer ones; but a file that cannot be read now may be later.
                may_be_whole = isinstance(error.__cause__, OSError) and os.path.isfile(other)
                if is_chief(strategy) and not may_be_whole:
                    os.replace(other, other + ".damaged")
            return path, record, arrays
        if damaged:
            raise ValueError(
                f"All checkpoints are damaged. Received: {'; '.join(map(str, damaged.values()))}. Delete the "
                f"folder {self.directory!r} to begin anew."
            )
        return None


def find_resume(callbacks):
    """The `Resume` among callbacks as `fit` takes them, or None.

    Raises:
        ValueError: there are several.
    """
    found = [callback for callback in flat(callbacks) if isinstance(callback, Resume)]
    if len(found) > 1:
        raise ValueError(f"fit takes one Resume callback. Received: {len(found)}.")
    return found[0] if found else None


def _check_same_run(path, record, description):
    if record.get("version") != _VERSION:
        raise ValueError(
            f"{path} was written by another version of tfmodels. Received: format {record.get('version')}, "
            f"here {_VERSION}. Finish the run with that version, or choose another folder."
        )
    there = record["description"]
    missing = "nothing"
    other = [
        f"{name}={there.get(name, missing)!r} in the checkpoint, {description.get(name, missing)!r} here"
        for name in sorted(there.keys() | description.keys())
        if there.get(name, missing) != description.get(name, missing)
    ]
    if other:
        raise ValueError(
            f"The checkpoint {path} belongs to another run. Received: {'; '.join(other[:3])}"
            f"{f'; and {len(other) - 3} more' if len(other) > 3 else ''}. "
            "Choose another folder for the new run, or restore the config."
        )
