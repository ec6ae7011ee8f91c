"""The training step and what goes with it."""

from tfmodels.training.callbacks import TensorBoard, TimeBudget
from tfmodels.training.metrics import Perplexity
from tfmodels.training.resume import Resume
from tfmodels.training.schedules import InverseSquareRoot, warmup_cosine
from tfmodels.training.strategy import make_strategy

__all__ = [
    "InverseSquareRoot",
    "Perplexity",
    "Resume",
    "TensorBoard",
    "TimeBudget",
    "make_strategy",
    "warmup_cosine",
]
