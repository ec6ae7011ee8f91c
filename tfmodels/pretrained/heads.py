"""Heads as transformers has them: an architecture's table calls one function for each class.

Each takes the names of the head's tensors in the checkpoint and returns a `Head`. `dropout` names
the fields of config.json that hold its rate, the first that is there counts, then a number for
none.
"""

import collections

from tfmodels.models import (
    MaskedLanguageModel,
    MultipleChoiceModel,
    NextSentencePredictor,
    PreTrainingModel,
    QuestionAnsweringModel,
    SentenceEmbedder,
    SequenceClassifier,
    TokenClassifier,
)
from tfmodels.pretrained.architecture import Head
from tfmodels.pretrained.tensors import Tensor, linear, norm, tensor

# problem_type of config.json -> ours.
PROBLEMS = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}


def _read_rate(fields, dropout):
    *names, default = dropout
    for name in names:
        if fields.get(name) is not None:
            return fields.rate(name, default)
    return default


def _write_rate(config, dropout):
    return {dropout[0]: config.dropout} if len(dropout) > 1 else {}


def _read_labels(fields):
    """num_labels and labels; transformers names those that have no name LABEL_0, LABEL_1, ..."""
    names = fields.get("id2label")
    if names is None:
        return {"num_labels": fields.integer("num_labels", 2), "labels": None}
    keys = [str(i) for i in range(len(names))] if isinstance(names, dict) else None
    if not keys or set(names) != set(keys) or not all(isinstance(x, str) for x in names.values()):
        raise ValueError(
            "config.json: id2label must map the numbers from 0 on to names, such as "
            f'{{"0": "bad", "1": "good"}}. Received: {names!r}.'
        )
    labels = _distinct(tuple(names[key] for key in keys))
    return {"num_labels": len(labels), "labels": None if labels == _default_labels(len(labels)) else labels}


def _distinct(labels):
    """The labels, those of one name told apart by their number: a few checkpoints have such."""
    counts = collections.Counter(labels)
    return tuple(f"{label} ({i})" if counts[label] > 1 else label for i, label in enumerate(labels))


def _write_labels(config):
    labels = config.labels or _default_labels(config.num_labels)
    return {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def _default_labels(count):
    return tuple(f"LABEL_{i}" for i in range(count))


def _read_problem(fields, num_labels):
    problem = fields.get("problem_type")
    if problem is None:  # transformers decides by the labels that it is given; they are ids as a rule
        return "regression" if num_labels == 1 else "single_label"
    if not isinstance(problem, str) or problem not in PROBLEMS:
        raise ValueError(
            f"config.json: problem_type must be one of {', '.join(PROBLEMS)}. Received: {problem!r}."
        )
    return PROBLEMS[problem]


def sequence_classification(
    output, hidden=None, *, pooling, hidden_activation=None, use_bias=True, dropout=(0.0,), **options
):
    """A class of transformers for sequence classification and regression.

    Args:
        output: str, name of the labels' layer.
        hidden: str, name of the hidden layer; None: there is none.
        pooling: of `SequenceClassifierConfig`.
        hidden_activation: of `SequenceClassifierConfig`.
        use_bias: bool, of the labels' layer.
        dropout: tuple of field names and a default.
        **options: `without`, `backbone`, and `input_dropout`, whether the hidden layer has dropout
            too.

    Returns:
        A `Head`.
    """
    input_dropout = options.pop("input_dropout", False)

    def read(fields):
        values = _read_labels(fields)
        rate = _read_rate(fields, dropout)
        values |= {"problem": _read_problem(fields, values["num_labels"]), "dropout": rate}
        return values | {"input_dropout": rate if input_dropout else 0.0}

    def write(config):
        problem = {"problem_type": {ours: theirs for theirs, ours in PROBLEMS.items()}[config.problem]}
        return _write_labels(config) | problem | _write_rate(config, dropout)

    def tensors(backbone, config):
        d = backbone.hidden_dim
        if hidden:
            yield from linear(hidden, "hidden_dense", d, d)
        yield from linear(output, "output_dense", d, config.num_labels, use_bias)

    fixed = {"pooling": pooling, "hidden_activation": hidden_activation, "use_bias": use_bias}
    return Head(
        "sequence_classification",
        SequenceClassifier,
        fixed=fixed,
        tensors=tensors,
        read=read,
        write=write,
        **options,
    )


def token_classification(output, *, dropout=(0.0,), **options):
    """A class of transformers for token classification; see `sequence_classification`."""
    return Head(
        "token_classification",
        TokenClassifier,
        tensors=lambda backbone, config: linear(
            output, "output_dense", backbone.hidden_dim, config.num_labels
        ),
        read=lambda fields: _read_labels(fields) | {"dropout": _read_rate(fields, dropout)},
        write=lambda config: _write_labels(config) | _write_rate(config, dropout),
        **options,
    )


def question_answering(output, *, dropout=(0.0,), **options):
    """A class of transformers for extractive question answering; see `sequence_classification`."""
    return Head(
        "question_answering",
        QuestionAnsweringModel,
        # Without a field for it transformers has no dropout here: the model must not have one either.
        fixed={} if len(dropout) > 1 else {"dropout": dropout[0]},
        tensors=lambda backbone, config: linear(output, "output_dense", backbone.hidden_dim, 2),
        read=lambda fields: {"dropout": _read_rate(fields, dropout)} if len(dropout) > 1 else {},
        write=lambda config: _write_rate(config, dropout),
        **options,
    )


def multiple_choice(output, hidden=None, *, pooling, hidden_activation=None, dropout=(0.0,), **options):
    """A class of transformers for multiple choice; see `sequence_classification`."""

    def tensors(backbone, config):
        if hidden:
            yield from linear(hidden, "hidden_dense", backbone.hidden_dim, backbone.hidden_dim)
        yield from linear(output, "output_dense", backbone.hidden_dim, 1)

    return Head(
        "multiple_choice",
        MultipleChoiceModel,
        fixed={"pooling": pooling, "hidden_activation": hidden_activation},
        tensors=tensors,
        read=lambda fields: {"dropout": _read_rate(fields, dropout)},
        write=lambda config: _write_rate(config, dropout),
        **options,
    )


def masked_language_modelling(names, *, activation=lambda backbone: backbone.activation, **options):
    """A class of transformers for masked language modelling.

    Args:
        names: dict of "dense", "norm", "decoder", "bias" -> their names in the checkpoint; "bias" is
            the whole name of the tied decoder's.
        activation: of `MaskedLanguageModelConfig`, or a function of the backbone's config.
        **options: `without`, `backbone`, `unused`.

    Returns:
        A `Head`.
    """
    return Head(
        "masked_language_modelling",
        MaskedLanguageModel,
        fixed={"activation": activation},
        tensors=lambda backbone, config: _word_tensors(names, backbone, config),
        read=_read_tied,
        write=_write_tied,
        **options,
    )


def _read_tied(fields):
    return {"tie_embeddings": fields.flag("tie_word_embeddings", True)}


def _write_tied(config):
    return {"tie_word_embeddings": config.tie_embeddings}


def _word_tensors(names, backbone, config):
    d, v = backbone.hidden_dim, backbone.vocabulary_size
    yield from linear(names["dense"], "transform.dense", d, d)
    yield from norm(names["norm"], "transform.norm", d)
    if config.tie_embeddings:
        yield tensor(names["bias"], (v,), "bias.bias")
        return
    yield Tensor(f"{names['decoder']}.weight", (v, d), ("output_dense.kernel",), transposed=True)
    yield tensor(f"{names['decoder']}.bias", (v,), "output_dense.bias")


def next_sentence_prediction(output, **options):
    """A class of transformers for next-sentence prediction, over the pooler."""
    return Head(
        "next_sentence_prediction",
        NextSentencePredictor,
        fixed={"pooling": "pooler"},
        tensors=lambda backbone, config: linear(output, "next_dense", backbone.hidden_dim, 2),
        **options,
    )


def pre_training(names, output, **options):
    """A class of transformers with both of BERT's heads; see `masked_language_modelling`."""

    def tensors(backbone, config):
        yield from _word_tensors(names, backbone, config)
        yield from linear(output, "next_dense", backbone.hidden_dim, 2)

    return Head(
        "pre_training",
        PreTrainingModel,
        fixed={"activation": lambda backbone: backbone.activation, "pooling": "pooler"},
        tensors=tensors,
        read=_read_tied,
        write=_write_tied,
        includes=("masked_language_modelling", "next_sentence_prediction"),
        **options,
    )


# transformers has no class of it: the folder is one of sentence-transformers, over the bare model.
SENTENCE_EMBEDDING = Head("sentence_embedding", SentenceEmbedder)
