"""`save_pretrained`: a model becomes a folder that transformers loads."""

import json
import os
import shutil
import tempfile

import numpy as np
from safetensors.numpy import save_file

from tfmodels.pretrained.architecture import by_model
from tfmodels.pretrained.checkpoint import INDEX, WEIGHTS, numpy_dtype
from tfmodels.pretrained.fields import GENERATION_FIELDS, Fields
from tfmodels.pretrained.load import stored_tensors
from tfmodels.pretrained.tensors import gather

# What a folder holds beside config and weights, and keeps its meaning when they change.
_OTHER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
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
# transformers refuses a config.json with these.
_GENERATION_ONLY = ("bad_words_ids", "forced_bos_token_id", "forced_eos_token_id")
_SHARD_BYTES = 5_000_000_000  # one file stays below what common file systems and hosts take


def save_pretrained(model, folder):
    """Writes a model as config.json and safetensors, as transformers reads them.

    The folder is written aside and put in place at the end. A model that `from_pretrained` read
    keeps its config's other fields, its tokenizer files, and the stored type of each tensor that
    loses nothing by it.

    Args:
        model: a model of an architecture that transformers has.
        folder: path; an existing folder's config and weights are replaced.

    Raises:
        ValueError: transformers has no such model; it is quantized.

    Example:
        >>> tfmodels.save_pretrained(model, "checkpoints/fine_tuned")
    """
    if any(layer.quantization_mode for layer in model._flatten_layers()):
        raise ValueError(
            "save_pretrained writes float weights. Received: a quantized model. "
            "Save it with model.save, or save the model before quantize."
        )
    source = getattr(model, "pretrained_source", None)
    architecture, name = by_model(model)
    prefix = architecture.prefix if architecture.heads[name].task else ""
    if source is not None:
        name, prefix = source.name, source.prefix
    folder = os.path.abspath(os.fspath(folder))
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    aside = tempfile.mkdtemp(prefix=f".{os.path.basename(folder)}.", dir=os.path.dirname(folder))
    try:
        os.chmod(aside, 0o755)  # mkdtemp's own is for the owner alone
        head = architecture.heads[name]
        entries = dict(stored_tensors(architecture, head, model.config, prefix))
        _write_weights(model, entries, source.dtypes if source else {}, aside)
        fields, generation = _fields(model, architecture, name, source)
        _write_json(fields, aside, "config.json")
        if generation:
            _write_json(generation, aside, "generation_config.json")
        if source:
            _copy_others(source.folder, aside)
        _put_in_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fields(model, architecture, name, source):
    """The objects of config.json and, unless the source's is kept, generation_config.json."""
    fields = {"architectures": [name], "model_type": architecture.model_type}
    fields |= architecture.write_config(model.config)
    generation = {}
    if hasattr(model, "decode_step"):
        generation = {field: fields[field] for field in GENERATION_FIELDS if field in fields}
        fields = {field: value for field, value in fields.items() if field not in _GENERATION_ONLY}
    if source is None:
        return fields, generation
    same = architecture.read_config(source.fields) == architecture.read_config(Fields(fields, generation))
    if same:
        return source.fields.values | {"architectures": [name]}, {}
    return source.fields.values | fields, generation


def _write_weights(model, entries, dtypes, folder):
    shards = _shards(entries)
    files = [WEIGHTS]
    if len(shards) > 1:
        total = len(shards)
        files = [f"model-{i + 1:05d}-of-{total:05d}.safetensors" for i in range(total)]
    places, size = {}, 0
    for file, names in zip(files, shards, strict=True):
        arrays = {n: _stored(gather(model, entries[n]), dtypes.get(n)) for n in names}
        size += sum(array.nbytes for array in arrays.values())
        places |= dict.fromkeys(names, file)
        # transformers asks for this mark of the layout.
        save_file(arrays, os.path.join(folder, file), metadata={"format": "pt"})
    if len(shards) > 1:
        _write_json({"metadata": {"total_size": size}, "weight_map": places}, folder, INDEX)


def _shards(entries):
    """Lists of tensor names, each of up to `_SHARD_BYTES` in float32."""
    shards, size = [[]], 0
    for name, entry in entries.items():
        nbytes = 4 * int(np.prod(entry.shape))
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


def _copy_others(source, folder):
    for name in _OTHER_FILES:
        path = os.path.join(source, name)
        if os.path.isfile(path) and not os.path.exists(os.path.join(folder, name)):
            shutil.copyfile(path, os.path.join(folder, name))


def _put_in_place(aside, folder):
    """Renames the finished folder, or, into one that exists, each file, config.json last."""
    if not os.path.exists(folder):
        os.rename(aside, folder)
        return
    written = set(os.listdir(aside))
    for name in sorted(written, key=lambda name: name == "config.json"):
        os.replace(os.path.join(aside, name), os.path.join(folder, name))
    for name in os.listdir(folder):  # another layout's weights would contradict these
        weights = name.startswith("model") and name.endswith((".safetensors", ".safetensors.index.json"))
        if weights and name not in written:
            os.remove(os.path.join(folder, name))
