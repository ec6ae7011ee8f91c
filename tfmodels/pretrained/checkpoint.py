"""A folder with config.json and safetensors files. Nothing in it is ever unpickled or executed."""

import json
import os

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Formats that can run code when they are read, or that need another framework.
_REFUSED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_PIECE = 1 << 20  # numbers compared at once
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Checkpoint:
    """The headers of a folder's weights, read and checked; the tensors are read one by one.

    Args:
        folder: path of the folder.

    Attributes:
        shapes: dict of tensor name -> tuple of int.
        dtypes: dict of tensor name -> "float32", "float16", "bfloat16", or the format's own name of
            a type that is no weight's.

    Raises:
        ValueError: no safetensors, a broken file, an index that does not tell the truth.
    """

    def __init__(self, folder):
        self.folder = os.fspath(folder)
        self.shapes, self.dtypes, self._places = {}, {}, {}
        index = _read_index(self.folder)
        for file in [WEIGHTS] if index is None else sorted(set(index.values())):
            self._read_header(os.path.join(self.folder, file))
        if index is not None:
            self._check_index(index)

    def _read_header(self, path):
        try:
            with safe_open(path, framework="numpy") as file:
                for stored in file.keys():  # noqa: SIM118  safetensors has no "in"
                    part = file.get_slice(stored)
                    name = _current_name(stored)
                    if name in self._places:
                        raise ValueError(
                            f"Each tensor must be stored once. Received: {name!r} twice, the second "
                            f"time in {path}. Save the checkpoint again."
                        )
                    self.shapes[name] = tuple(part.get_shape())
                    self.dtypes[name] = FLOATS.get(part.get_dtype(), part.get_dtype())
                    self._places[name] = (path, stored)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"The weights must be a whole safetensors file. Received: {path}: {error}. "
                "Copy or download it again."
            ) from error

    def _check_index(self, index):
        listed = {_current_name(name): file for name, file in index.items()}
        for name in sorted(listed.keys() | self._places.keys()):
            path = self._places.get(name, ("no file",))[0]
            if os.path.basename(path) != listed.get(name):
                raise ValueError(
                    f"{INDEX} must name the file of each tensor. Received: {name!r} listed in "
                    f"{listed.get(name, 'no file')}, found in {os.path.basename(path)}."
                )

    def read(self, name):
        """One tensor, in its stored dtype."""
        path, stored = self._places[name]
        # Mapped anew for each tensor: pages of a map that stays open would pile up beside the
        # model's own copy of the weights.
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(stored)

    def add_copy(self, name, original):
        """Lets a tensor be read under a second name."""
        for values in (self.shapes, self.dtypes, self._places):
            values[name] = values[original]

    def same(self, first, second):
        """Whether two tensors have one shape and equal values, read in pieces."""
        shape = self.shapes[first]
        if shape != self.shapes[second]:
            return False
        (path_1, stored_1), (path_2, stored_2) = self._places[first], self._places[second]
        rows = max(1, _PIECE // max(1, int(np.prod(shape[1:]))))
        with safe_open(path_1, framework="numpy") as file_1, safe_open(path_2, framework="numpy") as file_2:
            part_1, part_2 = file_1.get_slice(stored_1), file_2.get_slice(stored_2)
            pieces = (slice(i, min(i + rows, shape[0])) for i in range(0, shape[0], rows))
            return all(np.array_equal(part_1[piece], part_2[piece]) for piece in pieces)


def _read_index(folder):
    """Tensor name -> file name of a sharded checkpoint; None for a single file."""
    if os.path.exists(os.path.join(folder, WEIGHTS)):
        return None
    if not os.path.exists(os.path.join(folder, INDEX)):
        others = sorted(f for f in os.listdir(folder) if f.endswith(_REFUSED))
        found = f" Received: {', '.join(others)}, which is never read: it can run code." if others else ""
        raise ValueError(
            f"{folder} must hold {WEIGHTS} or {INDEX}.{found} "
            "Save the model as safetensors where it was made."
        )
    index = read_json(os.path.join(folder, INDEX)).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise ValueError(f"{INDEX} must have a weight_map of tensor -> file. Received: {index!r}.")
    for name, file in index.items():
        plain = isinstance(file, str) and file.endswith(".safetensors")
        if not plain or file != os.path.basename(file) or "\\" in file:
            raise ValueError(
                f"{INDEX} must name safetensors files inside the folder. Received: {name!r} in {file!r}."
            )
    return index


def _current_name(name):
    """Early checkpoints, bert-base among them, call a norm's weight and bias gamma and beta."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def numpy_dtype(name):
    """NumPy's dtype of a stored one's name; bfloat16 is ml_dtypes'."""
    return np.dtype(getattr(ml_dtypes, name, name))


def read_json(path, kind=dict):
    """The object (or, with `kind`, the list) in a JSON file; ValueError for anything else."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError as error:
        raise ValueError(f"There must be a file {path}. Received: none.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON. Received: {error}.") from error
    if not isinstance(value, kind):
        name = "object" if kind is dict else "list"
        raise ValueError(f"{path} must hold a JSON {name}. Received: {type(value).__name__}.")
    return value
