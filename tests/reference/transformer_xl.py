"""Transformer-XL in NumPy, float64, written from Dai et al. 2019 and sharing no code with tfmodels.

Section 3.2 (segments and memory), 3.3 (relative positions, four terms); Grave et al. 2017 (adaptive
softmax). No shift, no cache: every score is computed from its own distance, one by one.
"""

import math

import numpy as np

from tests.reference.transformer import layer_norm, linear, relu, softmax


def distance_code(distance, hidden_dim, clamp=None):
    """R of section 3.3, sines in the first half and cosines in the second, as the authors' code."""
    distance = distance if clamp is None else min(distance, clamp)
    angles = [distance / 10000 ** (2 * i / hidden_dim) for i in range(hidden_dim // 2)]
    return np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def attention(queries, keys, weights, visible, num_heads, clamp=None):
    """Section 3.3 for one row.

    queries (q, d); keys (k, d), whatever is seen at all; visible: for each query the list of pairs
    (index in keys, distance). Returns (q, d).
    """
    u, v = weights["biases"]  # (n, h)
    size = u.shape[1]
    result = np.zeros((len(queries), num_heads * size))
    for i, query in enumerate(queries):
        for n in range(num_heads):
            part = slice(n * size, (n + 1) * size)
            q = query @ weights["query"][:, part]
            scores = []
            for j, distance in visible[i]:
                k = keys[j] @ weights["key"][:, part]
                r = distance_code(distance, queries.shape[1], clamp) @ weights["position"][:, part]
                scores.append((q @ k + q @ r + u[n] @ k + v[n] @ r) / math.sqrt(size))  # (a) to (d)
            values = np.array([keys[j] @ weights["value"][:, part] for j, _ in visible[i]])
            result[i, part] = softmax(np.array(scores)) @ values
    return result @ weights["output"]


def hidden_states(weights, ids, visible, config):
    """All tokens of one row at once, each seeing what `visible` lists; index -1 is a vector of zeros."""
    x = embed(weights, ids, config)
    for layer in weights["blocks"]:

        def sublayer(x, norm, compute, layer=layer):
            if config.norm_first:
                return x + compute(layer_norm(x, *layer[norm], config.norm_epsilon))
            return layer_norm(x + compute(x), *layer[norm], config.norm_epsilon)

        def attend(y, layer=layer):
            zero = np.zeros((1, y.shape[1]))
            if config.norm_first:
                zero = layer_norm(zero, *layer["attention_norm"], config.norm_epsilon)
            keys = np.concatenate([y, zero])
            return attention(y, keys, layer, visible, config.num_heads, config.clamp_length)

        def feed_forward(y, layer=layer):
            return linear(relu(linear(y, layer["intermediate"])), layer["inner_output"])

        x = sublayer(x, "attention_norm", attend)
        x = sublayer(x, "feed_forward_norm", feed_forward)
    return x


def visible_keys(lengths, config):
    """What each token of a row sees that is fed in segments of `lengths` tokens: section 3.2."""
    visible, begin, memory = [], 0, config.memory_length or 0
    for length in lengths:
        for i in range(begin, begin + length):
            oldest = i - memory + 1 if config.same_length else begin - memory
            pairs = [(j, i - j) for j in range(max(oldest, 0), i + 1)]
            if config.zero_memory:
                pairs += [(-1, i - j) for j in range(oldest, 0)]
            visible.append(pairs)
        begin += length
    return visible


def clusters(config):
    bounds = [0, *config.cutoffs, config.vocabulary_size]
    return list(zip(bounds, bounds[1:], strict=False))


def embed(weights, ids, config):
    rows = []
    for word in ids:
        for c, (low, high) in enumerate(clusters(config)):
            if low <= word < high:
                shared = config.divisor == 1
                vector = weights["tables"][0][word] if shared else weights["tables"][c][word - low]
                if weights["projections"]:
                    vector = weights["projections"][0 if shared else c] @ vector
                rows.append(vector * math.sqrt(config.hidden_dim))
    return np.array(rows)


def log_probabilities(weights, hidden, config):
    """(l, v): the probability of a word is its cluster's times its own in the cluster."""
    result = np.zeros((len(hidden), config.vocabulary_size))
    shared, cuts = config.divisor == 1, clusters(config)
    for row, x in enumerate(hidden):
        for c, (low, high) in enumerate(cuts):
            words = slice(low, high) if shared else slice(None)
            table = weights["output_tables"][0 if shared else c][words]
            bias = weights["output_biases"][0 if shared else c][words]
            own = weights["output_projections"]
            inner = x
            if own:
                tied = c > 0 and config.tie_projections
                inner = x @ (weights["projections"][0 if shared else c] if tied else own[c])
            logits = table @ inner + bias
            if c == 0:
                extra = [k @ inner + b for k, b in weights["clusters"]]
                first = softmax(np.concatenate([logits, extra]))
                result[row, low:high] = np.log(first[: high - low])
            else:
                result[row, low:high] = np.log(softmax(logits)) + np.log(first[cuts[0][1] + c - 1])
    return result


def transformer_xl(weights, ids, lengths, config):
    """Log-probabilities of one row, (l, v), fed in segments of `lengths` tokens."""
    hidden = hidden_states(weights, ids, visible_keys(lengths, config), config)
    return log_probabilities(weights, hidden, config)
