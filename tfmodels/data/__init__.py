"""Text to batches for `model.fit`."""

from tfmodels.data.examples import causal_language_modelling, sequence_to_sequence
from tfmodels.data.pipeline import batches

__all__ = ["batches", "causal_language_modelling", "sequence_to_sequence"]
