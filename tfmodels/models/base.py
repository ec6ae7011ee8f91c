"""What all models share: configs, inputs, saving."""

import contextlib
import dataclasses
import difflib
import gc
import warnings

import keras
import numpy as np
from keras import ops

from tfmodels.layers.cache import put
from tfmodels.layers.record import record_attention
from tfmodels.layers.steps import stepping
from tfmodels.training.step import VocabularyModel


def token_input(name):
    """An int32 input of any batch and length, (batch, length)."""
    return keras.Input((None,), dtype="int32", name=name)


def make_config(config_class, sizes, size, overrides):
    """The named size of a config class with fields overridden.

    Args:
        config_class: a frozen dataclass.
        sizes: dict of size name -> dict of fields.
        size: str.
        overrides: dict of fields.

    Returns:
        An instance of config_class.

    Raises:
        ValueError: an unknown size or field.
    """
    if size not in sizes:
        raise ValueError(f"Unknown size. Received: size={size!r}. Choose one of: {', '.join(sizes)}.")
    fields = [field.name for field in dataclasses.fields(config_class)]
    for name in overrides:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"{config_class.__name__} has no field {name!r}.{hint} Its fields: {', '.join(fields)}."
            )
    return config_class(**{**sizes[size], **overrides})


def check_fields(config):
    """Checks the whole numbers and rates of a config; each error names the field and its value.

    Whole numbers are at least 1 and other numbers at least 0 and below 1, unless the field's metadata
    has another `minimum`; then there is no upper bound.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{type(config).__name__}.{field.name}"
        minimum = field.metadata.get("minimum")
        least = 1 if minimum is None else minimum
        if field.type in ("int", int) and (not isinstance(value, int) or value < least):
            raise ValueError(f"{name} must be a whole number of at least {least}. Received: {value!r}.")
        if field.type in ("float", float) and minimum is None and not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1. Received: {value!r}.")
        if field.type in ("float", float) and minimum is not None and not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum}. Received: {value!r}.")


def check_config(config):
    """Checks the fields that the models' configs share."""
    check_fields(config)
    # A config with a size of heads of its own needs no quotient.
    if getattr(config, "head_dim", None) is None and config.hidden_dim % config.num_heads:
        raise ValueError(
            "hidden_dim must be divisible by num_heads. "
            f"Received: hidden_dim={config.hidden_dim}, num_heads={config.num_heads}."
        )


def check_optional_sizes(config, *names):
    """Checks fields that are whole numbers of at least 1, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(
                f"{type(config).__name__}.{name} must be a whole number of at least 1, or None. "
                f"Received: {value!r}."
            )


def check_shared_vocabulary(config):
    """Checks that one matrix for source and target words has one vocabulary."""
    if config.share_embeddings and config.source_vocabulary_size != config.target_vocabulary_size:
        raise ValueError(
            "share_embeddings=True needs one vocabulary. Received: "
            f"source_vocabulary_size={config.source_vocabulary_size}, "
            f"target_vocabulary_size={config.target_vocabulary_size}. "
            "Make them equal, or pass share_embeddings=False."
        )


def check_special_ids(config, vocabulary_size, *names):
    """Checks fields that hold ids: None, an int or a tuple of int, below the vocabulary size."""
    for name in names:
        value = getattr(config, name)
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None and not (isinstance(each, int) and 0 <= each < vocabulary_size):
                raise ValueError(
                    f"{type(config).__name__}.{name} must be at least 0 and below the vocabulary size "
                    f"{vocabulary_size}. Received: {value!r}."
                )


class TransformerModel(VocabularyModel):
    """Base of the text models: a functional model made from a config, that saves as its own class.

    A subclass makes its layers and its graph in `__init__` and names its inputs' pairs of ids and
    mask in `input_pairs`: {ids name: (mask name, the config's vocabulary size field)}.
    """

    input_pairs = {}
    # A context manager, in which each call's attention weights are collected.
    record_attention = staticmethod(record_attention)
    # A context manager, in which each call is a step of a loop; and what writes what it left unwritten.
    stepping = staticmethod(stepping)
    put_in_cache = staticmethod(put)

    def __init__(self, inputs, outputs, **kwargs):
        for name in kwargs.keys() - {"name", "trainable"}:  # Keras would take it, and do nothing with it
            raise ValueError(
                f"{type(self).__name__} takes a {self.config_class.__name__}, dtype, name and trainable. "
                f"Received: {name}={kwargs[name]!r:.100}. Put what else it shall be into the config."
            )
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

    def __call__(self, inputs, *args, **kwargs):
        inputs = self.complete_inputs(inputs) if isinstance(inputs, dict) else inputs
        return super().__call__(inputs, *args, **kwargs)

    def complete_inputs(self, inputs):
        """Adds masks that were left out (all tokens real); checks names of masks, and ids of known values."""
        if not isinstance(inputs, dict):
            raise ValueError(
                f"The inputs must be a dict of {', '.join(self.input_pairs)}. "
                f"Received: {type(inputs).__name__}."
            )
        if not any(name in inputs for name in self.input_pairs):
            raise ValueError(
                f"The inputs must have {' and '.join(self.input_pairs)}. "
                f"Received: {', '.join(inputs) or 'none'}."
            )
        masks = [mask_name for mask_name, _ in self.input_pairs.values()]
        for name in inputs:
            if name.endswith("mask") and name not in masks:  # Keras leaves out what is no input
                raise ValueError(
                    f"A padding mask of {type(self).__name__} is under {' or '.join(masks)}. "
                    f"Received: {name}. Rename it, or leave it out."
                )
        inputs = {name: _as_ids(value) for name, value in inputs.items() if value is not None}
        for ids_name, (mask_name, vocabulary_field) in self.input_pairs.items():
            ids = inputs.get(ids_name)
            if ids is None:
                continue
            check_ids(ids, ids_name, getattr(self.config, vocabulary_field))
            if mask_name not in inputs:
                inputs[mask_name] = ops.ones_like(ids, dtype="int32")
        return inputs

    def quantize(self, mode=None, config=None, filters=None, **options):
        """As Keras's, but "int8" rounds weights only, and never what they are multiplied with."""
        with _one_collection(), warnings.catch_warnings():
            # Norms and the like stay as they are.
            warnings.filterwarnings("ignore", "Layer .* does not have a `quantize` method")
            super().quantize(mode, config, filters, **options)

    def get_config(self):
        policy_map = keras.dtype_policies.DTypePolicyMap()
        for layer in self._flatten_layers():
            if layer.quantization_mode is not None:
                policy_map[layer.path] = layer.dtype_policy
        # Outermost layers that are frozen, of a model that is not.
        frozen = [] if not self.trainable else _frozen_paths(self.layers)
        dtype = policy_map if len(policy_map) else self.dtype_policy
        return {
            "name": self.name,
            "trainable": {"frozen": frozen} if frozen else self.trainable,
            "dtype": keras.dtype_policies.serialize(dtype),
            "config": dataclasses.asdict(self.config),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        fields = config["config"].items()  # JSON has no tuples
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields}
        config["config"] = cls.config_class(**fields)
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        frozen = set()
        if isinstance(config.get("trainable"), dict):
            frozen, config["trainable"] = set(config["trainable"]["frozen"]), True
        model = cls(**config)
        for layer in model._flatten_layers():
            if layer.path in frozen:
                layer.trainable = False
        return model


@contextlib.contextmanager
def _one_collection():
    """Within it little garbage is looked for, as Keras does for each matrix that it replaces; then all."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.collect()


def _frozen_paths(layers):
    paths = []
    for layer in layers:
        if layer.weights and not layer.trainable:
            paths.append(layer.path)
        elif layer.weights:
            paths += _frozen_paths(layer._flatten_layers(include_self=False, recursive=False))
    return paths


def _as_ids(value):
    return value if keras.utils.is_keras_tensor(value) else ops.convert_to_tensor(value, "int32")


def check_ids(ids, name, vocabulary_size):
    """Raises ValueError for ids outside the vocabulary, where their values are known (not traced)."""
    try:
        values = np.asarray(ids)
    except (TypeError, NotImplementedError, ValueError):  # symbolic: values are not known yet
        return
    if values.dtype.kind not in "iu" or not values.size:
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= vocabulary_size:
        bad = low if low < 0 else high
        raise ValueError(
            f"{name} must be at least 0 and below the vocabulary size {vocabulary_size}. "
            f"Received: {bad}. Use the tokenizer that the model was built for."
        )
