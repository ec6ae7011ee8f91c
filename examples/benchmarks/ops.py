"""What two choices of tfmodels rest on, measured: python examples/benchmarks/ops.py

Rows flattened before a Dense layer against a three-dimensional product, and the fused sparse
cross-entropy op against softmax and arg max. Prints medians of 15 runs after a warm-up, and ratios.
"""

import statistics
import time

import tensorflow as tf


def milliseconds(function, *arguments):
    """The median of 15 runs of a traced function, in milliseconds."""
    traced = tf.function(function)
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


def main():
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


if __name__ == "__main__":
    main()
