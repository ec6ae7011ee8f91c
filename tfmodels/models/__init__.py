"""Ready-to-fit models."""

from tfmodels.models.bert import Bert, BertConfig, bert
from tfmodels.models.gpt2 import GPT2, GPT2Config, gpt2
from tfmodels.models.transformer import Transformer, TransformerConfig, transformer
from tfmodels.models.transformer_xl import TransformerXL, TransformerXLConfig, transformer_xl

__all__ = [
    "Bert",
    "BertConfig",
    "GPT2",
    "GPT2Config",
    "Transformer",
    "TransformerConfig",
    "TransformerXL",
    "TransformerXLConfig",
    "bert",
    "gpt2",
    "transformer",
    "transformer_xl",
]
