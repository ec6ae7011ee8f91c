"""The training step and what goes with it."""

from tfmodels.training.callbacks import TimeBudget
from tfmodels.training.metrics import Perplexity

__all__ = ["Perplexity", "TimeBudget"]
