"""Generating text with any model that keeps the protocol in `protocol.py`."""

from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.generate import GenerationResult, generate

__all__ = ["GenerationConfig", "GenerationResult", "generate"]
