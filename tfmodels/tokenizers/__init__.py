"""Tokenizers in graph ops."""

from tfmodels.tokenizers.sentencepiece import SentencePieceTokenizer

__all__ = ["SentencePieceTokenizer"]
