"""The Transformer in NumPy, float64, written from the papers and sharing no code with tfmodels.

Vaswani et al. 2017, "Attention is all you need"; Radford et al. 2019, GPT-2; Ba et al. 2016, layer
normalisation; Hendrycks & Gimpel 2016, GELU. Loops over batch, heads and positions on purpose.
"""

import math

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x, gamma, beta, epsilon):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def relu(x):
    return np.maximum(x, 0)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def position_code(position, hidden_dim):
    """Section 3.5, one position: (hidden_dim,)."""
    code = np.zeros(hidden_dim)
    for i in range(0, hidden_dim, 2):
        code[i] = math.sin(position / 10000 ** (i / hidden_dim))
        if i + 1 < hidden_dim:
            code[i + 1] = math.cos(position / 10000 ** (i / hidden_dim))
    return code


def linear(x, weights):
    kernel, bias = weights
    return x @ kernel + bias


def multi_head_attention(queries, memory, weights, num_heads, allowed):
    """Section 3.2.2 for one batch.

    queries (b, q, d), memory (b, k, d), weights dict of (kernel, bias) under query, key, value,
    output; allowed(batch, query, key) -> bool. Returns outputs (b, q, d), weights (b, heads, q, k).
    """
    batch, query_length, _ = queries.shape
    key_length = memory.shape[1]
    q, k = linear(queries, weights["query"]), linear(memory, weights["key"])
    v = linear(memory, weights["value"])
    size = q.shape[-1] // num_heads
    heads = np.zeros_like(q)
    all_weights = np.zeros((batch, num_heads, query_length, key_length))
    for b in range(batch):
        for h in range(num_heads):
            part = slice(h * size, (h + 1) * size)
            for i in range(query_length):
                keys = [j for j in range(key_length) if allowed(b, i, j)]
                if not keys:
                    continue
                scores = np.array([q[b, i, part] @ k[b, j, part] for j in keys]) / math.sqrt(size)
                probabilities = softmax(scores)
                all_weights[b, h, i, keys] = probabilities
                heads[b, i, part] = sum(p * v[b, j, part] for p, j in zip(probabilities, keys, strict=True))
    return linear(heads, weights["output"]), all_weights


def block(
    x, weights, num_heads, mask, *, causal, norm_first, activation, epsilon, memory=None, memory_mask=None
):
    """A block of section 3.1 (or GPT-2's pre-norm), with masks of 0 = padding, k = k-th sequence."""

    def may_see(b, i, j):
        return mask[b, i] == mask[b, j] and (j <= i or not causal)

    def may_see_memory(b, i, j):
        return mask[b, i] == memory_mask[b, j]

    def attend(y):
        return multi_head_attention(y, y, weights["attention"], num_heads, may_see)[0]

    def attend_to_memory(y):
        return multi_head_attention(y, memory, weights["cross"], num_heads, may_see_memory)[0]

    def feed_forward(y):
        return linear(activation(linear(y, weights["intermediate"])), weights["output"])

    sublayers = [(attend, "attention_norm")]
    if memory is not None:
        sublayers.append((attend_to_memory, "cross_norm"))
    sublayers.append((feed_forward, "feed_forward_norm"))
    for sublayer, norm in sublayers:
        if norm_first:
            x = x + sublayer(layer_norm(x, *weights[norm], epsilon))
        else:
            x = layer_norm(x + sublayer(x), *weights[norm], epsilon)
    return x


def positions(mask):
    """The position of each token in its own packed sequence."""
    result = np.zeros(mask.shape, int)
    for b in range(mask.shape[0]):
        for i in range(1, mask.shape[1]):
            result[b, i] = result[b, i - 1] + 1 if mask[b, i] == mask[b, i - 1] else 0
    return result


def gpt2(weights, token_ids, mask, num_heads, epsilon):
    x = weights["tokens"][token_ids] + weights["positions"][positions(mask)]
    for layer in weights["blocks"]:
        x = block(
            x,
            layer,
            num_heads,
            mask,
            causal=True,
            norm_first=True,
            activation=gelu_tanh,
            epsilon=epsilon,
        )
    return layer_norm(x, *weights["norm"], epsilon) @ weights["tokens"].T


def transformer(weights, source_ids, source_mask, target_ids, target_mask, num_heads, epsilon, norm_first):
    def embed(table, ids, mask):
        hidden_dim = table.shape[1]
        codes = np.array([[position_code(p, hidden_dim) for p in row] for row in positions(mask)])
        return table[ids] * math.sqrt(hidden_dim) + codes

    options = {"norm_first": norm_first, "activation": relu, "epsilon": epsilon}
    x = embed(weights["source"], source_ids, source_mask)
    for layer in weights["encoder"]:
        x = block(x, layer, num_heads, source_mask, causal=False, **options)
    if norm_first:
        x = layer_norm(x, *weights["encoder_norm"], epsilon)
    y = embed(weights["target"], target_ids, target_mask)
    for layer in weights["decoder"]:
        y = block(
            y,
            layer,
            num_heads,
            target_mask,
            causal=True,
            memory=x,
            memory_mask=source_mask,
            **options,
        )
    if norm_first:
        y = layer_norm(y, *weights["decoder_norm"], epsilon)
    return y @ weights["target"].T


def cross_entropy(logits, labels, weights, label_smoothing):
    """Sums over tokens: smoothed loss, negative log-likelihood, correct (section 5.4)."""
    loss = nll = correct = 0.0
    vocabulary = logits.shape[-1]
    for row, label, weight in zip(
        logits.reshape(-1, vocabulary), labels.ravel(), weights.ravel(), strict=True
    ):
        target = np.full(vocabulary, label_smoothing / vocabulary)
        target[label] += 1 - label_smoothing
        log_probabilities = np.log(softmax(row))
        loss -= weight * (target * log_probabilities).sum()
        nll -= weight * log_probabilities[label]
        correct += weight * (row.argmax() == label)
    return loss, nll, correct
