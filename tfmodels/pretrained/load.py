"""`from_pretrained`: a folder of config.json and safetensors, or a hub id, becomes a model."""

import dataclasses
import os
import re

from tfmodels.pretrained.architecture import by_type
from tfmodels.pretrained.checkpoint import FLOATS, Checkpoint, read_json
from tfmodels.pretrained.fields import Fields
from tfmodels.pretrained.tensors import assign


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a model came from, so that `save_pretrained` can write it back as it was.

    Attributes:
        folder: str.
        fields: `Fields`, its config.json and generation_config.json.
        name: str, transformers' class.
        prefix: str, before the backbone's tensors.
        dtypes: dict of tensor name -> stored dtype.
    """

    folder: str
    fields: Fields
    name: str
    prefix: str
    dtypes: dict


def from_pretrained(folder_or_id, task=None, dtype=None):
    """Reads a checkpoint of transformers: config.json and safetensors, without torch or pickle.

    Everything is checked before the model is built: the config's fields, then each tensor's name,
    shape and type.

    Args:
        folder_or_id: path of a folder, or a model id of the Hugging Face hub.
        task: None: the model that the folder's `architectures` names, its head included;
            "causal_language_modelling": a model of that task.
        dtype: Keras dtype policy, such as "mixed_bfloat16"; None: the global one.

    Returns:
        A model, such as a `GPT2` or a `Bert`, with the checkpoint's weights.

    Raises:
        ValueError: the folder, its config or a tensor is not what it must be; the message names it.

    Example:
        >>> model = tfmodels.from_pretrained("checkpoints/distilgpt2")
        >>> model.compile("adamw")
    """
    folder = _find_folder(folder_or_id)
    fields = _read_fields(folder)
    architecture = by_type(fields.get("model_type"))
    name = _class_name(fields, architecture, task)
    head = architecture.heads[name]
    config = dataclasses.replace(architecture.read_config(fields), **head.backbone)
    checkpoint = Checkpoint(folder)
    prefix = _stored_prefix(checkpoint, architecture)
    entries = {}
    for stored, entry in stored_tensors(architecture, head, config, prefix):
        # One by one, so that a config of a billion layers ends at the first that is not there.
        _check_tensor(checkpoint, stored, entry)
        entries[stored] = entry
    _check_extra(checkpoint, entries, architecture, prefix)
    model = architecture.backbone(config, dtype=dtype)
    for stored, entry in entries.items():
        assign(model, entry, checkpoint.read(stored))
    model.pretrained_source = Source(folder, fields, name, prefix, checkpoint.dtypes)
    return model


def stored_tensors(architecture, head, config, prefix):
    """Pairs of a name in the file and its `Tensor`: the backbone's and the head's."""
    for entry in architecture.tensors(config):
        yield prefix + entry.name, entry
    for entry in head.tensors(config):
        yield entry.name, entry


def _find_folder(folder_or_id):
    """The folder itself, or the hub's copy of a model id."""
    path = os.fspath(folder_or_id)
    if os.path.isdir(path):
        return path
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", path):
        raise ValueError(f"There must be a folder {path}. Received: none, and no model id of the hub.")
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"{path} is no folder here, and reading it from the hub needs huggingface_hub: "
            "pip install huggingface_hub."
        ) from error
    try:
        return huggingface_hub.snapshot_download(
            path, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.spm"]
        )
    except (OSError, ValueError) as error:  # the hub's own errors are among these
        raise ValueError(
            f"{path!r} must be a folder or a model id of the hub. Received: no such folder, and "
            f"from the hub: {error}"
        ) from error


def _read_fields(folder):
    generation = os.path.join(folder, "generation_config.json")
    return Fields(
        read_json(os.path.join(folder, "config.json")),
        read_json(generation) if os.path.exists(generation) else None,
    )


def _class_name(fields, architecture, task):
    """Transformers' class for a task, or the one that config.json names."""
    if task is not None:
        tasks = {head.task: name for name, head in reversed(architecture.heads.items()) if head.task}
        if task not in tasks:
            raise ValueError(
                f"task must be one of {', '.join(sorted(tasks))} for {architecture.model_type}. "
                f"Received: task={task!r}."
            )
        return tasks[task]
    names = fields.get("architectures", [])
    if not isinstance(names, list) or len(names) != 1 or names[0] not in architecture.heads:
        raise ValueError(
            f"config.json: architectures must name one of {', '.join(architecture.heads)}. "
            f"Received: {names!r}. Pass task= to choose."
        )
    return names[0]


def _stored_prefix(checkpoint, architecture):
    """The backbone's prefix in this file: checkpoints of the bare backbone have none."""
    headed = any(name.startswith(architecture.prefix) for name in checkpoint.shapes)
    return architecture.prefix if headed else ""


def _check_tensor(checkpoint, name, entry):
    """The tensor is in the file, of its shape and of a float type."""
    if name not in checkpoint.shapes:
        raise ValueError(
            f"The checkpoint must hold the tensor {name!r} of shape {entry.shape}. "
            f"Received: no such tensor in {checkpoint.folder}."
        )
    if checkpoint.shapes[name] != entry.shape:
        raise ValueError(
            f"The tensor {name!r} must have the shape {entry.shape} that config.json asks for. "
            f"Received: {checkpoint.shapes[name]}."
        )
    if checkpoint.dtypes[name] not in FLOATS.values():
        raise ValueError(
            f"The tensor {name!r} must be one of {', '.join(FLOATS.values())}. "
            f"Received: {checkpoint.dtypes[name]}."
        )


def _check_extra(checkpoint, entries, architecture, prefix):
    """The file holds no tensor that the model has no place for."""
    ignored = re.compile("|".join(architecture.ignored) or "(?!)")
    for name in sorted(checkpoint.shapes.keys() - entries.keys()):
        if not ignored.fullmatch(name.removeprefix(prefix)):
            raise ValueError(
                f"The checkpoint must hold no tensor but those of {architecture.model_type} with its "
                f"head. Received: {name!r}, which has no place in the model."
            )
