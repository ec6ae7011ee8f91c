"""Ready-to-fit models."""

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
from tfmodels.models.transformer import Transformer, TransformerConfig, transformer

__all__ = [
    "Bert",
    "BertConfig",
    "GPT2",
    "GPT2Config",
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
    "bert",
    "gpt2",
    "list_models",
    "transformer",
]
