"""Ready-to-fit models."""

from tfmodels.models.bart import Bart, BartConfig, bart
from tfmodels.models.bert import Bert, BertConfig, bert
from tfmodels.models.catalogue import ModelInfo, list_models
from tfmodels.models.gpt2 import GPT2, GPT2Config, gpt2
from tfmodels.models.heads import (
    MaskedLanguageModel,
    MaskedLanguageModelConfig,
    MultipleChoiceModel,
    MultipleChoiceModelConfig,
    NextSentencePredictor,
    NextSentencePredictorConfig,
    PreTrainingModel,
    PreTrainingModelConfig,
    QuestionAnsweringModel,
    QuestionAnsweringModelConfig,
    SentenceEmbedder,
    SentenceEmbedderConfig,
    SequenceClassifier,
    SequenceClassifierConfig,
    TokenClassifier,
    TokenClassifierConfig,
)
from tfmodels.models.llama import Llama, LlamaConfig, llama
from tfmodels.models.readers import BartReader, T5Encoder, T5Reader
from tfmodels.models.t5 import T5, T5Config, t5
from tfmodels.models.transformer import Transformer, TransformerConfig, transformer
from tfmodels.models.transformer_xl import TransformerXL, TransformerXLConfig, transformer_xl

__all__ = [
    "Bart",
    "BartConfig",
    "BartReader",
    "Bert",
    "BertConfig",
    "GPT2",
    "GPT2Config",
    "Llama",
    "LlamaConfig",
    "T5",
    "T5Config",
    "T5Encoder",
    "T5Reader",
    "MaskedLanguageModel",
    "MaskedLanguageModelConfig",
    "ModelInfo",
    "MultipleChoiceModel",
    "MultipleChoiceModelConfig",
    "NextSentencePredictor",
    "NextSentencePredictorConfig",
    "PreTrainingModel",
    "PreTrainingModelConfig",
    "QuestionAnsweringModel",
    "QuestionAnsweringModelConfig",
    "SentenceEmbedder",
    "SentenceEmbedderConfig",
    "SequenceClassifier",
    "SequenceClassifierConfig",
    "TokenClassifier",
    "TokenClassifierConfig",
    "Transformer",
    "TransformerConfig",
    "TransformerXL",
    "TransformerXLConfig",
    "bart",
    "bert",
    "gpt2",
    "llama",
    "t5",
    "list_models",
    "transformer",
    "transformer_xl",
]
