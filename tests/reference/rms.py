"""The block of T5 and Llama in NumPy, float64, written from the papers and sharing no code with tfmodels.

Zhang & Sennrich 2019, RMS normalisation; Su et al. 2021, rotary positions; Ainslie et al. 2023,
grouped queries; Shazeer 2020, gated feed-forward networks; Raffel et al. 2020, relative positions.
"""

import math

import numpy as np

from tests.reference.transformer import softmax


def rms_norm(x, gamma, epsilon):
    return gamma * x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)


def silu(x):
    return x / (1 + np.exp(-x))


def rotated(vector, position, base):
    """Su et al. section 3.4.2 for one head's vector, as complex numbers; the pairs are (i, i + h / 2)."""
    half = len(vector) // 2
    turned = (vector[:half] + 1j * vector[half:]) * np.exp(
        1j * position * np.array([base ** (-2 * i / len(vector)) for i in range(half)])
    )
    return np.concatenate([turned.real, turned.imag])


def bucket(distance, num_buckets, max_distance, bidirectional):
    """Raffel et al. section 2.1: half of the buckets for one distance each, then logarithmic ones.

    distance = key position - query position.
    """
    if bidirectional:
        half = num_buckets // 2
        return (half if distance > 0 else 0) + bucket(-abs(distance), half, max_distance, False)
    distance = max(-distance, 0)
    exact = num_buckets // 2
    if distance < exact:
        return distance
    part = math.log(distance / exact) / math.log(max_distance / exact)
    return min(exact + int(part * (num_buckets - exact)), num_buckets - 1)


def attention(
    x, kernels, num_heads, groups, allowed, *, positions=None, base=None, bias=None, scale=None, memory=None
):
    """x (b, l, d); kernels dict; `groups` heads of keys. bias (heads, l, l) is added to the scores.

    Keys and values are of memory (b, k, d), or of x itself.
    """
    memory = x if memory is None else memory
    q, k, v = x @ kernels["query"], memory @ kernels["key"], memory @ kernels["value"]
    size = q.shape[-1] // num_heads
    scale = 1 / math.sqrt(size) if scale is None else scale
    heads = np.zeros_like(q)
    for b in range(len(x)):
        for h in range(num_heads):
            part = slice(h * size, (h + 1) * size)
            g = h * groups // num_heads
            shared = slice(g * size, (g + 1) * size)

            def turned(vector, i, b=b):
                return vector if base is None else rotated(vector, positions[b, i], base)

            for i in range(x.shape[1]):
                keys = [j for j in range(memory.shape[1]) if allowed(b, i, j)]
                if not keys:
                    continue
                scores = [turned(q[b, i, part], i) @ turned(k[b, j, shared], j) * scale for j in keys]
                if bias is not None:
                    scores = [s + bias[h, i, j] for s, j in zip(scores, keys, strict=True)]
                weights = softmax(np.array(scores))
                heads[b, i, part] = sum(w * v[b, j, shared] for w, j in zip(weights, keys, strict=True))
    return heads @ kernels["output"]


def gated(x, kernels, activation):
    return (activation(x @ kernels["gate"]) * (x @ kernels["intermediate"])) @ kernels["output"]


def rotary_frequencies(size, base, factor=1.0, low=None, high=None, length=None):
    """Radians a position: Su et al. section 3.4.2, slowed as Chen et al. 2023 or as Llama 3.1 does."""
    result = []
    for i in range(0, size, 2):
        frequency = 1 / base ** (i / size)
        wave_length = 2 * math.pi / frequency
        if low is None or wave_length > length / low:
            frequency = frequency / factor
        elif wave_length >= length / high:
            smooth = (length / wave_length - low) / (high - low)
            frequency = (1 - smooth) * frequency / factor + smooth * frequency
        result.append(frequency)
    return result


def llama_attention(
    x, projections, num_heads, groups, allowed, positions, frequencies, norms=None, epsilon=0
):
    """x (b, l, d); projections are the (kernel, bias) of query, key, value and output."""
    q, k, v = (x @ kernel + bias for kernel, bias in projections[:3])
    batch, length, _ = x.shape
    q = q.reshape(batch, length, num_heads, -1)
    k, v = (part.reshape(batch, length, groups, -1) for part in (k, v))
    if norms is not None:
        q, k = rms_norm(q, norms[0], epsilon), rms_norm(k, norms[1], epsilon)
    half = q.shape[-1] // 2

    def turned(vector, position):
        z = (vector[:half] + 1j * vector[half:]) * np.exp(1j * position * np.array(frequencies))
        return np.concatenate([z.real, z.imag])

    heads = np.zeros_like(q)
    for b in range(batch):
        for h in range(num_heads):
            g = h * groups // num_heads
            for i in range(length):
                keys = [j for j in range(length) if allowed(b, i, j)]
                query = turned(q[b, i, h], positions[b, i])
                scores = [query @ turned(k[b, j, g], positions[b, j]) for j in keys]
                weights = softmax(np.array(scores) / math.sqrt(2 * half))
                heads[b, i, h] = sum(w * v[b, j, g] for w, j in zip(weights, keys, strict=True))
    kernel, bias = projections[3]
    return heads.reshape(batch, length, -1) @ kernel + bias
