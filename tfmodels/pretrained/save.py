"""`save_pretrained`: a model becomes a folder that transformers loads."""

import json
import os
import shutil
import tempfile

import numpy as np
from safetensors.numpy import save_file

from tfmodels.pretrained.architecture import all_heads, by_model
from tfmodels.pretrained.checkpoint import INDEX, WEIGHTS, numpy_dtype
from tfmodels.pretrained.fields import GENERATION_FIELDS, Fields
from tfmodels.pretrained.load import stored_tensors
from tfmodels.pretrained.sentence_transformers import write_sentence_files
from tfmodels.pretrained.tensors import gather

# What a folder holds beside config and weights, and keeps its meaning when they change.
_OTHER_FILES = (
    "added_tokens.json",
    "config_sentence_transformers.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "sentence_bert_config.json",
    "sentencepiece.bpe.model",
    "source.spm",
    "special_tokens_map.json",
    "spiece.model",
    "target.spm",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_GENERATION_FILES = ("generation_config.json",)
_LABELS = ("id2label", "label2id", "num_labels", "problem_type")
# transformers refuses a config.json with these.
_GENERATION_ONLY = ("bad_words_ids", "forced_bos_token_id", "forced_eos_token_id")
_SHARD_BYTES = 5_000_000_000  # one file stays below what common file systems and hosts take


def save_pretrained(model, folder, tokenizer=None):
    """Writes a model as config.json and safetensors, as transformers reads them.

    The folder is written aside and put in place at the end. A model that `from_pretrained` read
    keeps its config's other fields, its tokenizer files, and the stored type of each tensor that
    loses nothing by it.

    Args:
        model: a model of an architecture that transformers has.
        folder: path; an existing folder's config and weights are replaced.
        tokenizer: its files are written too; None: those of the folder that the model came from.

    Raises:
        ValueError: transformers has no such model; it is quantized.

    Example:
        >>> tfmodels.save_pretrained(model, "checkpoints/fine_tuned", tokenizer)
    """
    if any(layer.quantization_mode for layer in model._flatten_layers()):
        raise ValueError(
            "save_pretrained writes float weights. Received: a quantized model. "
            "Save it with model.save, or save the model before quantize."
        )
    named = by_model(model)
    folder = os.path.abspath(os.fspath(folder))
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    aside = tempfile.mkdtemp(prefix=f".{os.path.basename(folder)}.", dir=os.path.dirname(folder))
    try:
        os.chmod(aside, 0o755)  # mkdtemp's own is for the owner alone
        source = _write_model(model, *named, aside)
        if tokenizer is not None:
            tokenizer.save_pretrained(aside)
        if source:
            _copy_others(source.folder, aside, _OTHER_FILES if tokenizer is None else _GENERATION_FILES)
        _put_in_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_model(model, architecture, name, head, folder):
    """Writes weights and configs; returns the model's `Source`, or None."""
    backbone = getattr(model, "backbone", model)
    # A head that was put on a loaded backbone by hand has its backbone's.
    source = getattr(model, "pretrained_source", None) or getattr(backbone, "pretrained_source", None)
    same = source is not None and _is_class(architecture, source.name, model, backbone)
    if same:
        name = source.name
        head = architecture.heads[name] if head.task != "sentence_embedding" else head
    prefix = head.stored_prefix(architecture) if architecture.heads[name].task else ""
    own = same and _keeps_names(source, architecture, name, head)
    prefix = source.prefix if own else prefix
    config = head.backbone_config(backbone.config)
    head_config = None if head.model is None else model.config
    present = source.dtypes if own else None
    entries = dict(stored_tensors(architecture, head, config, head_config, prefix, present))
    dtypes = _stored_dtypes(entries, source, prefix) if source else {}
    carried = _carried(entries, source, prefix) if same else {}
    _write_weights(model, entries, dtypes, carried, folder)
    fields, generation = _fields(model, architecture, name, head, source)
    _write_json(fields, folder, "config.json")
    if generation:
        _write_json(generation, folder, "generation_config.json")
    if head.task == "sentence_embedding":
        write_sentence_files(model.config, config.hidden_dim, folder)
    return source


def _is_class(architecture, name, model, backbone):
    """Whether a model is still what its folder named."""
    return any(name == known and head.holds(model, backbone) for known, head in all_heads(architecture))


def _keeps_names(source, architecture, name, head):
    """Whether tensors are written under the folder's own names: another class may stand before others."""
    fits = source.prefix in ("", head.stored_prefix(architecture))
    return fits and source.fields.get("architectures") == [name]


def _stored_dtypes(entries, source, prefix):
    """The source's stored types, under the names that are written."""
    dtypes = {}
    for name in entries:
        old = source.prefix + name.removeprefix(prefix) if name.startswith(prefix) else name
        if name in source.dtypes or old in source.dtypes:
            dtypes[name] = source.dtypes.get(name, source.dtypes.get(old))
    return dtypes


def _carried(entries, source, prefix):
    """What nothing has read, under the names that are written; a fresh head's own tensors come first."""
    carried = {}
    for old, array in source.carried.items():
        name = prefix + old.removeprefix(source.prefix) if old.startswith(source.prefix) else old
        if name not in entries and old not in entries:
            carried[name] = array
    return carried


def _fields(model, architecture, name, head, source):
    """The objects of config.json and, unless the source's is kept, generation_config.json."""
    backbone = getattr(model, "backbone", model)

    def read(fields):
        config = head.backbone_config(architecture.read_config(fields))
        written = head.model is not None and head.task != "sentence_embedding"
        return config, head.config(config, **head.read(fields)) if written else None

    fields = {"architectures": [name], "model_type": architecture.model_type}
    fields |= architecture.write_config(head.backbone_config(backbone.config))
    written = {} if head.model is None else head.write(model.config)
    fields |= written
    generation = {}
    if hasattr(model, "decode_step"):
        generation = {field: fields[field] for field in GENERATION_FIELDS if field in fields}
    fields = {field: value for field, value in fields.items() if field not in _GENERATION_ONLY}
    if source is None:
        return _with_padding(fields, head), generation
    others = source.fields.values
    own = others.get("architectures") == [name]
    labels = {field: written[field] for field in _LABELS if field in written}
    if not own:
        others = _without_labels(others) | labels
    if read(source.fields) == read(Fields(fields, generation or None)):
        values = others | {"architectures": [name]}
        # transformers 5 writes special tokens beside the config, where a class that does not generate
        # does not look for them.
        ids = {field: fields[field] for field in GENERATION_FIELDS if fields.get(field) is not None}
        return values if own else _with_padding(ids | values, head), {}
    if labels:
        others = _without_labels(others)
    generation = generation and source.fields.generation | generation
    return _with_padding(others | fields, head), generation


def _without_labels(fields):
    """transformers refuses numbers of labels that contradict each other, or that a class cannot have."""
    return {field: value for field, value in fields.items() if field not in _LABELS}


def _with_padding(fields, head):
    """transformers finds the last real token by the id of padding: without one a batch fails."""
    end = fields.get("eos_token_id")
    if head.fixed.get("pooling") == "last" and fields.get("pad_token_id") is None and end is not None:
        return fields | {"pad_token_id": end[0] if isinstance(end, list | tuple) else end}
    return fields


def _write_weights(model, entries, dtypes, carried, folder):
    entries = entries | dict.fromkeys(carried)
    shards = _shards(entries, carried)
    files = [WEIGHTS]
    if len(shards) > 1:
        total = len(shards)
        files = [f"model-{i + 1:05d}-of-{total:05d}.safetensors" for i in range(total)]
    places, size = {}, 0
    for file, names in zip(files, shards, strict=True):
        arrays = {
            n: carried[n] if n in carried else _stored(gather(model, entries[n]), dtypes.get(n))
            for n in names
        }
        size += sum(array.nbytes for array in arrays.values())
        places |= dict.fromkeys(names, file)
        # transformers asks for this mark of the layout.
        save_file(arrays, os.path.join(folder, file), metadata={"format": "pt"})
    if len(shards) > 1:
        _write_json({"metadata": {"total_size": size}, "weight_map": places}, folder, INDEX)


def _shards(entries, carried):
    """Lists of tensor names, each of up to `_SHARD_BYTES` in float32."""
    shards, size = [[]], 0
    for name, entry in entries.items():
        nbytes = 4 * int(np.prod(carried.get(name, entry).shape))
        if shards[-1] and size + nbytes > _SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes
    return shards


def _stored(array, dtype):
    """The array in the type it was stored in, if not one value changes by that."""
    if dtype is None or dtype == array.dtype.name:
        return array
    with np.errstate(over="ignore"):  # a float16 that overflows is seen by the comparison
        narrow = array.astype(numpy_dtype(dtype))
    return narrow if np.array_equal(narrow.astype(array.dtype), array) else array


def _write_json(value, folder, name):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def _copy_others(source, folder, names):
    for name in names:
        path = os.path.join(source, name)
        if os.path.isfile(path) and not os.path.exists(os.path.join(folder, name)):
            shutil.copyfile(path, os.path.join(folder, name))


def _put_in_place(aside, folder):
    """Renames the finished folder, or, into one that exists, each file, config.json last."""
    if not os.path.exists(folder):
        os.rename(aside, folder)
        return
    written = [
        os.path.relpath(os.path.join(place, name), aside)
        for place, _, names in os.walk(aside)
        for name in names
    ]
    for name in sorted(written, key=lambda name: name == "config.json"):
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        os.replace(os.path.join(aside, name), os.path.join(folder, name))
    for name in os.listdir(folder):  # another layout's weights would contradict these
        weights = name.startswith("model") and name.endswith((".safetensors", ".safetensors.index.json"))
        if weights and name not in written:
            os.remove(os.path.join(folder, name))
