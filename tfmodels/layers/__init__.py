"""The parts that models are made of: Keras layers, written in keras.ops."""

from tfmodels.layers.adaptive import AdaptiveEmbedding
from tfmodels.layers.attention import MultiHeadSelfAttention
from tfmodels.layers.block import TransformerBlock
from tfmodels.layers.choices import FoldChoices, UnfoldChoices
from tfmodels.layers.cross_attention import MultiHeadCrossAttention
from tfmodels.layers.embedding import PositionalEmbedding
from tfmodels.layers.feed_forward import FeedForward
from tfmodels.layers.pooling import FirstToken, LastToken, MeanToken
from tfmodels.layers.relative import RelativePositionBias
from tfmodels.layers.relative_attention import RelativeBiases, RelativePositions, RelativeSelfAttention
from tfmodels.layers.relative_block import RelativeBlock
from tfmodels.layers.rms_block import RMSNormBlock
from tfmodels.layers.rotary import RotaryEmbedding
from tfmodels.layers.shift import ShiftRight
from tfmodels.layers.vocabulary import Bias, VocabularyTransform

__all__ = [
    "AdaptiveEmbedding",
    "Bias",
    "FeedForward",
    "FirstToken",
    "FoldChoices",
    "LastToken",
    "MeanToken",
    "MultiHeadCrossAttention",
    "MultiHeadSelfAttention",
    "PositionalEmbedding",
    "RMSNormBlock",
    "RelativeBiases",
    "RelativeBlock",
    "RelativePositionBias",
    "RelativePositions",
    "RelativeSelfAttention",
    "RotaryEmbedding",
    "ShiftRight",
    "TransformerBlock",
    "UnfoldChoices",
    "VocabularyTransform",
]
