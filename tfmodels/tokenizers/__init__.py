"""Tokenizers in graph ops."""

from tfmodels.tokenizers.bpe import BytePairTokenizer
from tfmodels.tokenizers.folder import from_pretrained
from tfmodels.tokenizers.marian import MarianTokenizer
from tfmodels.tokenizers.sentencepiece import SentencePieceTokenizer
from tfmodels.tokenizers.wordpiece import WordPieceTokenizer

__all__ = [
    "BytePairTokenizer",
    "MarianTokenizer",
    "SentencePieceTokenizer",
    "WordPieceTokenizer",
    "from_pretrained",
]
