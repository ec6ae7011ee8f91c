"""Tokenizers in graph ops."""

from tfmodels.tokenizers.bpe import BytePairTokenizer
from tfmodels.tokenizers.sentencepiece import SentencePieceTokenizer

__all__ = ["BytePairTokenizer", "SentencePieceTokenizer"]
