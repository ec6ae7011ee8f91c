"""The parts that models are made of: Keras layers, written in keras.ops."""

from tfmodels.layers.attention import MultiHeadCrossAttention, MultiHeadSelfAttention
from tfmodels.layers.block import TransformerBlock
from tfmodels.layers.embedding import PositionalEmbedding
from tfmodels.layers.feed_forward import FeedForward
from tfmodels.layers.pooling import FirstToken

__all__ = [
    "FeedForward",
    "FirstToken",
    "MultiHeadCrossAttention",
    "MultiHeadSelfAttention",
    "PositionalEmbedding",
    "TransformerBlock",
]
