"""How a loop multiplies its few rows by a layer's matrix: what is fastest on a CPU (docs/benchmarks.md).

Shape letters: r rows, i inputs, o outputs, n blocks of w columns.
"""

import functools
import math
import time

import tensorflow as tf

from tfmodels.generation.protocol import is_encoder_decoder

# As the layer makes its products; as it does, but apart from the bias; so, but in float32; by a turned
# matrix, (o, i), of which a CPU reads each row in one piece; by a turned matrix as the first factor:
# (W x^T)^T; by blocks of a matrix's columns, each of which stands in one piece; or within programs of XLA's,
# one a block, of one row by turned matrices or by them as they stand, or of several rows.
OWN, APART, WIDE, TURNED, SWAPPED, BLOCKS = "own", "apart", "wide", "turned", "swapped", "blocks"
COMPILED, COMPILED_AS_STORED, COMPILED_ROWS = "compiled", "compiled as stored", "compiled rows"
# Up to so many rows turned matrices are faster. Turning them all takes as long as some ten steps gain, and
# their memory once more.
_FEW_ROWS = {"float32": 48, "bfloat16": 128}
_MANY_STEPS, _MOST_BYTES = 16, 2**31
_BLOCK_BYTES = 128  # of a block's row: two lines of cache
# Up to so many rows XLA is faster: with one it reads smaller types as it multiplies, with more it casts them
# at every step. It takes half a second to compile, which smaller models gain back too late.
_MOST_COMPILED = {"float32": 4, "bfloat16": 1, "int8": 1}
_WORTH_COMPILING = 2**26


def choose_layout(model, rows, steps, compiled=True, here=True):
    """How a loop of so many rows and steps best makes its products.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        rows: int, of a step's product.
        steps: int.
        compiled: bool, whether XLA may compile a step.
        here: bool, whether it runs on this machine, and so may do what not all machines do fast.
    """
    dtype = getattr(model, "compute_dtype", None)
    if has_gpu() or dtype not in _FEW_ROWS:
        return OWN
    kernels = [variable for variable in getattr(model, "variables", ()) if _is_kernel(variable)]
    size = sum(4 * math.prod(kernel.shape) for kernel in kernels)
    rounded = any(kernel.dtype == "int8" for kernel in kernels)
    is_long, is_small = steps >= _MANY_STEPS, size <= _MOST_BYTES
    read = "int8" if rounded else dtype
    few = rows <= _MOST_COMPILED[read] and (read == "float32" or is_small)
    compiles = compiled and is_long and few and size >= _WORTH_COMPILING and _can_compile(model)
    if compiles and rows == 1:
        return COMPILED if is_small else COMPILED_AS_STORED
    if dtype == "bfloat16" and is_small and not has_fast_batches(dtype):
        return WIDE  # a CPU without instructions for it; an export too, which would round otherwise than this
    # A product is rounded before its bias is added in a batch of any size, or rows would change with it.
    own = APART if dtype == "bfloat16" and not rounded else OWN
    # A rounded kernel is cast too, which takes far longer than a product.
    may_copy = is_small and (rows <= _FEW_ROWS[dtype] or rounded)
    if not is_long:
        return own
    if here and may_copy and rows > 1 and has_fast_batches(dtype):
        return BLOCKS
    if compiles:
        return COMPILED_ROWS
    if not may_copy:
        return own
    return SWAPPED if dtype == "float32" and rows > 1 else TURNED


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


@functools.cache
def has_fast_batches(dtype):
    """Whether products by blocks are fast here, measured once.

    They take two to three times as long without oneDNN, and in bfloat16 without instructions for it.
    """
    with tf.init_scope():
        rows, whole = tf.ones((4, 768), dtype), tf.ones((768, 2048), dtype)
        batch, blocks = rows[None], in_blocks(whole)

        def seconds(x, matrix):
            start = time.perf_counter()
            tf.matmul(x, matrix).numpy()
            return time.perf_counter() - start

        # In turns, the least of many: a busy machine slows some of them, and the first makes kernels ready.
        # While another program has one of the cores all blocks look slow: only half a second of it counts.
        taken, start = [], time.perf_counter()
        while len(taken) < 20 or time.perf_counter() - start < 0.5:
            taken.append((seconds(batch, blocks), seconds(rows, whole)))
            by_blocks, as_one = map(min, zip(*taken, strict=True))
            if len(taken) >= 20 and by_blocks < 1.5 * as_one:
                return True
    return False


def _is_kernel(variable):
    return len(variable.shape) == 2 and variable.path.endswith(("/kernel", "/reverse_embeddings"))


def times(x, matrix, turned, layout):
    """x (..., i) times a matrix (i, o), or turned (o, i) -> (..., o); only the first size may be unknown.

    By one `in_blocks` there are as many products as it has columns.
    """
    if layout == BLOCKS:
        return _times_blocks(x, matrix)
    rows = x if x.shape.rank == 2 else tf.reshape(x, (-1, x.shape[-1]))
    if layout == COMPILED and matrix.dtype != tf.float32:
        rows = _made_before(rows, matrix[0])
    if layout == SWAPPED:
        product = tf.transpose(tf.matmul(matrix, rows, transpose_b=True))
    elif layout == WIDE:
        product = tf.cast(tf.matmul(tf.cast(rows, matrix.dtype), matrix), x.dtype)
    else:
        product = tf.matmul(rows, tf.cast(matrix, x.dtype), transpose_b=turned)
        # Kept from a bias that is added: TensorFlow's fused op of few rows takes up to half as long again,
        # and XLA's of one row and a float32 matrix runs on one core.
        if layout in (APART, TURNED):
            product = tf.raw_ops.Snapshot(input=product)
        elif layout in (COMPILED, COMPILED_AS_STORED) and matrix.dtype == tf.float32:
            product = tf.maximum(product, -float("inf"))
    return product if x.shape.rank == 2 else tf.reshape(product, _sizes(x, product.shape[-1]))


def _sizes(x, last):
    """Of a tensor with another last size than x (..., i)."""
    return [*(-1 if size is None else size for size in x.shape[:-1]), last]


def _made_before(x, numbers):
    """x (1, i), made before its product with a matrix, not of float32, that has a row of these numbers, (i,).

    XLA fuses the product with the matrix's cast, and then also with what x is the result of, such as sums
    and a change of shape, which it would make again for each of the product's results. A division it leaves
    alone, also by ones that it cannot know.
    """
    numbers = numbers if numbers.dtype.is_integer else tf.bitcast(numbers, tf.int16)
    return x / tf.cast(tf.cast(numbers, tf.int32) > -(2**20), x.dtype)


def widened(matrix):
    """A matrix as float32, of the numbers that it has."""
    return tf.cast(matrix, tf.float32)


def turned_and_widened(matrix):
    """The same of a matrix that stands turned, (o, i), as (i, o)."""
    return tf.transpose(widened(matrix))


def _as_one_op(function):
    """A function of a matrix of which a graph has the ops once, whatever number of matrices of a shape."""
    made = {}

    @functools.wraps(function)
    def call(matrix):
        kind = tuple(matrix.shape), matrix.dtype
        if kind not in made:
            made[kind] = tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
        return made[kind](matrix)

    return call


@_as_one_op
def in_blocks(matrix):
    """A matrix (i, o) as blocks of its columns, (n, i, w), the last filled up with zeros."""
    width = _BLOCK_BYTES // matrix.dtype.size
    if missing := -matrix.shape[1] % width:
        matrix = tf.pad(matrix, ((0, 0), (0, missing)))
    inputs, outputs = matrix.shape
    blocks = _swapped(tf.reshape(matrix, (inputs, outputs // width, width)))
    return tf.reshape(blocks, (-1, inputs, width))


@_as_one_op
def turned_in_blocks(matrix):
    """The same of a matrix that stands turned, (o, i)."""
    width = _BLOCK_BYTES // matrix.dtype.size
    if missing := -matrix.shape[0] % width:
        matrix = tf.pad(matrix, ((0, missing), (0, 0)))
    return tf.transpose(tf.reshape(matrix, (-1, width, matrix.shape[1])), (0, 2, 1))


def _times_blocks(x, blocks):
    """x (..., i) times `in_blocks` (n, i, w) -> (..., n * w)."""
    number, _, width = blocks.shape
    product = tf.matmul(tf.reshape(x, (1, -1, x.shape[-1])), blocks)  # (n, r, w)
    return tf.reshape(_swapped(product), _sizes(x, number * width))


def _swapped(x):
    """x (a, b, w) as (b, a, words, parts): in words of 8 bytes, as `layers` turn heads.

    oneDNN, which knows the smaller types, takes twice as long.
    """
    word = 8 // x.dtype.size
    words = tf.reshape(x, (x.shape[0], -1, x.shape[2] // word, word))
    return tf.bitcast(tf.transpose(tf.bitcast(words, tf.float64), (1, 0, 2)), x.dtype)
