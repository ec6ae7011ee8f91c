"""Tokenizers in graph ops."""

from tfmodels.tokenizers.bpe import BytePairTokenizer
from tfmodels.tokenizers.sentencepiece import SentencePieceTokenizer
from tfmodels.tokenizers.wordpiece import WordPieceTokenizer

__all__ = ["BytePairTokenizer", "SentencePieceTokenizer", "WordPieceTokenizer"]
