"""The training step and what goes with it."""

from tfmodels.training.averages import AverageWeights, average_checkpoints
from tfmodels.training.callbacks import TensorBoard, TimeBudget
from tfmodels.training.layerwise import LayerwiseAdamW, freeze
from tfmodels.training.metrics import Perplexity
from tfmodels.training.resume import Resume
from tfmodels.training.schedules import InverseSquareRoot, WarmupStableDecay, warmup_cosine, warmup_linear
from tfmodels.training.strategy import make_strategy

__all__ = [
    "AverageWeights",
    "InverseSquareRoot",
    "LayerwiseAdamW",
    "Perplexity",
    "Resume",
    "TensorBoard",
    "TimeBudget",
    "WarmupStableDecay",
    "average_checkpoints",
    "freeze",
    "make_strategy",
    "warmup_cosine",
    "warmup_linear",
]
