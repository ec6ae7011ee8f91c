"""What a training run leaves in its folder besides checkpoints: config, versions, the best model."""

import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys

import keras
import yaml

from tfmodels.cli.run import save_model
from tfmodels.training import Resume


def check_same_config(folder, config):
    """Raises ValueError where a folder holds checkpoints of a run with another config."""
    path = os.path.join(folder, "config.yaml")
    if not os.path.isfile(path) or not _has_checkpoints(folder):
        return
    there = _read_config(path)
    # Other hosts are no other run.
    names = config.keys() - {"workers", "worker_index"}
    different = sorted(name for name in names if there.get(name) != config[name])
    if different:
        name = different[0]
        raise ValueError(
            f"{folder!r} holds a run of another config: {', '.join(different)} differ. Received: "
            f"{name}={config[name]!r}, there {there.get(name)!r}. Choose another output, or delete it."
        )


def _read_config(path):
    try:
        with open(path, encoding="utf-8") as file:
            config = yaml.safe_load(file)
        if not isinstance(config, dict):
            raise ValueError("it lists no fields")
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"{path!r} must be the config of the run there. Received: a file that cannot be read: {error}. "
            "Choose another output, or delete the folder."
        ) from error
    return config


def _has_checkpoints(folder):
    """Whether a run may go on there; one that failed before its first checkpoint may not."""
    return bool(Resume(os.path.join(folder, "checkpoints")).paths())


def start_run(folder, config, tokenizer):
    """Writes config, tokenizer, and run.json: what ran where; a line more for each restart."""
    import numpy
    import tensorflow as tf

    import tfmodels

    tokenizer.save(os.path.join(folder, "tokenizer.model"))
    _write(os.path.join(folder, "config.yaml"), yaml.safe_dump(config, sort_keys=False))
    path = os.path.join(folder, "run.json")
    starts = []
    if not _has_checkpoints(folder):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, "epochs.csv"))  # of a run that begins anew
    elif os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            starts = json.load(file)["starts"]
    starts.append(
        {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "host": platform.node(),
            "command": sys.argv,
            "git_revision": git_revision(),
            "devices": [device.name for device in tf.config.list_logical_devices()],
        }
    )
    versions = {module.__name__: module.__version__ for module in (tfmodels, keras, tf, numpy)}
    record = {"seed": config["seed"], "versions": {"python": platform.python_version(), **versions}}
    _write(path, json.dumps(record | {"starts": starts}, indent=1))


def _write(path, text):
    """Writes a file aside, then renames: it is never there in part."""
    aside = path + ".writing"
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(aside, path)


def git_revision():
    """The commit of the working directory, with "+" where files are changed; None: no repository."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--match="],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class SaveBest(keras.callbacks.Callback):
    """Saves the model at the end of each epoch whose monitored loss is the lowest so far.

    Args:
        path: str, the `.keras` file.
        monitor: str, name of the loss.
        average: an `AverageWeights` whose weights are saved, or None.
    """

    chief_only = True

    def __init__(self, path, monitor, average=None):
        super().__init__()
        self.path = path
        self.monitor = monitor
        self.best = float("inf")  # remembered by Resume
        self._average = average

    def on_epoch_end(self, epoch, logs=None):
        if logs[self.monitor] < self.best:
            self.best = logs[self.monitor]
            with self._average.in_place() if self._average else contextlib.nullcontext():
                save_model(self.model, self.path)
