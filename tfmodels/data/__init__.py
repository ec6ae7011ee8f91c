"""Text to batches for `model.fit`."""

from tfmodels.data.examples import Examples
from tfmodels.data.reader import Reader, batches
from tfmodels.data.sources import read_pairs, read_texts
from tfmodels.data.tasks.language_modelling import causal_language_modelling
from tfmodels.data.tasks.sequence_to_sequence import sequence_to_sequence

__all__ = [
    "Examples",
    "Reader",
    "batches",
    "causal_language_modelling",
    "read_pairs",
    "read_texts",
    "sequence_to_sequence",
]
