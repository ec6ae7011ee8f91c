"""Ready-to-fit models."""

from tfmodels.models.gpt2 import GPT2, GPT2Config, gpt2
from tfmodels.models.transformer import Transformer, TransformerConfig, transformer

__all__ = ["GPT2", "GPT2Config", "Transformer", "TransformerConfig", "gpt2", "transformer"]
