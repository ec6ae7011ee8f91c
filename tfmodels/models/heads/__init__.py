"""Task heads, each one class over any encoder or decoder."""

from tfmodels.models.heads.classification import (
    MultipleChoiceModel,
    MultipleChoiceModelConfig,
    SequenceClassifier,
    SequenceClassifierConfig,
    TokenClassifier,
    TokenClassifierConfig,
)
from tfmodels.models.heads.language import (
    MaskedLanguageModel,
    MaskedLanguageModelConfig,
    NextSentencePredictor,
    NextSentencePredictorConfig,
    PreTrainingModel,
    PreTrainingModelConfig,
)
from tfmodels.models.heads.sentences import SentenceEmbedder, SentenceEmbedderConfig
from tfmodels.models.heads.spans import QuestionAnsweringModel, QuestionAnsweringModelConfig

__all__ = [
    "MaskedLanguageModel",
    "MaskedLanguageModelConfig",
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
]
