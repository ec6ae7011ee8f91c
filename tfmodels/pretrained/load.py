"""`from_pretrained`: a folder of config.json and safetensors, or a hub id, becomes a model."""

import dataclasses
import logging
import os
import re

from tfmodels.pretrained.architecture import by_type
from tfmodels.pretrained.checkpoint import FLOATS, Checkpoint, read_json
from tfmodels.pretrained.choose import choose, known_names
from tfmodels.pretrained.fields import Fields
from tfmodels.pretrained.tensors import assign, variables_of
from tfmodels.pretrained.unfilled import unfilled_variables

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a model came from, so that `save_pretrained` can write it back as it was.

    Attributes:
        folder: str.
        fields: `Fields`, its config.json and generation_config.json.
        name: str, transformers' class.
        prefix: str, before the backbone's tensors.
        dtypes: dict of tensor name -> stored dtype.
        carried: dict of tensor name -> array, what nothing reads and is written back as it was.
    """

    folder: str
    fields: Fields
    name: str
    prefix: str
    dtypes: dict
    carried: dict


def from_pretrained(folder_or_id, task=None, dtype=None, **options):
    """Reads a checkpoint of transformers: config.json and safetensors, without torch or pickle.

    Everything is checked before the model is built: the config's fields, then each tensor's name,
    shape and type. A line of `logging` says which weights of the model are fresh, and which of the
    folder's are left out because they belong to another head.

    Args:
        folder_or_id: path of a folder, or a model id of the Hugging Face hub.
        task: None: the model that the folder's `architectures` names, its head included. Otherwise
            "causal_language_modelling", "masked_language_modelling", "sequence_classification",
            "regression", "token_classification", "question_answering", "multiple_choice",
            "next_sentence_prediction", "pre_training" or "sentence_embedding", as far as
            transformers has it for the architecture: that head with the folder's weights where they
            are its own, else with fresh ones.
        dtype: Keras dtype policy, such as "mixed_bfloat16"; None: the global one.
        **options: fields of the head's config, such as `num_labels=3` or `labels=["bad", "good"]`;
            what is left out is as config.json says. Where the head has no such field, those of the
            backbone's config that training alone follows: `dropout`, `embedding_dropout` (GPT-2),
            `attention_dropout`, `intermediate_dropout` (BART, Marian), `label_smoothing` of a language
            model's loss, `rematerialise`.

    Returns:
        A model, such as a `GPT2`, a `Bert` or a `SequenceClassifier`, with the checkpoint's weights.

    Raises:
        ValueError: the folder, its config or a tensor is not what it must be, or an option is
            unknown; the message names it.

    Example:
        >>> model = tfmodels.from_pretrained(
        ...     "checkpoints/bert", task="sequence_classification", labels=["bad", "good"]
        ... )
        >>> model.compile("adamw")
    """
    folder = _find_folder(folder_or_id)
    fields = _read_fields(folder)
    architecture = by_type(fields.get("model_type"))
    checkpoint = Checkpoint(folder)
    prefix = _stored_prefix(checkpoint, architecture)
    _untie(fields, architecture, checkpoint, prefix)
    choice = choose(fields, architecture, checkpoint, task, options)
    head = choice.head
    whole = architecture.complete(architecture.read_config(fields), checkpoint)
    config = dataclasses.replace(head.backbone_config(whole), **choice.training)
    if head.task in (None, "sentence_embedding"):
        config = _without_missing_parts(config, architecture, checkpoint, prefix)
    others = known_names(architecture, whole)
    if task is not None:
        _check_parts(checkpoint, architecture, head, prefix, task)
    entries, first, fresh = _matched(checkpoint, architecture, choice, config, prefix, others)
    carried, left_out = _extra(checkpoint, entries, architecture, choice, prefix, others, task)
    if fresh or left_out:
        ending = f" Left out: {', '.join(left_out)}." if left_out else ""
        _LOG.warning("%s: fresh: %s.%s", folder, ", ".join(fresh) or "none", ending)
    if ignored := fields.ignored_rules():
        ignored = ", ".join(f"{name}={value!r}" for name, value in ignored.items())
        message = "%s: not used: %s. Give generate bad_words or forced_tokens instead."
        _LOG.warning(message, folder, ignored)
    with unfilled_variables() as fill_others:
        backbone = (head.backbone_class or architecture.backbone)(config, dtype=dtype)
        model = backbone if head.model is None else head.model(backbone, choice.config)
    for stored in first.values():
        assign(model, entries[stored], checkpoint.read(stored))
    fill_others(variables_of(model, entries.values()))
    carried = {name: checkpoint.read(name) for name in carried}
    source = Source(folder, fields, choice.name, prefix, checkpoint.dtypes, carried)
    model.pretrained_source = backbone.pretrained_source = source
    return model


def stored_tensors(architecture, head, config, head_config, prefix, present=None):
    """Pairs of a name in the file and its `Tensor`: the backbone's and the head's.

    A tensor comes once for each of its names in `present`, the names in a file that is there, and
    an optional one not at all if it is not there. Without such a file each comes once.
    """
    backbone = (head.backbone_tensors or architecture.tensors)(config)
    if head.model is not None:
        backbone = (
            dataclasses.replace(entry, variables=tuple(f"backbone.{address}" for address in entry.variables))
            for entry in backbone
        )
    for before, entries in ((prefix, backbone), ("", head.own_tensors(config, head_config))):
        for entry in entries:
            # Copies are named as in a checkpoint with a head.
            cut = "" if prefix else head.stored_prefix(architecture)
            names = [before + entry.name, *(name.removeprefix(cut) for name in entry.copies)]
            # A head may stand before another prefix than the architecture's own, as T5's do.
            names += [before + name for name in entry.copies if not name.startswith(before)]
            held = [name for name in names if name in (present or ())]
            if not held and not (entry.optional and present is not None):
                held = names[:1]
            for name in held:
                yield name, entry


def _check_parts(checkpoint, architecture, head, prefix, task):
    """Such as the decoder, which a folder of another class may lack as a whole."""
    parts = {part for other in architecture.heads.values() for part in other.leaves_out}
    for part in sorted(parts - set(head.leaves_out)):
        if not any(name.startswith(prefix + part) for name in checkpoint.shapes):
            raise ValueError(
                f"task={task!r} must have a folder with a {part.removesuffix('.')}. "
                f"Received: {checkpoint.folder}, which has none. Choose a task of the part that it holds."
            )


def _matched(checkpoint, architecture, choice, config, prefix, others):
    """Checks the model's tensors against the file's headers; `others` are names of all heads' tensors.

    Returns:
        Dict of the file's names -> `Tensor`; dict of `Tensor` names -> the first of the file's names;
        names of tensors that start fresh.
    """
    own = {entry.name for entry in choice.head.own_tensors(config, choice.config)}
    parts = tuple(prefix + start for start in architecture.optional.values())
    entries, first, fresh = {}, {}, []
    tensors = stored_tensors(architecture, choice.head, config, choice.config, prefix, checkpoint.shapes)
    for stored, entry in tensors:
        missing_part = stored.startswith(parts) and stored not in checkpoint.shapes
        if choice.fresh and (stored in own or missing_part):
            fresh.append(stored)
            continue
        # A copy under the name of another head's own matrix is none: words out that are not tied.
        if entry.name in first and stored in others - own:
            continue
        # One by one, so that a config of a billion layers ends at the first that is not there.
        _check_tensor(checkpoint, stored, entry)
        entries[stored] = entry
        _check_copy(checkpoint, stored, first.setdefault(entry.name, stored))
    return entries, first, fresh


def _without_missing_parts(config, architecture, checkpoint, prefix):
    """The backbone's config without the optional parts that this file lacks."""
    missing = {
        flag: False
        for flag, start in architecture.optional.items()
        if not any(name.startswith(prefix + start) for name in checkpoint.shapes)
    }
    return dataclasses.replace(config, **missing)


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


def _stored_prefix(checkpoint, architecture):
    """The backbone's prefix in this file: checkpoints of the bare backbone have none."""
    prefixes = dict.fromkeys(head.stored_prefix(architecture) for head in architecture.heads.values())
    longest_first = sorted(prefixes, key=len, reverse=True)  # one of them may be empty
    return next((p for p in longest_first if any(name.startswith(p) for name in checkpoint.shapes)), "")


def _untie(fields, architecture, checkpoint, prefix):
    """Unties words in and words out that the file holds with different values, whatever config.json says."""
    originals = {
        name: original if original in checkpoint.shapes else prefix + original
        for name, original in architecture.tied.items()
    }
    # As transformers does. A file without an original is refused later.
    pairs = [pair for pair in originals.items() if set(pair) <= checkpoint.shapes.keys()]
    if not fields.flag("tie_word_embeddings", True) or all(checkpoint.same(*pair) for pair in pairs):
        return
    fields.values["tie_word_embeddings"] = False
    for name, original in originals.items():
        if name not in checkpoint.shapes and original in checkpoint.shapes:
            checkpoint.add_copy(name, original)


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


def _check_copy(checkpoint, name, first):
    """A tensor that the file holds under several names is the same under each."""
    if name != first and not checkpoint.same(name, first):
        raise ValueError(
            f"The tensors {first!r} and {name!r} must be equal: the model has one for both. "
            f"Received: different values in {checkpoint.folder}. If they are meant to differ, config.json "
            "must say so, as tie_word_embeddings=false does."
        )


def _extra(checkpoint, entries, architecture, choice, prefix, others, task):
    """Checks the file's tensors that the model does not take; those named in `others` are left out.

    Returns:
        Names of those that nothing reads and that are written back as they were; names of those that
        are left out.
    """
    ignored = re.compile("|".join(architecture.ignored) or "(?!)")
    carried = re.compile("|".join(architecture.carried) or "(?!)")
    parts = [*architecture.optional.values(), *(choice.head.leaves_out if task else ())]
    parts = tuple(prefix + start for start in parts)
    along, left_out = [], []
    for name in sorted(checkpoint.shapes.keys() - entries.keys()):
        inner = name.removeprefix(prefix)
        # Buffers of whole numbers are nobody's weights.
        buffer = checkpoint.dtypes[name] not in FLOATS.values()
        if carried.fullmatch(inner) or name in choice.head.unused or (buffer and ignored.fullmatch(inner)):
            along.append(name)
        elif ignored.fullmatch(inner):
            continue
        # Other heads' weights are known, and with task= so is what stands beside the backbone.
        elif name in others or name.startswith(parts) or (task and prefix and not name.startswith(prefix)):
            left_out.append(name)
        else:
            raise ValueError(
                f"The checkpoint must hold no tensor but those of {architecture.model_type} with its "
                f"head. Received: {name!r}, which has no place in the model."
            )
    return along, left_out
