"""What a trained translation model has to beat."""

import collections

import numpy as np


def dictionary_translate(train_pairs, sources, iterations=5):
    """Word for word, each by its most probable translation in the training pairs.

    The probabilities are IBM model 1's (Brown et al. 1993, section 4.1), learnt by expectation
    maximisation. An unknown word is copied.

    Args:
        train_pairs: list of (source, target) strings.
        sources: list of str.
        iterations: int, of expectation maximisation.

    Returns:
        List of str.
    """
    source_ids, target_ids = _Ids(), _Ids()
    source_words, target_words, sentence, tokens = [], [], [], 0
    for source, target in train_pairs:
        left = np.array([source_ids[word] for word in source.split()])
        right = np.array([target_ids[word] for word in target.split()])
        source_words.append(np.tile(left, len(right)))
        target_words.append(np.repeat(right, len(left)))
        # Number each target token: its probability is shared among the words of its source.
        sentence.append(np.repeat(np.arange(len(right)) + tokens, len(left)))
        tokens += len(right)
    pair_keys = np.concatenate(source_words) * len(target_ids) + np.concatenate(target_words)
    keys, pair = np.unique(pair_keys, return_inverse=True)
    token = np.concatenate(sentence)
    key_source = keys // len(target_ids)
    probability = np.ones(len(keys))
    for _ in range(iterations):
        share = probability[pair]
        share /= np.bincount(token, weights=share)[token]
        counts = np.bincount(pair, weights=share)
        probability = counts / np.bincount(key_source, weights=counts)[key_source]
    best = {}
    targets = list(target_ids)
    words = list(source_ids)
    for i in np.argsort(probability):  # ascending: the last one written is the best
        best[words[key_source[i]]] = targets[keys[i] % len(target_ids)]
    return [" ".join(best.get(word, word) for word in source.split()) for source in sources]


class _Ids(collections.defaultdict):
    """Numbers words in the order of their coming."""

    def __missing__(self, word):
        self[word] = len(self)
        return self[word]
