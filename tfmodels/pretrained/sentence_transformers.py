"""Folders of sentence-transformers: modules.json and the pooling it names, in and out."""

import json
import os

from tfmodels.pretrained.checkpoint import read_json

MODULES = "modules.json"
POOLING = os.path.join("1_Pooling", "config.json")
# Theirs -> ours, as a flag of the older files and as the name of the newer.
_FLAGS = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
_NAMES = {"cls": "first", "mean": "mean", "lasttoken": "last"}
_OTHER_FLAGS = (
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
)


def read_sentence_fields(folder):
    """The fields of a `SentenceEmbedderConfig` that a folder says.

    Args:
        folder: path.

    Returns:
        Dict of `pooling` and `normalize`; what sentence-transformers itself assumes, the mean as it is,
        where there is no modules.json.

    Raises:
        ValueError: modules or a pooling that this library does not have.
    """
    path = os.path.join(folder, MODULES)
    if not os.path.exists(path):
        return {"pooling": "mean", "normalize": False}
    modules = read_json(path, kind=list)
    kinds = [str(m.get("type")).rpartition(".")[2] if isinstance(m, dict) else None for m in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(
            f"{MODULES} must list Transformer, Pooling and perhaps Normalize. Received: {kinds}."
        )
    place = modules[1].get("path")
    if not isinstance(place, str) or not place or place != os.path.basename(place) or "\\" in place:
        raise ValueError(f"{MODULES} must name folders inside the folder. Received: path {place!r}.")
    pooling = _read_pooling(read_json(os.path.join(folder, place, "config.json")))
    return {"pooling": pooling, "normalize": len(kinds) == 3}


def _read_pooling(values):
    modes = [values["pooling_mode"]] if values.get("pooling_mode") else []
    modes = modes or [name for name, on in values.items() if name.startswith("pooling_mode_") and on]
    ours = [(_FLAGS | _NAMES).get(mode) for mode in modes if isinstance(mode, str)]
    if len(modes) != 1 or ours in ([], [None]):
        raise ValueError(
            f"1_Pooling/config.json must have one pooling mode of {', '.join(_NAMES)}. Received: {modes}."
        )
    return ours[0]


def write_sentence_files(config, hidden_dim, folder):
    """Writes modules.json and the pooling's config.

    Args:
        config: a `SentenceEmbedderConfig`.
        hidden_dim: int, of the vectors.
        folder: path.

    Raises:
        ValueError: sentence-transformers has no such pooling.
    """
    if config.pooling not in _NAMES.values():
        raise ValueError(
            f"sentence-transformers pools by {', '.join(_NAMES.values())}. "
            f"Received: pooling={config.pooling!r}. Save it with model.save instead."
        )
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * config.normalize
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": hidden_dim}
    pooling |= {flag: ours == config.pooling for flag, ours in _FLAGS.items()}
    pooling |= dict.fromkeys(_OTHER_FLAGS, False)
    os.makedirs(os.path.join(folder, os.path.dirname(POOLING)), exist_ok=True)
    for name, value in ((MODULES, modules), (POOLING, pooling)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
