"""What some choices of tfmodels rest on, measured: python examples/benchmarks/ops.py

Rows flattened before a Dense layer against a three-dimensional product; the fused sparse cross-entropy op
against softmax and arg max; a mask that is added to attention scores against one that selects; few rows
times kernels as they stand, cast, turned, turned and as the first factor, or in blocks of columns; one row
times kernels of smaller types by XLA, which reads them as they are, against TensorFlow's products, and kept
from what XLA fuses them with; a product fused with its bias against the two, three products against one of
their matrices side by side, and GELU in float32; top-p by a sort against by bits; a cache that a loop
copies against one that it writes in place; gradients that layers have of their own against derived ones.
Prints medians of 15 runs after a warm-up, and ratios.
"""

import argparse
import statistics
import time

import keras
import tensorflow as tf

from tfmodels.generation import products
from tfmodels.generation.sampling import _fewest
from tfmodels.layers import _kernels
from tfmodels.layers.masks import masked_softmax
from tfmodels.layers.norm import LayerNormalization


def milliseconds(function, *arguments):
    """The median of 15 runs of a traced function, in milliseconds."""
    traced = tf.function(function, autograph=False)
    traced(*arguments)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        tf.nest.map_structure(lambda x: x.numpy(), traced(*arguments))
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def dense_gradients(x, kernel, flat):
    """Output and gradients of x (batch, length, dim) times a kernel."""
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        rows = tf.reshape(x, (-1, x.shape[-1])) if flat else x
        loss = tf.reduce_sum(tf.cast(tf.matmul(rows, kernel), tf.float32) ** 2)
    return [tf.reduce_sum(tf.cast(g, tf.float32)) for g in tape.gradient(loss, [x, kernel])]


def fused_cross_entropy(logits, labels):
    loss, gradient = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
    return tf.reduce_sum(loss), gradient[0]


def softmax_cross_entropy(logits, labels):
    probabilities = tf.nn.softmax(logits)
    best = tf.argmax(logits, axis=-1, output_type=tf.int32)
    largest = tf.gather(logits, best, batch_dims=1)
    normaliser = largest - tf.math.log(tf.gather(probabilities, best, batch_dims=1))
    loss = normaliser - tf.gather(logits, labels, batch_dims=1)
    return tf.reduce_sum(loss), probabilities[0]


def attention_scores(query, key, mask, selects):
    scores = tf.matmul(query * 0.125, key, transpose_b=True)
    scores = tf.where(mask, scores, -1e9) if selects else scores + tf.where(mask, 0.0, -1e9)
    return tf.reduce_sum(tf.nn.softmax(scores), axis=-1)


def few_rows(x, kernels, turned):
    """x (rows, dim) through kernels one after another, each cast to the dtype of x."""
    for kernel in kernels:
        x = tf.matmul(x, tf.cast(kernel, x.dtype), transpose_b=turned)
    return tf.cast(x, tf.float32)


def few_rows_swapped(x, kernels):
    """The same with turned kernels as the first factor."""
    for kernel in kernels:
        x = tf.transpose(tf.matmul(kernel, x, transpose_b=True))
    return x


def few_rows_blocks(x, kernels):
    """The same with kernels in blocks of columns."""
    for kernel in kernels:
        x = products.times(x, kernel, False, products.BLOCKS)
    return tf.cast(x, tf.float32)


def few_rows_compiled(x, kernels):
    """The same with turned kernels of any type as one program of XLA's."""
    return tf.function(lambda x: few_rows(x, kernels, True), jit_compile=True, autograph=False)(x)


def row_compiled(x, kernels, gains, apart):
    """x (1, dim) through turned kernels as one program of XLA's, between them what attention and int8 do."""

    def times(x, kernel):
        if apart:
            return products.times(x, kernel, True, products.COMPILED)
        return tf.matmul(x, tf.cast(kernel, x.dtype), transpose_b=True)

    def run(x):
        for kernel in kernels:
            mean, variance = tf.nn.moments(x, axes=-1, keepdims=True)
            x = (x - mean) * tf.math.rsqrt(variance) * gains[x.shape[-1]] + gains[x.shape[-1]]
            heads = tf.reshape(x, (1, 12, 1, x.shape[-1] // 12))
            product = times(tf.reshape(tf.transpose(heads, (0, 2, 1, 3)), x.shape), kernel)
            gain = gains[product.shape[-1]]
            x = (product / gain if kernel.dtype == tf.int8 else product) + gain
        return tf.cast(x, tf.float32)

    return tf.function(run, jit_compile=True, autograph=False)(x)


def top_p_sorted(logits, probability):
    """What `sampling.filtered` made of top-p by a sort."""
    order = tf.argsort(-logits, stable=True)
    ordered = tf.gather(tf.nn.softmax(logits), order, batch_dims=1)
    kept = tf.cumsum(ordered, axis=-1, exclusive=True) < probability
    last = tf.reduce_sum(tf.cast(kept, tf.int32), axis=-1, keepdims=True) - 1
    worst = tf.gather(logits, tf.gather(order, last, batch_dims=1), batch_dims=1)
    return tf.where(logits >= worst, logits, float("-inf"))


def top_p(logits, probability):
    return _fewest(logits, lambda: -tf.nn.log_softmax(logits), probability)


def written_cache(batch, in_place):
    """100 steps of a loop that write a row of each head."""
    cache = tf.zeros((batch, 12, 1024, 64))

    def step(i, cache):
        places = tf.stack(
            [tf.repeat(tf.range(batch), 12), tf.tile(tf.range(12), [batch]), tf.fill([12 * batch], i)], 1
        )
        new = tf.ones((12 * batch, 64))
        if in_place:
            return i + 1, tf.raw_ops.ScatterNdNonAliasingAdd(input=cache, indices=places, updates=new)
        return i + 1, tf.tensor_scatter_nd_update(cache, places, new)

    return tf.while_loop(lambda i, _: i < 100, step, (0, cache), parallel_iterations=1)[1][0, 0, 0]


def with_gradient(x, function):
    """Both the function's values and its gradient, whole."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    gradient = tape.gradient(y, x, tf.ones_like(y))
    return [tf.reduce_max(tf.cast(tf.reshape(t, (-1,))[:9], tf.float32)) for t in (y, gradient)]


def own_gradients(dtype):
    """Prints what the gradients save that training has of its own."""
    norm = LayerNormalization(dtype="mixed_bfloat16" if dtype == tf.bfloat16 else "float32")
    norm.build((None, 384))
    seen = tf.linalg.band_part(tf.ones((1, 256, 256), tf.bool), -1, 0)

    def gelu(x):
        return keras.ops.gelu(x, approximate=True)

    cases = {
        "GELU, 2048 x 1536": ((2048, 1536), gelu, _kernels.compiled(gelu)),
        "layer norm, 2048 x 384": ((2048, 384), norm, lambda x: norm(x, training=True)),
        "attention weights, 8 x 6 x 256 x 256": (
            (8, 6, 256, 256),
            lambda x: masked_softmax(x, seen, dtype),
            lambda x: masked_softmax(x, seen, dtype, training=True),
        ),
    }
    for name, (shape, *functions) in cases.items():
        x = tf.cast(tf.random.normal(shape), dtype)
        derived, own = (milliseconds(lambda x, f=f: with_gradient(x, f), x) for f in functions)
        print(
            f"{name} with gradient, {dtype.name}: derived {derived:.1f} ms, own {own:.1f} ms, "
            f"ratio {derived / own:.2f}"
        )


def projected(x, kernels, bias, apart):
    """x (rows, dim) times turned kernels (dim, dim) one after another, each with a bias."""
    for kernel in kernels:
        product = tf.matmul(x, kernel, transpose_b=True)
        x = tf.nn.bias_add(tf.raw_ops.Snapshot(input=product) if apart else product, bias)
    return tf.cast(x, tf.float32)


def three_products(x, kernels, joined):
    """The sum of x (rows, dim) times each third of a turned kernel, (3 * dim, dim), as the next x."""
    for kernel in kernels:
        if joined:
            parts = tf.split(tf.matmul(x, kernel, transpose_b=True), 3, axis=-1)
        else:
            parts = [tf.matmul(x, part, transpose_b=True) for part in kernel]
        x = sum(parts)
    return tf.cast(x, tf.float32)


def several_rows(rows):
    """Prints what steps of several rows save in bfloat16."""
    x, bias = (tf.cast(tf.random.normal(shape), tf.bfloat16) for shape in ((rows, 768), (768,)))
    thirds = [[tf.cast(tf.random.normal((768, 768)) / 48, tf.bfloat16) for _ in range(3)] for _ in range(24)]
    joined = [tf.concat(each, axis=0) for each in thirds]
    cases = {
        "72 products with a bias: fused, apart": [
            (projected, x, sum(thirds, []), bias, apart) for apart in (False, True)
        ],
        "24 times queries, keys and values: three products, one": [
            (three_products, x, thirds, False),
            (three_products, x, joined, True),
        ],
    }
    gelu, inner = keras.activations.gelu, tf.cast(tf.random.normal((rows, 3072)), tf.bfloat16)
    cases["GELU of 3072: in bfloat16, in float32"] = [
        (lambda x: tf.cast(gelu(x), tf.float32), inner),
        (lambda x: gelu(tf.cast(x, tf.float32)), inner),
    ]
    for name, forms in cases.items():
        before, after = (milliseconds(*form) for form in forms)
        print(f"{rows} rows, bfloat16, {name}: {before:.2f} ms, {after:.2f} ms, ratio {before / after:.2f}")


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(f"TensorFlow {tf.__version__}, {len(tf.config.list_physical_devices('GPU'))} GPUs")
    for dtype in (tf.float32, tf.bfloat16):
        x = tf.cast(tf.random.normal((128, 24, 256)), dtype)
        kernel = tf.cast(tf.random.normal((256, 1024)), dtype)
        cube, flat = (milliseconds(dense_gradients, x, kernel, f) for f in (False, True))
        print(f"dense, {dtype.name}: 3-D {cube:.1f} ms, flat {flat:.1f} ms, ratio {cube / flat:.2f}")
    logits = tf.random.normal((1024, 4000))
    labels = tf.random.uniform((1024,), 0, 4000, tf.int32)
    fused, parts = (milliseconds(f, logits, labels) for f in (fused_cross_entropy, softmax_cross_entropy))
    print(
        f"cross-entropy, 1024 x 4000: fused {fused:.1f} ms, softmax {parts:.1f} ms, ratio {fused / parts:.2f}"
    )
    query, key = tf.random.normal((8, 12, 31, 64)), tf.random.normal((8, 12, 112, 64))
    mask = tf.random.uniform((1, 1, 31, 112)) < 0.5  # the same for all rows
    added, selected = (milliseconds(attention_scores, query, key, mask, f) for f in (False, True))
    print(f"mask of scores: added {added:.1f} ms, selects {selected:.1f} ms, ratio {added / selected:.0f}")
    kernels = [tf.Variable(tf.random.normal(shape) / 55) for shape in [(768, 3072), (3072, 768)] * 24]
    turned = [tf.Variable(tf.transpose(kernel)) for kernel in kernels]
    cast = [tf.Variable(tf.cast(kernel, tf.bfloat16)) for kernel in turned]
    for rows in (1, 8, 32):
        x = tf.random.normal((rows, 768))
        before, after = milliseconds(few_rows, x, kernels, False), milliseconds(few_rows, x, turned, True)
        swapped = milliseconds(few_rows_swapped, x, turned)
        print(
            f"{rows} rows, float32: {before:.1f} ms, turned {after:.1f} ms, ratio {before / after:.2f}, "
            f"first factor {swapped:.1f} ms, ratio {before / swapped:.2f}"
        )
        x = tf.cast(x, tf.bfloat16)
        before, after = milliseconds(few_rows, x, kernels, False), milliseconds(few_rows, x, cast, True)
        print(
            f"{rows} rows, float32 kernels cast to bfloat16: {before:.1f} ms, "
            f"cast and turned before {after:.1f} ms, ratio {before / after:.2f}"
        )
    for dtype in (tf.float32, tf.bfloat16):
        stored = [tf.Variable(tf.cast(kernel, dtype)) for kernel in kernels]
        blocks = [tf.Variable(products.in_blocks(kernel)) for kernel in stored]
        turned_too = turned if dtype == tf.float32 else cast
        for rows in (2, 4, 8, 32):
            x = tf.cast(tf.random.normal((rows, 768)), dtype)
            forms = {
                "as they stand": milliseconds(few_rows, x, stored, False),
                "turned": milliseconds(few_rows, x, turned_too, True),
                "first factor": milliseconds(few_rows_swapped, x, turned_too),
                "in blocks": milliseconds(few_rows_blocks, x, blocks),
            }
            print(f"{rows} rows, {dtype.name}: " + ", ".join(f"{k} {v:.1f} ms" for k, v in forms.items()))
    x = tf.random.normal((1, 768))
    int8 = [tf.Variable(tf.cast(100 * kernel, tf.int8)) for kernel in turned]
    for name, each in {"float32": turned, "bfloat16": cast, "int8": int8}.items():
        here = tf.cast(x, tf.bfloat16) if name == "bfloat16" else x
        graph = milliseconds(few_rows, here, turned if name == "int8" else each, True)
        compiled = milliseconds(few_rows_compiled, here, each)
        print(f"1 row, {name}: {graph:.1f} ms, by XLA {compiled:.1f} ms, ratio {graph / compiled:.2f}")
        gains = {size: tf.cast(tf.random.normal((size,)), here.dtype) for size in (768, 3072)}
        fused, apart = (milliseconds(row_compiled, here, each, gains, f) for f in (False, True))
        print(
            f"the same by XLA with norms, heads and biases: fused {fused:.1f} ms, "
            f"apart {apart:.1f} ms, ratio {fused / apart:.2f}"
        )
    several_rows(8)
    for rows in (1, 8):
        logits, probability = 3 * tf.random.normal((rows, 50257)), tf.constant(0.9)
        by_sort, by_bits = (milliseconds(f, logits, probability) for f in (top_p_sorted, top_p))
        print(
            f"top-p of {rows} x 50257: by a sort {by_sort:.1f} ms, by bits {by_bits:.1f} ms, "
            f"ratio {by_sort / by_bits:.2f}"
        )
    batch = tf.constant(8)
    copied, in_place = (milliseconds(written_cache, batch, f) for f in (False, True))
    print(
        f"cache of 8 x 12 x 1024 x 64, 100 steps: copied {copied:.0f} ms, in place {in_place:.0f} ms, "
        f"ratio {copied / in_place:.1f}"
    )
    for dtype in (tf.float32, tf.bfloat16):
        own_gradients(dtype)


if __name__ == "__main__":
    main()
