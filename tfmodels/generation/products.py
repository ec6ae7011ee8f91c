"""How a loop multiplies its few rows by a layer's matrix: what is fastest on a CPU (docs/benchmarks.md).

Shape letters: r rows, i inputs, o outputs.
"""

import math

import tensorflow as tf

from tfmodels.generation.protocol import is_encoder_decoder

# As the layer makes its products; as it does, but apart from the bias; by a turned matrix, (o, i), of which a
# CPU reads each row in one piece; by a turned matrix as the first factor: (W x^T)^T; or within programs of
# XLA's, one a block, of one row by turned matrices or by them as they stand, or of several rows.
OWN, APART, TURNED, SWAPPED = "own", "apart", "turned", "swapped"
COMPILED, COMPILED_AS_STORED, COMPILED_ROWS = "compiled", "compiled as stored", "compiled rows"
# Up to so many rows turned matrices are faster. Turning them all takes as long as some ten steps gain, and
# their memory once more.
_FEW_ROWS = {"float32": 48, "bfloat16": 128}
_MANY_STEPS, _MOST_BYTES = 16, 2**31
# Up to so many rows XLA is faster: with one it reads smaller types as it multiplies, with more it casts them
# at every step. It takes half a second to compile, which smaller models gain back too late.
_MOST_COMPILED = {"float32": 16, "bfloat16": 1, "int8": 1}
_WORTH_COMPILING = 2**26


def choose_layout(model, rows, steps, compiled=True):
    """How a loop of so many rows and steps best makes its products.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        rows: int, of a step's product.
        steps: int.
        compiled: bool, whether XLA may compile a step.
    """
    dtype = getattr(model, "compute_dtype", None)
    if has_gpu() or dtype not in _FEW_ROWS:
        return OWN
    kernels = [variable for variable in getattr(model, "variables", ()) if _is_kernel(variable)]
    size = sum(4 * math.prod(kernel.shape) for kernel in kernels)
    rounded = any(kernel.dtype == "int8" for kernel in kernels)
    # A product is rounded before its bias is added in a batch of any size, or rows would change with it.
    own = APART if dtype == "bfloat16" and not rounded else OWN
    if steps < _MANY_STEPS:
        return own
    read = "int8" if rounded else dtype
    few = rows <= _MOST_COMPILED[read] and (read == "float32" or size <= _MOST_BYTES)
    if compiled and few and size >= _WORTH_COMPILING and _can_compile(model):
        if rows > 1:
            return COMPILED_ROWS
        return COMPILED if size <= _MOST_BYTES else COMPILED_AS_STORED
    # A rounded kernel is cast too, which takes far longer than a product.
    if size > _MOST_BYTES or (rows > _FEW_ROWS[dtype] and not rounded):
        return own
    return SWAPPED if dtype == "float32" and rows > 2 else TURNED


def _can_compile(model):
    # An encoder's output has another length for each source, and XLA compiles for each. What a layer makes of
    # its matrix anew at each step XLA makes no faster.
    return (
        hasattr(model, "stepping")
        and not is_encoder_decoder(model)
        and not any(
            getattr(layer, "lora_enabled", False) or layer.quantization_mode not in (None, "int8")
            for layer in model._flatten_layers()
        )
    )


def has_gpu():
    return bool(tf.config.list_physical_devices("GPU"))


def _is_kernel(variable):
    return len(variable.shape) == 2 and variable.path.endswith(("/kernel", "/reverse_embeddings"))


def times(x, matrix, turned, layout):
    """x (..., i) times a matrix (i, o), or turned (o, i) -> (..., o); only the first size may be unknown."""
    rows = x if x.shape.rank == 2 else tf.reshape(x, (-1, x.shape[-1]))
    if layout == COMPILED and matrix.dtype != tf.float32:
        rows = _made_before(rows, matrix[0])
    if layout == SWAPPED:
        product = tf.transpose(tf.matmul(matrix, rows, transpose_b=True))
    else:
        product = tf.matmul(rows, tf.cast(matrix, x.dtype), transpose_b=turned)
        # Kept from a bias that is added: TensorFlow's fused op of few rows takes up to half as long again,
        # and XLA's of one row and a float32 matrix runs on one core.
        if layout in (APART, TURNED):
            product = tf.raw_ops.Snapshot(input=product)
        elif layout in (COMPILED, COMPILED_AS_STORED) and matrix.dtype == tf.float32:
            product = tf.maximum(product, -float("inf"))
    if x.shape.rank == 2:
        return product
    sizes = [-1 if size is None else size for size in x.shape[:-1]]
    return tf.reshape(product, [*sizes, product.shape[-1]])


def _made_before(x, numbers):
    """x (1, i), made before its product with a matrix, not of float32, that has a row of these numbers, (i,).

    XLA fuses the product with the matrix's cast, and then also with what x is the result of, such as sums
    and a change of shape, which it would make again for each of the product's results. A division it leaves
    alone, also by ones that it cannot know.
    """
    numbers = numbers if numbers.dtype.is_integer else tf.bitcast(numbers, tf.int16)
    return x / tf.cast(tf.cast(numbers, tf.int32) > -(2**20), x.dtype)
