"""The loss of an adaptive softmax. Shape letters: r rows (tokens), e a cluster's vector size, v words."""

import tensorflow as tf

from tfmodels.layers._kernels import is_for_xla
from tfmodels.training.losses import in_blocks, vocabulary_loss

_BLOCK_ROWS = 1024


def adaptive_loss(parts, weights, differentiable=True):
    """Weighted sums of cross-entropy under an adaptive softmax, without whole logits.

    Grave et al. 2017, section 4: a word's probability is that of its cluster times its own inside
    the cluster, so a cluster's softmax is needed for the rows with a label there only.

    Args:
        parts: list of (rows, kernel, bias, labels, inside), a cluster each: float tensors (rows, e),
            (words, e), (words,); int labels in the cluster's kernel, (rows,); boolean, (rows,),
            whose label is in the cluster. The first cluster's kernel holds its words and then the
            other clusters, and its labels name either.
        weights: float32 tensor, (rows,); rows of weight 0 are skipped.
        differentiable: whether to compute gradients.

    Returns:
        A tuple of float32 scalars, sums over rows times their weights: the loss, the same again as
        negative log-likelihood in nats, and the rows whose label is the most probable in its
        cluster, and the cluster in the first softmax. With clusters this counts a little less than
        the most probable words.
    """
    rows, kernel, bias, labels, inside = parts[0]
    rows, kernel = _with_bias(rows, kernel, bias)

    def score(rows, kernel, labels, weights):
        return vocabulary_loss(rows, kernel, labels, weights, differentiable=differentiable)

    if len(parts) == 1:
        return score(rows, kernel, labels, weights)
    loss, nll, correct = score(rows, kernel, labels, weights * tf.cast(inside, tf.float32))
    found = _found(rows, kernel, labels, ~inside & (weights != 0))
    # The first softmax of the rows outside: their cluster's probability.
    cluster_loss, cluster_nll, _ = score(rows, kernel, labels, weights * tf.cast(~inside, tf.float32))
    loss, nll = loss + cluster_loss, nll + cluster_nll
    for rows, kernel, bias, labels, inside in parts[1:]:
        rows, kernel = _with_bias(rows, kernel, bias)
        here = weights * tf.cast(inside, tf.float32)
        for share, counts in ((found, 1.0), (1.0 - found, 0.0)):
            part_loss, part_nll, part_correct = score(rows, kernel, labels, here * share)
            loss, nll, correct = loss + part_loss, nll + part_nll, correct + counts * part_correct
    return loss, nll, correct


def _with_bias(rows, kernel, bias):
    """The bias as the weight of one more input that is always 1."""
    rows = tf.concat([rows, tf.ones_like(rows[:, :1])], axis=1)  # (r, e + 1)
    return rows, tf.concat([kernel, bias[:, None]], axis=1)  # (v, e + 1)


def _found(rows, kernel, labels, outside):
    """1.0 where the most probable word is the label, of the rows outside, float32 (r,)."""
    labels = tf.cast(labels, tf.int32)
    if is_for_xla():  # it must know all sizes, so no row is left out
        return tf.cast(outside & (_most_probable(rows, kernel) == labels), tf.float32)
    outside = tf.where(outside)[:, 0]
    best = _most_probable(tf.gather(rows, outside), kernel)
    found = tf.cast(best == tf.gather(labels, outside), tf.float32)
    return tf.scatter_nd(outside[:, None], found, tf.shape(rows, tf.int64)[:1])


def _most_probable(rows, kernel):
    """The word of the largest logit in each row, int32 (r,), a block of rows at a time."""

    def best_of(rows):
        return tf.argmax(tf.matmul(rows, kernel, transpose_b=True), axis=-1, output_type=tf.int32)

    count = tf.shape(rows)[0]
    if is_for_xla():
        best = tf.map_fn(best_of, in_blocks(rows, _BLOCK_ROWS), fn_output_signature=tf.int32)
        return tf.reshape(best, (-1,))[:count]
    blocks = tf.maximum((count + _BLOCK_ROWS - 1) // _BLOCK_ROWS, 1)
    best = tf.TensorArray(tf.int32, blocks, element_shape=(None,), infer_shape=False)

    def body(i, best):
        return i + 1, best.write(i, best_of(rows[i * _BLOCK_ROWS : (i + 1) * _BLOCK_ROWS]))

    return tf.while_loop(lambda i, _: i < blocks, body, (0, best), parallel_iterations=1)[1].concat()
