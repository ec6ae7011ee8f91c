"""What is known of each architecture: its config.json, its weight map and its heads."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

# model_type of config.json -> the file that knows it.
_MODULES = {
    "bart": "bart",
    "bert": "bert",
    "distilbert": "distilbert",
    "gpt2": "gpt2",
    "llama": "llama",
    "marian": "marian",
    "mistral": "llama",
    "mt5": "t5",
    "qwen2": "llama",
    "qwen3": "llama",
    "roberta": "bert",
    "t5": "t5",
    "transfo-xl": "transformer_xl",
}


@dataclasses.dataclass(frozen=True)
class Head:
    """A class of transformers, as config.json names it, and the model that it becomes.

    Attributes:
        task: str, or None for a bare encoder or decoder.
        model: class of the head over a backbone; None: the backbone itself is the model.
        fixed: dict of the head config's fields that this class always has.
        tensors: function of the model's config to the head's `Tensor`s.
        backbone: dict of the backbone config's fields that this class always has.
        backbone_class: class of the backbone where it is not the architecture's own.
        backbone_tensors: function of the backbone's config to its `Tensor`s, likewise.
    """

    task: str | None
    model: Any = None
    fixed: dict = dataclasses.field(default_factory=dict)
    tensors: Callable = lambda config: ()
    backbone: dict = dataclasses.field(default_factory=dict)
    backbone_class: type | None = None
    backbone_tensors: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model_type of config.json.

    Attributes:
        model_type: str.
        backbone: class of the model.
        prefix: str, before the backbone's tensors in a checkpoint with a head.
        read_config: function of `Fields` to the backbone's config.
        write_config: function of the backbone's config to a dict for config.json.
        tensors: function of the backbone's config to its `Tensor`s.
        heads: dict of transformers' class name -> `Head`. The first of a task is its default.
        ignored: regular expressions of tensors that are no weights: buffers, and copies of tied
            matrices.
        carried: regular expressions of tensors that nothing reads, which are written back as they
            were.
        holds: function of a config, whether this architecture can express it.
        complete: function of a config and a `Checkpoint` to the config, where the tensors tell what
            config.json does not.
    """

    model_type: str
    backbone: type
    prefix: str
    read_config: Callable
    write_config: Callable
    tensors: Callable
    heads: dict
    ignored: tuple = ()
    carried: tuple = ()
    holds: Callable = lambda config: True
    complete: Callable = lambda config, checkpoint: config


def by_type(model_type):
    """The architecture of config.json's model_type."""
    if not isinstance(model_type, str) or model_type not in _MODULES:
        raise ValueError(
            f"config.json: model_type must be one of {', '.join(_MODULES)}. Received: {model_type!r}."
        )
    module = importlib.import_module(f"tfmodels.pretrained.{_MODULES[model_type]}")
    return module.ARCHITECTURES[model_type]


def by_model(model):
    """The architecture and transformers' class name of a model; ValueError where there is none."""
    backbone = getattr(model, "backbone", model)
    source = getattr(model, "pretrained_source", None)
    own = source and source.fields.get("model_type")
    for model_type in sorted(_MODULES, key=lambda name: name != own):  # two may hold the same config
        architecture = by_type(model_type)
        for name, head in architecture.heads.items():
            own = type(backbone) is (head.backbone_class or architecture.backbone)
            if own and architecture.holds(backbone.config) and _holds(head, model, backbone):
                return architecture, name
    raise ValueError(
        "The model must be one that transformers has too. "
        f"Received: {type(model).__name__} with {model.config}. Save it with model.save instead."
    )


def _holds(head, model, backbone):
    if type(model) is not (head.model or type(backbone)):
        return False
    fixed = head.fixed.items() if head.model else ()
    return all(getattr(model.config, name) == value for name, value in fixed) and all(
        getattr(backbone.config, name) == value for name, value in head.backbone.items()
    )
