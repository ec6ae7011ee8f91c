"""One export, loaded to be served: its signatures and their tensors, whatever the protocol."""

import os
import re

import numpy as np
import tensorflow as tf

from tfmodels.serving.check import library_paths, read_card, version_folder
from tfmodels.serving.server.batching import Batcher


class BadRequest(ValueError):
    """What a client asked for and cannot get."""


class NoSuchSignature(BadRequest):
    """A signature that the export lacks."""


class Served:
    """An export and the thread that runs it.

    Args:
        path: str, an export, or the folder of its versions: then the newest.
        name: str, the model's name in requests; None: that of the folder of its versions, or of the
            export itself where its own name is no number.
        max_batch_size, wait_seconds: see `Batcher`.
    """

    def __init__(self, path, name=None, max_batch_size=32, wait_seconds=0.005):
        self.folder = os.path.abspath(version_folder(path))
        above, folder = os.path.split(self.folder)
        self.version = int(folder) if folder.isdigit() else 1
        self.name = name or (os.path.basename(above) if folder.isdigit() else folder)
        if not re.fullmatch(r"[A-Za-z0-9._~-]+", self.name):
            raise ValueError(
                "A model's name must be letters, digits and . _ ~ -, since it stands in URLs. "
                f"Received: {self.name!r}. Give another name."
            )
        self.card = read_card(self.folder)
        for library in library_paths(self.card):
            tf.load_op_library(library)
        self._model = tf.saved_model.load(self.folder)
        self.signatures = dict(self._model.signatures)
        self._specs = {
            name: function.structured_input_signature[1] for name, function in self.signatures.items()
        }
        self._batcher = Batcher(self.signatures, max_batch_size, wait_seconds)

    def specs(self, signature):
        """The inputs of a signature: dict of name -> `tf.TensorSpec`."""
        if signature not in self._specs:
            raise NoSuchSignature(
                f'Serving signature name: "{signature}" not found in signature def. '
                f"It has {', '.join(sorted(self._specs))}."
            )
        return self._specs[signature]

    def submit(self, signature, values):
        """A future of a signature's outputs, dict of arrays, for a dict of nested lists or arrays."""
        specs = self.specs(signature)
        if set(values) != set(specs):
            raise BadRequest(f"The inputs must be {sorted(specs)}. Received: {sorted(values)}.")
        return self._batcher.submit(
            signature, {name: _tensor(name, values[name], spec) for name, spec in specs.items()}
        )

    def close(self):
        self._batcher.close()


def _tensor(name, value, spec):
    try:
        if spec.dtype == tf.string:
            _check_strings(value)
            tensor = tf.constant(value, tf.string)
        else:
            array = np.asarray(value)
            if array.size and (array.dtype.kind not in "iuf" or _cuts(array, spec.dtype)):
                raise ValueError(f"numbers of type {spec.dtype.name} are needed")
            tensor = tf.constant(array, spec.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest(f"{name} must be {spec.dtype.name}, {spec.shape}: {error}") from error
    if not spec.shape.is_compatible_with(tensor.shape):
        raise BadRequest(f"{name} must have the shape {spec.shape}. Received: {tensor.shape}.")
    return tensor


def _cuts(array, dtype):
    """Whether an array would lose something as this type."""
    if not dtype.is_integer:
        return False
    return array.dtype.kind == "f" or array.min() < dtype.min or array.max() > dtype.max


def _check_strings(value):
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        for each in value:
            _check_strings(each)
    elif not isinstance(value, str | bytes):
        raise ValueError(f"a string is needed. Received: {value!r}")
