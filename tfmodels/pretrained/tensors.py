"""What a weight map is made of, and the one way through it, for reading and for writing."""

import dataclasses

import numpy as np
from keras import ops


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint and the variables of the model that hold it.

    Attributes:
        name: str, in the checkpoint.
        shape: tuple of int, in the checkpoint.
        variables: tuple of addresses in the model, such as "blocks.0.attention.query_dense.kernel".
            Several stand side by side along the last axis of the tensor, as Keras has it.
        transposed: bool, whether the checkpoint has (out, in) where Keras has (in, out).
        optional: bool, whether a checkpoint may leave it out; the model then keeps its own start.
        copies: tuple of str, names under which a checkpoint may hold the tensor too, or instead, as
            they are in one with a head.
    """

    name: str
    shape: tuple
    variables: tuple
    transposed: bool = False
    optional: bool = False
    copies: tuple = ()


def tensor(name, shape, *variables):
    """A tensor that has the model's own layout."""
    return Tensor(name, tuple(shape), variables)


def linear(name, dense, in_dim, out_dim, use_bias=True):
    """The kernel and bias of a `Dense`, stored (out, in)."""
    yield Tensor(f"{name}.weight", (out_dim, in_dim), (f"{dense}.kernel",), transposed=True)
    if use_bias:
        yield tensor(f"{name}.bias", (out_dim,), f"{dense}.bias")


def norm(name, layer, dim):
    """The scale and shift of a layer normalisation."""
    yield tensor(f"{name}.weight", (dim,), f"{layer}.gamma")
    yield tensor(f"{name}.bias", (dim,), f"{layer}.beta")


def assign(model, entry, array):
    """Puts a tensor of the checkpoint into its variables."""
    array = ops.convert_to_tensor(array)
    if entry.transposed:
        array = ops.transpose(array)  # several times as fast as NumPy's strided copy
    variables = [_find(model, address) for address in entry.variables]
    ends = np.cumsum([variable.shape[-1] for variable in variables])[:-1]
    parts = ops.split(array, list(ends), axis=-1) if len(variables) > 1 else [array]
    for variable, part in zip(variables, parts, strict=True):
        variable.assign(part)  # Keras casts what was stored in another type


def variables_of(model, entries):
    """The variables that tensors of the checkpoint are put into."""
    return [_find(model, address) for entry in entries for address in entry.variables]


def gather(model, entry):
    """The tensor of the checkpoint, made of its variables: `assign` backwards.

    Returns:
        An array, C-contiguous, in the variables' dtype.
    """
    parts = [np.asarray(_find(model, address)) for address in entry.variables]
    array = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    return np.ascontiguousarray(array.T if entry.transposed else array)


def _find(model, address):
    for part in address.split("."):
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model
