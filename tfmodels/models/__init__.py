"""Ready-to-fit models."""

from tfmodels.models.bert import Bert, BertConfig, bert
from tfmodels.models.gpt2 import GPT2, GPT2Config, gpt2
from tfmodels.models.llama import Llama, LlamaConfig, llama
from tfmodels.models.transformer import Transformer, TransformerConfig, transformer

__all__ = [
    "Bert",
    "BertConfig",
    "GPT2",
    "GPT2Config",
    "Llama",
    "LlamaConfig",
    "Transformer",
    "TransformerConfig",
    "bert",
    "gpt2",
    "llama",
    "transformer",
]
