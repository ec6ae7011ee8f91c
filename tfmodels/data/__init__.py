"""Text to batches for `model.fit`."""

from tfmodels.data.examples import causal_language_modelling, sequence_to_sequence
from tfmodels.data.pipeline import batches
from tfmodels.data.sources import read_pairs, read_texts

__all__ = [
    "batches",
    "causal_language_modelling",
    "read_pairs",
    "read_texts",
    "sequence_to_sequence",
]
