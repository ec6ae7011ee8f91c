"""Scores against sacrebleu, SQuAD's rules by hand, and intervals against theory."""

import sys
import types

import numpy as np
import pytest
import sacrebleu

from tfmodels import datasets
from tfmodels.evaluation import evaluate_log_likelihoods, evaluate_texts
from tfmodels.evaluation.estimate import bootstrap


@pytest.fixture(scope="module")
def corpus():
    """References, and answers that leave words out; an empty one and a short one."""
    rng = np.random.default_rng(0)
    references = [target for _, target in datasets.load("mt_enes_bible", "test")[:60]]
    answers = [" ".join(word for word in text.split() if rng.random() < 0.8) for text in references]
    answers[3], answers[4] = "", "x"
    return answers, references, [references[i] for i in rng.permutation(60)]


def test_corpus_scores(corpus):
    answers, references, others = corpus
    one = evaluate_texts(answers, references, ("bleu", "chrf"))
    two = evaluate_texts(answers, list(zip(references, others, strict=True)), ("bleu", "chrf"), resamples=10)
    for found, streams in ((one, [references]), (two, [references, others])):
        assert abs(found["bleu"].value - sacrebleu.corpus_bleu(answers, streams).score) < 1e-9
        assert abs(found["chrf"].value - sacrebleu.corpus_chrf(answers, streams).score) < 1e-9
    # sacrebleu's own bootstrap of 1000, from other random numbers.
    for name, metric in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        half = metric.corpus_score(answers, [references], n_bootstrap=1000)._ci
        assert abs((one[name].high - one[name].low) / 2 - half) < 0.15 * half


def test_squad_scores():
    answers = ["The cat, sat!", "dog", "", "no"]
    references = [["a cat sat", "x"], ["big dog"], [""], ["yes"]]
    found = evaluate_texts(answers, references, ("exact_match", "f1"))
    assert found["exact_match"].value == 50.0
    np.testing.assert_allclose(found["f1"].value, 100 * (1 + 2 / 3 + 1 + 0) / 4)


def test_interval():
    """Of a mean of normal numbers: 1.96 standard errors to each side."""
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    rows = np.stack([values, np.ones(400)], axis=1)
    found = bootstrap(rows, lambda sums: sums[..., 0] / sums[..., 1], 4000, seed=0)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose(
        [found.value, found.low, found.high],
        [values.mean(), values.mean() - half, values.mean() + half],
        atol=0.02,
    )
    assert found == bootstrap(rows, lambda sums: sums[..., 0] / sums[..., 1], 4000, seed=0)


def test_likelihoods():
    found = evaluate_log_likelihoods([-2.0, -4.0], [2, 1], [5, 3])
    np.testing.assert_allclose(found["perplexity"].value, np.exp(2.0))
    np.testing.assert_allclose(found["bits_per_byte"].value, 6 / np.log(2) / 8)
    assert found["perplexity"].low == pytest.approx(np.e) and found["perplexity"].high == pytest.approx(
        np.e**4
    )
    with pytest.raises(ValueError, match="of the same texts"):
        evaluate_log_likelihoods([-1.0], [1, 2], [3])


def test_rouge(monkeypatch):
    """Asks rouge-score, reference first, and takes the best reference; says how to get it."""
    scorer = types.ModuleType("rouge_score.rouge_scorer")

    class RougeScorer:
        def __init__(self, names):
            self.name = names[0]

        def score(self, target, prediction):
            return {self.name: types.SimpleNamespace(fmeasure=len(target) / 10 + len(prediction) / 100)}

    scorer.RougeScorer = RougeScorer
    monkeypatch.setitem(sys.modules, "rouge_score", types.ModuleType("rouge_score"))
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", scorer)
    assert evaluate_texts(["ab"], [["c", "def"]], ["rougeL"])["rougeL"].value == pytest.approx(32.0)
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    with pytest.raises(ImportError, match="pip install"):
        evaluate_texts(["ab"], ["ab"], ["rouge1"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((["a"], ["a"], ["blue"]), "metrics must be among bleu, .* Received: 'blue'"),
        (([], []), "Received: 0 answers, 0 references"),
        ((["a"], ["a", "b"]), "Received: 1 answers, 2 references"),
        ((["a"], [[]]), "Received: none for number 0"),
        ((["a"], ["a"], ["f1"], 0), "resamples must be a whole number of at least 1. Received: 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_texts(*arguments)
