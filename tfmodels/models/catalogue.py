"""Which architectures there are, in which sizes, and for which tasks."""

import concurrent.futures
import dataclasses
import functools

import keras

from tfmodels.models.bart import SIZES as BART_SIZES
from tfmodels.models.bart import BartConfig, bart
from tfmodels.models.base import make_config
from tfmodels.models.bert import SIZES as BERT_SIZES
from tfmodels.models.bert import BertConfig, bert
from tfmodels.models.gpt2 import SIZES as GPT2_SIZES
from tfmodels.models.gpt2 import GPT2Config, gpt2
from tfmodels.models.llama import SIZES as LLAMA_SIZES
from tfmodels.models.llama import LlamaConfig, llama
from tfmodels.models.t5 import SIZES as T5_SIZES
from tfmodels.models.t5 import T5Config, t5
from tfmodels.models.transformer import SIZES as TRANSFORMER_SIZES
from tfmodels.models.transformer import TransformerConfig, transformer
from tfmodels.models.transformer_xl import SIZES as TRANSFORMER_XL_SIZES
from tfmodels.models.transformer_xl import TransformerXLConfig, transformer_xl

_HEADS = (
    "sequence_classification",
    "regression",
    "token_classification",
    "question_answering",
    "multiple_choice",
    "sentence_embedding",
)
_ENCODER = ("masked_language_modelling", "next_sentence_prediction", "pre_training", *_HEADS)
_READER = ("sequence_to_sequence", *_HEADS)
_DECODER = ("causal_language_modelling", *_HEADS)

# Builder, config class, sizes, and tasks: what the model does itself, and what a head makes of it.
_ARCHITECTURES = (
    (bart, BartConfig, BART_SIZES, _READER),
    (bert, BertConfig, BERT_SIZES, _ENCODER),
    (gpt2, GPT2Config, GPT2_SIZES, _DECODER),
    (llama, LlamaConfig, LLAMA_SIZES, _DECODER),
    (t5, T5Config, T5_SIZES, _READER),
    (transformer, TransformerConfig, TRANSFORMER_SIZES, ("sequence_to_sequence",)),
    (transformer_xl, TransformerXLConfig, TRANSFORMER_XL_SIZES, ("causal_language_modelling",)),
)


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """One size of an architecture.

    Attributes:
        architecture: str, the name of its function in `tfmodels.models`.
        size: str, the first argument of that function.
        parameters: int, of the model without a head.
        tasks: tuple of str: what the model does, and what a head of `tfmodels.models` makes of it.
    """

    architecture: str
    size: str
    parameters: int
    tasks: tuple


def list_models():
    """The models that can be made, smallest first within each architecture. No weights are allocated.

    Returns:
        List of `ModelInfo`.

    Example:
        >>> [(info.architecture, info.size) for info in list_models()][:2]
        [('bart', 'tiny'), ('bart', 'marian_base')]
    """
    found = []
    for builder, config_class, sizes, tasks in _ARCHITECTURES:
        counted = []
        for size in sizes:
            config = make_config(config_class, sizes, size, {})
            counted.append(ModelInfo(builder.__name__, size, _count_parameters(builder, size, config), tasks))
        found += sorted(counted, key=lambda info: info.parameters)
    return found


@functools.cache
def _count_parameters(builder, size, config):
    """Parameters of a size. Blocks of a stack are alike: one block and two tell what all have."""
    stacks = {n: getattr(config, n, None) for n in ("num_layers", "num_encoder_layers")}
    stacks = {name: depth for name, depth in stacks.items() if depth is not None}

    def count(**depths):
        # Keras keeps a list of the variables that it still owes their weights, one list a thread:
        # this thread's is gone before they are made.
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(_count_without_weights, builder, size, depths).result()

    ones = dict.fromkeys(stacks, 1)
    first = count(**ones)
    return first + sum((depth - 1) * (count(**(ones | {name: 2})) - first) for name, depth in stacks.items())


def _count_without_weights(builder, size, depths):
    with keras.StatelessScope(initialize_variables=False):
        return builder(size, **depths).count_params()
