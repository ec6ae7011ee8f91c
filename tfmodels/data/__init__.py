"""Text to batches for `model.fit`."""

from tfmodels.data.examples import Examples
from tfmodels.data.reader import Reader, batches
from tfmodels.data.report import report
from tfmodels.data.sources import read_jsonl, read_pairs, read_texts, read_tsv
from tfmodels.data.tables import read_columns
from tfmodels.data.tasks.classification import classification
from tfmodels.data.tasks.conversation import dialogue, prompt_response
from tfmodels.data.tasks.item_sequences import item_sequences
from tfmodels.data.tasks.language_modelling import causal_language_modelling
from tfmodels.data.tasks.masked_language_modelling import masked_language_modelling
from tfmodels.data.tasks.question_answering import question_answering
from tfmodels.data.tasks.sequence_to_sequence import sequence_to_sequence
from tfmodels.data.tasks.token_classification import token_classification
from tfmodels.data.tfrecords import read_tfrecords, write_tfrecords

__all__ = [
    "Examples",
    "Reader",
    "batches",
    "causal_language_modelling",
    "classification",
    "dialogue",
    "item_sequences",
    "masked_language_modelling",
    "prompt_response",
    "question_answering",
    "read_columns",
    "read_jsonl",
    "read_pairs",
    "read_texts",
    "read_tfrecords",
    "read_tsv",
    "report",
    "sequence_to_sequence",
    "token_classification",
    "write_tfrecords",
]
