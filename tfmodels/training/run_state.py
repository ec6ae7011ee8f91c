"""What a training run is made of at a moment: variables, metrics, and what callbacks remember."""

import contextlib
import json
import os

import keras
import numpy as np

from tfmodels.training.state_file import can_hold

_NOT_REMEMBERED = {"model", "_model", "params"}  # Keras sets these anew


class _NotPlainError(TypeError):
    """A value that JSON and arrays do not hold."""


def variables(model):
    """Weights, seeds and optimizer of a model: dict of name -> Keras variable.

    The number is the key, since Keras numbers its names as a process makes layers.
    """
    found = {f"model/{i}": variable for i, variable in enumerate(model.variables)}
    return found | {f"optimizer/{i}": variable for i, variable in enumerate(model.optimizer.variables)}


def metric_variables(model):
    """The metrics of a model: dict of name -> Keras variable."""
    metrics = enumerate(model.metrics)
    return {
        f"metrics/{i}/{j}": variable for i, metric in metrics for j, variable in enumerate(metric.variables)
    }


def run_variables(model, callbacks):
    """What a model and callbacks (dict of name -> callback) keep besides: dict of name -> variable."""
    found = {f"run/{name}": variable for name, variable in model.run_variables().items()}
    for owner, callback in callbacks.items():
        own = callback.run_variables() if hasattr(callback, "run_variables") else {}
        found |= {f"run/{owner}/{name}": variable for name, variable in own.items()}
    return found


def assign(targets, arrays):
    """Sets variables (dict of name -> variable) from readers by the same names."""
    for name, variable in targets.items():
        if name in arrays:
            variable.assign(arrays[name]())


def difference(model, arrays):
    """How a file's variables differ from the model's, in words; "" where they do not.

    Args:
        model: a model.
        arrays: dict of name -> function that gives the array.
    """
    here = variables(model)
    there = {name for name in arrays if name.startswith(("model/", "optimizer/"))}
    if here.keys() != there:
        return f"{len(there)} variables in the checkpoint, {len(here)} here"
    for name, variable in here.items():
        shape = arrays[name]().shape
        if shape != tuple(variable.shape):
            return f"{variable.path} has shape {shape} in the checkpoint, {tuple(variable.shape)} here"
    return ""


def describe(model, options):
    """The configs of a run, flat: dict of path -> plain value.

    Args:
        model: a compiled model.
        options: dict, what else belongs to the run.
    """
    configs = {
        "model": dict(model.get_config()),
        "optimizer": model.optimizer.get_config(),
        "run": {"optimizer": type(model.optimizer).__name__, **model.run_options()},
        "fit": options,
    }
    plain = json.loads(json.dumps(keras.saving.serialize_keras_object(configs), default=str))
    return {path: value for path, value in _flatten(plain, "") if not _is_numbered(path)}


def _is_numbered(path):
    # Keras numbers names as a process makes objects; that of a dtype policy is what it does.
    return path.rpartition(".")[2] == "name" and not path.endswith("dtype.config.name")


def _flatten(value, path):
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _flatten(part, f"{path}.{name}" if path else name)
    else:
        yield path, value


def log_sizes(callbacks):
    """Bytes of the files of `CSVLogger`s among callbacks (dict of name -> callback): dict of name -> int."""
    loggers = {name: c for name, c in callbacks.items() if isinstance(c, keras.callbacks.CSVLogger)}
    return {n: os.path.getsize(c.filename) for n, c in loggers.items() if os.path.isfile(c.filename)}


@contextlib.contextmanager
def going_on_with_logs(callbacks, sizes):
    """Within it each `CSVLogger` begins with what its file had at a checkpoint, as `log_sizes` gave it.

    What came after is written again. A logger that would begin a new file goes on with it too.
    """
    found = log_sizes(callbacks)
    loggers = {callbacks[name]: size for name, size in sizes.items() if found.get(name, -1) >= size}
    append = {logger: logger.append for logger in loggers}
    for logger, size in loggers.items():
        os.truncate(logger.filename, size)
        logger.append = True
    try:
        yield
    finally:
        for logger in loggers:
            logger.append = append[logger]


def remembered(callback):
    """The plain attributes of a callback: (dict of name -> JSON, dict of name -> array)."""
    values, arrays = {}, {}
    for name, value in vars(callback).items():
        if name in _NOT_REMEMBERED:
            continue
        found = {}
        try:
            values[name] = _encode(value, found, name)
        except _NotPlainError:
            continue
        arrays |= found
    return values, arrays


def remember(callback, values, arrays):
    """Sets a callback's attributes from what `remembered` gave."""
    for name, value in values.items():
        setattr(callback, name, _decode(value, arrays))


def _encode(value, arrays, name):
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and can_hold(value.dtype):
        arrays[name] = np.asarray(value)
        return {"array": name}
    if isinstance(value, (list, tuple)):
        parts = [_encode(part, arrays, f"{name}/{i}") for i, part in enumerate(value)]
        return {type(value).__name__: parts} if type(value) in (list, tuple) else _fail()
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(part, arrays, f"{name}/{key}") for key, part in value.items()}}
    return _fail()


def _fail():
    raise _NotPlainError


def _decode(value, arrays):
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content][()]  # a scalar again, where it was one
    if kind == "dict":
        return {key: _decode(part, arrays) for key, part in content.items()}
    parts = [_decode(part, arrays) for part in content]
    return tuple(parts) if kind == "tuple" else parts
