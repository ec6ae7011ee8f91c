"""How a loop multiplies its few rows by a layer's matrix: what is fastest on a CPU (docs/benchmarks.md).

Shape letters: r rows, i inputs, o outputs.
"""

import math

import tensorflow as tf

# As the layer makes its products; by a turned matrix, (o, i), of which a CPU reads each row in one piece; or
# by a turned matrix as the first factor: (W x^T)^T.
OWN, TURNED, SWAPPED = "own", "turned", "swapped"
# Up to so many rows turned matrices are faster. Turning them all takes as long as some ten steps gain, and
# their memory once more.
_FEW_ROWS = {"float32": 48, "bfloat16": 128}
_MANY_STEPS, _MOST_BYTES = 16, 2**31


def choose_layout(model, rows, steps):
    """How a loop of so many rows and steps best makes its products."""
    dtype = getattr(model, "compute_dtype", None)
    if steps < _MANY_STEPS or has_gpu() or dtype not in _FEW_ROWS:
        return OWN
    kernels = [variable for variable in getattr(model, "variables", ()) if _is_kernel(variable)]
    if sum(4 * math.prod(kernel.shape) for kernel in kernels) > _MOST_BYTES:
        return OWN
    # A rounded kernel is cast too, which takes far longer than a product.
    if rows > _FEW_ROWS[dtype] and not any(kernel.dtype == "int8" for kernel in kernels):
        return OWN
    return SWAPPED if dtype == "float32" and rows > 2 else TURNED


def has_gpu():
    return bool(tf.config.list_physical_devices("GPU"))


def _is_kernel(variable):
    return len(variable.shape) == 2 and variable.path.endswith(("/kernel", "/reverse_embeddings"))


def times_turned(x, turned, layout):
    """x (..., i) times the transpose of turned (o, i) -> (..., o); only the first size may be unknown."""
    rows = x if x.shape.rank == 2 else tf.reshape(x, (-1, x.shape[-1]))
    if layout == SWAPPED:
        product = tf.transpose(tf.matmul(turned, rows, transpose_b=True))
    else:
        product = tf.matmul(rows, turned, transpose_b=True)
    if x.shape.rank == 2:
        return product
    return tf.reshape(product, [*(-1 if size is None else size for size in x.shape[:-1]), turned.shape[0]])
