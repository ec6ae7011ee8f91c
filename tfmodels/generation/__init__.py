"""Generating and scoring text with any model that keeps the protocol in `protocol.py`."""

from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.generate import GenerationResult, generate
from tfmodels.generation.score import ScoreResult, score
from tfmodels.generation.stream import stream
from tfmodels.generation.zero_shot import ClassifyResult, classify

__all__ = [
    "ClassifyResult",
    "GenerationConfig",
    "GenerationResult",
    "ScoreResult",
    "classify",
    "generate",
    "score",
    "stream",
]
