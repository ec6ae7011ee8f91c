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
        fixed: dict of the head config's fields that this class always has; a function is called with
            the backbone's config.
        tensors: function to the head's `Tensor`s: of the model's config where the backbone is the
            model, else of the backbone's config and the head's.
        backbone: dict of the backbone config's fields that this class always has.
        prefix: str, before the backbone's tensors where it is not the architecture's own.
        backbone_class: class of the backbone where it is not the architecture's own.
        backbone_tensors: function of the backbone's config to its `Tensor`s, likewise.
        without: names of the backbone config's parts that this class leaves out, such as a pooler.
        leaves_out: what the names of the tensors begin with that this class has not, such as a decoder's.
        read: function of `Fields` to a dict of the head config's other fields.
        write: function of the head's config to a dict for config.json.
        includes: other tasks whose heads this one is made of.
        unused: names of tensors that transformers stores and never uses; they are carried along.
    """

    task: str | None
    model: Any = None
    fixed: dict = dataclasses.field(default_factory=dict)
    tensors: Callable = lambda *configs: ()
    backbone: dict = dataclasses.field(default_factory=dict)
    prefix: str | None = None
    backbone_class: type | None = None
    backbone_tensors: Callable | None = None
    without: tuple = ()
    leaves_out: tuple = ()
    read: Callable = lambda fields: {}
    write: Callable = lambda config: {}
    includes: tuple = ()
    unused: tuple = ()

    def backbone_config(self, config):
        """The backbone's config as this class has it."""
        return dataclasses.replace(config, **self.backbone, **dict.fromkeys(self.without, False))

    def fixed_fields(self, backbone_config):
        """`fixed` for a backbone."""
        return {n: v(backbone_config) if callable(v) else v for n, v in self.fixed.items()}

    def config(self, backbone_config, **fields):
        """The head's config; None where the backbone is the model."""
        if self.model is None:
            return None
        return self.model.config_class(**fields, **self.fixed_fields(backbone_config))

    def stored_prefix(self, architecture):
        """What a checkpoint with this head has before the backbone's tensors."""
        return architecture.prefix if self.prefix is None else self.prefix

    def own_tensors(self, backbone_config, config):
        """The head's `Tensor`s."""
        return list(
            self.tensors(backbone_config) if self.model is None else self.tensors(backbone_config, config)
        )

    def holds(self, model, backbone):
        """Whether a model is this class."""
        if type(model) is not (self.model or type(backbone)):
            return False
        has = {} if self.model is None else self.fixed_fields(backbone.config)
        return all(getattr(model.config, name) == value for name, value in has.items()) and all(
            getattr(backbone.config, name) == value for name, value in self.backbone.items()
        )


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
        tied: dict of a tensor's name -> that of the one which tie_word_embeddings makes it a copy of.
        complete: function of a config and a `Checkpoint` to the config, where the tensors tell what
            config.json does not.
        optional: dict of a flag of the backbone's config -> what the names of that part's tensors
            begin with: parts that a checkpoint may lack, such as a pooler.
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
    tied: dict = dataclasses.field(default_factory=dict)
    complete: Callable = lambda config, checkpoint: config
    optional: dict = dataclasses.field(default_factory=dict)

    @property
    def bare(self):
        """Transformers' class without a head."""
        return next(name for name, head in self.heads.items() if head.task is None)


def by_type(model_type):
    """The architecture of config.json's model_type."""
    if not isinstance(model_type, str) or model_type not in _MODULES:
        raise ValueError(
            f"config.json: model_type must be one of {', '.join(_MODULES)}. Received: {model_type!r}."
        )
    module = importlib.import_module(f"tfmodels.pretrained.{_MODULES[model_type]}")
    return module.ARCHITECTURES[model_type]


def by_model(model):
    """The architecture, transformers' class name and the `Head` of a model; ValueError for no such."""
    backbone = getattr(model, "backbone", model)
    source = getattr(backbone, "pretrained_source", None)
    own = source and source.fields.get("model_type")
    wanted = []
    for model_type in sorted(_MODULES, key=lambda name: name != own):  # two may hold the same config
        architecture = by_type(model_type)
        for name, head in all_heads(architecture):
            if type(backbone) is not (head.backbone_class or architecture.backbone):
                continue
            # What a folder's config.json said, its architecture can say again.
            if model_type != own and not architecture.holds(backbone.config):
                continue
            if head.holds(model, backbone):
                return architecture, name, head
            if head.model is not None and type(model) is head.model:
                over = f" over a backbone with {head.backbone}" if head.backbone else ""
                wanted.append(f"{name} always has {head.fixed_fields(backbone.config)}{over}.")
    raise ValueError(
        "The model must be one that transformers has too. "
        f"Received: {type(model).__name__} with {model.config} over {type(backbone).__name__}. "
        f"{' '.join([*wanted, 'Save it with model.save instead.'])}"
    )


def all_heads(architecture):
    """Pairs of a class name and its `Head`: the architecture's own, and those that any has."""
    from tfmodels.pretrained.heads import SENTENCE_EMBEDDING

    yield from architecture.heads.items()
    yield architecture.bare, SENTENCE_EMBEDDING
