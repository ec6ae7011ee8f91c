"""Ready-to-fit models."""

from tfmodels.models.bart import Bart, BartConfig, bart
from tfmodels.models.bert import Bert, BertConfig, bert
from tfmodels.models.gpt2 import GPT2, GPT2Config, gpt2
from tfmodels.models.transformer import Transformer, TransformerConfig, transformer

__all__ = [
    "Bart",
    "BartConfig",
    "Bert",
    "BertConfig",
    "GPT2",
    "GPT2Config",
    "Transformer",
    "TransformerConfig",
    "bart",
    "bert",
    "gpt2",
    "transformer",
]
