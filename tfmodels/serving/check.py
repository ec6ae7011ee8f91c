"""`tfmodels check`: an export as a server would load it."""

import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys

LITERT_MODEL = "model.tflite"
_SCRIPT = pathlib.Path(__file__).parent / "check_export.py"


def version_folder(path):
    """The newest version under a path, or the path if it is a version itself.

    Raises:
        FileNotFoundError: there is no export.
        ValueError: it is one for LiteRT, which nothing here loads.
    """
    path = os.fspath(path)
    if not any(os.path.isfile(os.path.join(path, name)) for name in ("saved_model.pb", LITERT_MODEL)):
        versions = [n for n in os.listdir(path) if n.isdigit()] if os.path.isdir(path) else []
        if not versions:
            raise FileNotFoundError(f"There is no export in {path!r}. Give a folder of tfmodels export.")
        path = os.path.join(path, max(versions, key=int))
    if not os.path.isfile(os.path.join(path, "assets.extra", "tfmodels.json")):
        raise FileNotFoundError(
            f"{path!r} has no assets.extra/tfmodels.json. Give what tfmodels export wrote."
        )
    if os.path.isfile(os.path.join(path, LITERT_MODEL)):
        raise ValueError(
            f"{path!r} is an export for LiteRT, which runs on a device. check and serve load a SavedModel: "
            'export the model with format="tf_saved_model".'
        )
    return path


def read_card(folder):
    """The description of an export: dict."""
    with open(os.path.join(folder, "assets.extra", "tfmodels.json"), encoding="utf-8") as file:
        return json.load(file)


def library_paths(card):
    """The files of the op libraries that an export needs beside TensorFlow's core.

    Raises:
        ImportError: tensorflow_text, which has them, is not installed.
    """
    if not card["libraries"]:
        return []
    spec = importlib.util.find_spec("tensorflow_text")
    if spec is None:
        raise ImportError(
            f"The export needs {', '.join(card['libraries'])} of tensorflow-text. "
            "Run pip install 'tensorflow-text>=2.21.1'."
        )
    folder = os.path.join(spec.submodule_search_locations[0], "python", "ops")
    return [os.path.join(folder, name) for name in card["libraries"]]


def check(path, seconds=1.0):
    """Loads an export in a clean process, replays its warm-up requests and measures it.

    Args:
        path: str, an export, or the folder of its versions: then the newest.
        seconds: float, for each batch size that is measured.

    Returns:
        Dict of `folder`, `card` and what `check_export.py` prints.

    Raises:
        FileNotFoundError: there is no export.
        ValueError: it is one for LiteRT, does not load, or does not answer.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be above 0 and finite. Received: {seconds}.")
    folder = version_folder(path)
    card = read_card(folder)
    done = subprocess.run(
        [sys.executable, "-I", _SCRIPT, folder, str(seconds)],
        input=json.dumps(library_paths(card)),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ValueError(f"{folder}: the export does not load and answer. Received: {last}")
    return {"folder": folder, "card": card, **json.loads(done.stdout)}


def report(found):
    """What `check` found, as text."""
    card = found["card"]
    lines = [
        f"{found['folder']}: {card['model']} with {card['tokenizer']}",
        f"loads in {found['load_seconds']:.1f} s",
        f"op libraries beside TensorFlow's core: {', '.join(card['libraries']) or 'none'}",
        f"warm-up requests replayed: {found['requests']}",
        "",
    ]
    for name, signature in card["signatures"].items():
        sides = [
            ", ".join(f"{key} {_shape(x)}" for key, x in signature[side].items() if not _is_cache(key))
            for side in ("inputs", "outputs")
        ]
        lines.append(f"{name}: {sides[0]} -> {sides[1]}")
    lines += ["", "BATCH  MEDIAN ms  SLOWEST ms  TEXTS/s"]
    for row in found["batches"]:
        lines.append(
            f"{row['batch']:5}  {row['median_milliseconds']:9.1f}  {row['slowest_milliseconds']:10.1f}  "
            f"{row['texts_per_second']:7.1f}"
        )
    return "\n".join(lines)


def _shape(tensor):
    return f"{tensor['dtype']}{['?' if n is None else n for n in tensor['shape']]}".replace("'", "")


def _is_cache(key):
    return key.startswith("cache_") and key[6:].isdigit()
