"""The loss over the vocabulary, computed block by block so that whole logits never exist.

Shape letters: r rows (tokens), d hidden_dim, v vocabulary.
"""

import numpy as np
import tensorflow as tf

from tfmodels.layers._kernels import is_for_xla
from tfmodels.training.errors import check_targets

# 512 rows x 50k words x 4 bytes = 100 MB a tensor. More rows are no faster, fewer make bfloat16 slower.
_BLOCK_ROWS = 512


def vocabulary_loss(
    hidden, kernel, labels, weights, bias=None, label_smoothing=0.0, z_loss=0.0, differentiable=True
):
    """Weighted sums of cross-entropy over the vocabulary, without the logits of all rows at once.

    The gradients are computed in the forward pass, while a block's logits are at hand, and only
    scaled in the backward pass: one product with the kernel less than recomputing.

    Args:
        hidden: float tensor, (rows, hidden_dim).
        kernel: float tensor, (vocabulary, hidden_dim), as an embedding has it.
        labels: int tensor, (rows,).
        weights: float32 tensor, (rows,); rows of weight 0 are skipped.
        bias: float tensor, (vocabulary,), added to the logits; None: none.
        label_smoothing: float, s in the target `(1 - s) * one_hot + s / vocabulary` (Szegedy et
            al. 2016, section 7).
        z_loss: float, times the square of the logits' log-normaliser, added to the loss of a row: it
            keeps logits from drifting away (Chowdhery et al. 2022, section 5).
        differentiable: whether to compute gradients; False saves their time in evaluation.

    Returns:
        A tuple of float32 scalars, sums over rows times their weights: the loss, the negative
        log-likelihood in nats, and the rows whose most probable word is the label. Only the loss
        has a gradient.

    Raises:
        InvalidArgumentError: a label of a row that counts is outside the vocabulary. Compiled by XLA,
            which reports nothing from within a step, the sums and gradients are NaN instead.
    """
    if is_for_xla():  # it must know all sizes, so no row is left out
        outside = (labels < 0) | (labels >= kernel.shape[0])
        labels = tf.where(outside, tf.zeros_like(labels), labels)
        weights = tf.where(outside & (weights != 0), np.nan, weights)
    else:
        kept = tf.where(weights != 0)[:, 0]
        hidden, labels, weights = (tf.gather(x, kept) for x in (hidden, labels, weights))
        labels = check_targets(labels, kernel.shape[0])
    if bias is not None:
        # A bias is the weight of one more input that is always 1: no rule below needs to know of it.
        hidden = tf.concat([hidden, tf.ones_like(hidden[:, :1])], axis=1)  # (r, d + 1)
        kernel = tf.concat([kernel, tf.cast(bias, kernel.dtype)[:, None]], axis=1)  # (v, d + 1)

    def summed(hidden, kernel):
        """The sums, and the gradients of the loss, (r, d) and (v, d), if there are to be any."""
        over_blocks = _over_equal_blocks if is_for_xla() else _over_blocks
        sums, grads = over_blocks(hidden, kernel, labels, weights, z_loss, differentiable)
        loss, nll, correct = tf.unstack(sums)
        if label_smoothing:
            added, grads = _smooth(hidden, kernel, labels, weights * label_smoothing, grads)
            loss = loss + added
        return (loss, nll, correct), grads

    @tf.custom_gradient
    def summed_with_gradient(hidden, kernel):
        sums, (hidden_grad, kernel_grad) = summed(hidden, kernel)

        def gradient(loss_grad, *_):
            return (
                tf.cast(hidden_grad * loss_grad, hidden.dtype),
                tf.cast(kernel_grad * loss_grad, kernel.dtype),
            )

        return sums, gradient

    return summed_with_gradient(hidden, kernel) if differentiable else summed(hidden, kernel)[0]


def _over_blocks(hidden, kernel, labels, weights, z_loss, differentiable):
    """Runs `_block` over the rows: sums (3,) and the gradients, if any, (r, d) and (v, d)."""
    rows = tf.shape(hidden)[0]
    # At least one block, so that a batch without any target is a loss of 0 and not an error.
    blocks = tf.maximum((rows + _BLOCK_ROWS - 1) // _BLOCK_ROWS, 1)

    def body(i, sums, hidden_grads, kernel_grad):
        part = slice(i * _BLOCK_ROWS, (i + 1) * _BLOCK_ROWS)
        block_sums, *grads = _block(hidden[part], kernel, labels[part], weights[part], z_loss, differentiable)
        if differentiable:
            hidden_grads = hidden_grads.write(i, grads[0])
            # Sums in float32: a vocabulary's gradient is a sum over thousands of rows.
            kernel_grad = grads[1] if kernel_grad is None else kernel_grad + grads[1]
        return i + 1, sums + block_sums, hidden_grads, kernel_grad

    grads = tf.TensorArray(tf.float32, blocks, element_shape=(None, hidden.shape[-1]), infer_shape=False)
    # The first block stands before the loop: no zeros, as large as the vocabulary, to add to.
    _, *first = body(0, tf.zeros(3), grads, None if differentiable else ())
    with tf.control_dependencies([first[-1] if differentiable else first[0]]):
        start = tf.constant(1)  # else the second block would be held beside the first
    _, sums, hidden_grads, kernel_grad = tf.while_loop(
        lambda i, *_: i < blocks, body, (start, *first), parallel_iterations=1
    )
    return sums, (hidden_grads.concat(), tf.transpose(kernel_grad)) if differentiable else None


def _over_equal_blocks(hidden, kernel, labels, weights, z_loss, differentiable):
    """As `_over_blocks`, in operations that XLA has: blocks of one size, gradients in one tensor."""
    rows = tf.shape(hidden)[0]
    hidden, labels, weights = (in_blocks(x, _BLOCK_ROWS) for x in (hidden, labels, weights))

    def body(i, sums, hidden_grads, kernel_grad):
        part = (tf.gather(hidden, i), kernel, tf.gather(labels, i), tf.gather(weights, i))
        block_sums, *grads = _block(*part, z_loss, differentiable)
        if differentiable:
            hidden_grads = tf.tensor_scatter_nd_update(hidden_grads, [[i]], grads[0][None])
            kernel_grad = kernel_grad + grads[1]
        return i + 1, sums + block_sums, hidden_grads, kernel_grad

    grads = (), ()
    if differentiable:
        grads = tf.zeros_like(hidden, tf.float32), tf.zeros(kernel.shape[::-1])
    _, sums, *grads = tf.while_loop(
        lambda i, *_: i < tf.shape(hidden)[0], body, (tf.constant(0), tf.zeros(3), *grads)
    )
    if not differentiable:
        return sums, None
    return sums, (tf.reshape(grads[0], (-1, hidden.shape[-1]))[:rows], tf.transpose(grads[1]))


def in_blocks(rows, most):
    """Rows, (r, ...), as (blocks, rows a block, ...) at most `most` in each; the last is filled up with 0."""
    count = tf.shape(rows)[0]
    block_rows = tf.clip_by_value(count, 1, most)
    blocks = tf.maximum((count + block_rows - 1) // block_rows, 1)
    padding = [[0, blocks * block_rows - count]] + [[0, 0]] * (rows.shape.rank - 1)
    return tf.reshape(tf.pad(rows, padding), (blocks, block_rows, *rows.shape[1:]))


def _block(hidden, kernel, labels, weights, z_loss, differentiable):
    """One block's sums and, if differentiable, the gradients of its loss, (r, d) and (d, v)."""
    logits = tf.cast(tf.matmul(hidden, kernel, transpose_b=True), tf.float32)  # (r, v)
    # oneDNN's softmax, and the normaliser read off it: a third of the time of the fused cross-entropy op
    # on a CPU, and as exact.
    probabilities = tf.nn.softmax(logits)  # (r, v)
    log_normaliser, correct = _read_off(logits, probabilities, labels)
    nll = log_normaliser - tf.gather(logits, labels, batch_dims=1)  # (r,)
    loss = nll + z_loss * tf.square(log_normaliser) if z_loss else nll
    grads = ()
    if differentiable:
        if z_loss:
            probabilities = probabilities * (1.0 + 2.0 * z_loss * log_normaliser)[:, None]
        target = tf.stack([tf.range(tf.shape(labels)[0]), tf.cast(labels, tf.int32)], axis=1)
        # One-hot subtracted before rounding to bfloat16: confident rows have tiny differences.
        if is_for_xla():
            error = tf.tensor_scatter_nd_sub(probabilities, target, tf.ones_like(nll))
        else:
            with tf.control_dependencies([nll]):
                # In place, once nothing else reads the probabilities; XLA has no such op.
                error = tf.raw_ops.ScatterNdNonAliasingAdd(
                    input=probabilities, indices=target, updates=-tf.ones_like(weights)
                )
        error = tf.cast(error, hidden.dtype)  # (r, v): softmax - one_hot
        weighted = hidden * tf.cast(weights, hidden.dtype)[:, None]
        hidden_grad = tf.cast(tf.matmul(error, kernel), tf.float32) * weights[:, None]  # (r, d)
        # Of this form oneDNN makes the product in four fifths of the time of the other, in bfloat16.
        kernel_grad = tf.cast(tf.matmul(weighted, error, transpose_a=True), tf.float32)  # (d, v)
        grads = (hidden_grad, kernel_grad)
    sums = tf.stack([tf.reduce_sum(x * weights) for x in (loss, nll, correct)])
    return sums, *grads


def _smooth(hidden, kernel, labels, weights, grads):
    """What label smoothing adds to the loss, and `grads` with its share; `weights` are times the smoothing.

    With z the logits, z[label] - mean(z): linear in hidden, so it needs no pass over the vocabulary.
    """
    hidden32, kernel32 = tf.cast(hidden, tf.float32), tf.cast(kernel, tf.float32)
    direction = tf.gather(kernel32, labels) - tf.reduce_mean(kernel32, axis=0)  # (r, d)
    added = tf.reduce_sum(weights * tf.reduce_sum(hidden32 * direction, axis=-1))
    if grads is not None:
        weighted = hidden32 * weights[:, None]
        mean = tf.reduce_sum(weighted, axis=0) / tf.cast(tf.shape(kernel)[0], tf.float32)
        kernel_grad = tf.tensor_scatter_nd_add(grads[1] - mean, labels[:, None], weighted)
        grads = grads[0] + direction * weights[:, None], kernel_grad
    return added, grads


def _read_off(logits, probabilities, labels):
    """The log-normaliser of each row, and 1.0 where the label is the most probable word, both (r,).

    The normaliser follows from any entry whose probability has not vanished, such as the label's. So only
    rows where it has, or where no logit is above the label's, need a pass for their most probable word.
    """
    if is_for_xla():  # which makes both in one pass
        best = tf.argmax(logits, axis=-1, output_type=labels.dtype)
        return tf.reduce_logsumexp(logits, axis=-1), tf.cast(best == labels, tf.float32)
    label_logits = tf.gather(logits, labels, batch_dims=1)
    label_probabilities = tf.gather(probabilities, labels, batch_dims=1)
    rows = tf.where((label_probabilities < 1e-30) | tf.math.in_top_k(labels, logits, 1))[:, 0]
    # At equal logits the first word counts, as for `tf.argmax` elsewhere.
    best = tf.argmax(tf.gather(logits, rows), axis=-1, output_type=tf.int64)
    places = tf.stack([rows, best], axis=1)
    log_normaliser = tf.tensor_scatter_nd_update(
        label_logits - tf.math.log(label_probabilities),
        rows[:, None],
        tf.gather_nd(logits, places) - tf.math.log(tf.gather_nd(probabilities, places)),
    )
    found = tf.cast(best == tf.cast(tf.gather(labels, rows), tf.int64), tf.float32)
    return log_normaliser, tf.tensor_scatter_nd_update(tf.zeros_like(label_logits), rows[:, None], found)
