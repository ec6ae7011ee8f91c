"""The parts that models are made of: Keras layers, written in keras.ops."""

from tfmodels.layers.attention import MultiHeadCrossAttention, MultiHeadSelfAttention
from tfmodels.layers.block import TransformerBlock
from tfmodels.layers.embedding import PositionalEmbedding
from tfmodels.layers.feed_forward import FeedForward

__all__ = [
    "FeedForward",
    "MultiHeadCrossAttention",
    "MultiHeadSelfAttention",
    "PositionalEmbedding",
    "TransformerBlock",
]
