"""Scores of texts against references."""

import collections
import re
import string

import numpy as np

from tfmodels.evaluation.estimate import bootstrap, check_sampling

TEXT_METRICS = ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match", "f1")


def evaluate_texts(answers, references, metrics=("bleu", "chrf"), resamples=1000, seed=0):
    """Scores answers, all from 0 to 100.

    BLEU and chrF are of the whole corpus, by sacrebleu with its defaults; ROUGE is rouge-score's F-measure
    without stemming; exact match and F1 are those of SQuAD 1.1, without case, punctuation and articles.
    Of several references ROUGE, exact match and F1 take the best.

    Args:
        answers: list of str.
        references: list of str, or of lists of str where an answer has several.
        metrics: names out of `bleu`, `chrf`, `rouge1`, `rouge2`, `rougeL`, `exact_match`, `f1`.
        resamples: int, samples of the bootstrap.
        seed: int, of the bootstrap.

    Returns:
        Dict of metric -> `Estimate`.

    Raises:
        ValueError: an unknown metric, no answers, or another number of references.
        ImportError: ROUGE without the package rouge-score.

    Example:
        >>> tfmodels.evaluation.evaluate_texts(["a cat"], [["the cat", "a cat"]], ["exact_match"])
    """
    check_sampling(resamples)
    answers = list(answers)
    references = [[each] if isinstance(each, str) else list(each) for each in references]
    _check(answers, references, metrics)
    found = {}
    for name in metrics:
        if name in ("bleu", "chrf"):
            statistics, score = _corpus_statistics(name, answers, references)
            found[name] = bootstrap(statistics, score, resamples, seed)
        else:
            measure = _measure(name)
            best = [
                max(measure(a, r) for r in several) for a, several in zip(answers, references, strict=True)
            ]
            found[name] = bootstrap(
                np.array([[100.0 * value, 1.0] for value in best]),
                lambda s: s[..., 0] / s[..., 1],
                resamples,
                seed,
            )
    return found


def _check(answers, references, metrics):
    for name in metrics:
        if name not in TEXT_METRICS:
            raise ValueError(f"metrics must be among {', '.join(TEXT_METRICS)}. Received: {name!r}.")
    if not answers or len(answers) != len(references):
        raise ValueError(
            "There must be an answer for each reference, and at least one. "
            f"Received: {len(answers)} answers, {len(references)} references."
        )
    for i, several in enumerate(references):
        if not several:
            raise ValueError(f"Each answer must have a reference. Received: none for number {i}.")
    if any(name.startswith("rouge") for name in metrics):
        try:
            import rouge_score  # noqa: F401
        except ImportError as error:
            raise ImportError("ROUGE needs rouge-score. Run pip install rouge-score.") from error


def _corpus_statistics(name, answers, references):
    """Numbers a text whose sums have the score of the corpus, and the score."""
    from sacrebleu.metrics import BLEU, CHRF

    if name == "bleu":
        metric = BLEU(effective_order=False)
        rows = []
        for answer, several in zip(answers, references, strict=True):
            one = metric.corpus_score([answer], [[reference] for reference in several])
            rows.append([one.sys_len, one.ref_len, *one.counts, *one.totals])

        def score(sums):
            flat = sums.reshape(-1, sums.shape[-1]).astype(int).tolist()
            orders = (sums.shape[-1] - 2) // 2
            scores = [
                metric.compute_bleu(
                    row[2 : 2 + orders], row[2 + orders :], row[0], row[1], smooth_method="exp"
                )
                for row in flat
            ]
            return np.array([one.score for one in scores]).reshape(sums.shape[:-1])

        return np.array(rows), score
    metric = CHRF()
    order, beta = metric.char_order, metric.beta
    rows = [
        max((_character_matches(a, r, order) for r in several), key=lambda row: _chrf(row[None], beta)[0])
        for a, several in zip(answers, references, strict=True)
    ]
    return np.array(rows), lambda sums: _chrf(np.atleast_2d(sums), beta).reshape(sums.shape[:-1])


def _character_matches(answer, reference, order):
    """Counts of n-grams of characters without spaces, (3 * order,): in the answer, the reference, both."""
    found = []
    texts = ["".join(text.split()) for text in (answer, reference)]
    for n in range(1, order + 1):
        grams = [collections.Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in texts]
        counts = [sum(gram.values()) for gram in grams]
        # sacrebleu counts nothing in the answer where the reference has no such n-gram.
        found += [counts[0] if counts[1] else 0, counts[1], sum((grams[0] & grams[1]).values())]
    return np.array(found)


def _chrf(sums, beta):
    """chrF (Popovic 2015) of summed counts, (..., 3 * order), over the orders that both texts have."""
    answer, reference, both = (sums[..., i::3].astype(np.float64) for i in range(3))
    used = (answer > 0) & (reference > 0)
    orders = np.maximum(used.sum(axis=-1), 1)
    precision = np.where(used, both / np.maximum(answer, 1), 0).sum(axis=-1) / orders
    recall = np.where(used, both / np.maximum(reference, 1), 0).sum(axis=-1) / orders
    bottom = beta**2 * precision + recall
    return 100 * (1 + beta**2) * precision * recall / np.where(bottom > 0, bottom, 1)


def _measure(name):
    """A function from answer and reference to a number between 0 and 1."""
    if name == "exact_match":
        return lambda answer, reference: float(_squad_words(answer) == _squad_words(reference))
    if name == "f1":
        return _word_f1
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name])
    return lambda answer, reference: scorer.score(reference, answer)[name].fmeasure


def _squad_words(text):
    """Words without case, punctuation and English articles, as SQuAD's evaluation has it."""
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _word_f1(answer, reference):
    answer, reference = _squad_words(answer), _squad_words(reference)
    if not answer or not reference:
        return float(answer == reference)
    same = sum((collections.Counter(answer) & collections.Counter(reference)).values())
    return 2 * same / (len(answer) + len(reference))
