"""How good texts and models are: scores with confidence intervals."""

from tfmodels.evaluation.estimate import Estimate
from tfmodels.evaluation.likelihood import evaluate_log_likelihoods
from tfmodels.evaluation.texts import TEXT_METRICS, evaluate_texts

__all__ = ["TEXT_METRICS", "Estimate", "evaluate_log_likelihoods", "evaluate_texts"]
