"""What an operator of TF Serving needs beside an export."""

import json
import os
import platform
import re
import shlex
import string
from importlib import resources

from tfmodels.serving.check import check

_TEXT = "It was a dark and stormy night."
_GAIN = 1.1  # a larger batch must answer so many times as many texts a second


def write_serving_files(path, name=None, seconds=1.0):
    """Writes `path/serving/`: configs of TF Serving, manifests and example requests, fitted to an export.

    TF Serving looks only at folders that are numbers, so the files may lie beside the versions.

    Args:
        path: str, the folder of all versions.
        name: str, the model's name in requests; None: the folder's.
        seconds: float, of measurement for each batch size.

    Returns:
        str, the folder written.

    Raises:
        ValueError: the name is none that a URL and a container may have; the export does not answer.
        FileNotFoundError: there is no export.
    """
    name = model_name(path, name)
    found = check(path, seconds)
    values = _values(name, found)
    folder = os.path.join(path, "serving")
    os.makedirs(folder, exist_ok=True)
    for source in sorted(resources.files("tfmodels.serving.operator_files").iterdir(), key=lambda f: f.name):
        if source.name in ("__init__.py", "__pycache__"):
            continue
        text = string.Template(source.read_text(encoding="utf-8")).substitute(values)
        with open(os.path.join(folder, source.name), "w", encoding="utf-8") as file:
            file.write(text)
    return folder


def model_name(path, name=None):
    """The name that `write_serving_files` gives a model.

    Raises:
        ValueError: it is none that a URL and a container may have.
    """
    name = name or os.path.basename(os.path.abspath(path))
    if not re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise ValueError(
            "A model's name must be small letters, digits and hyphens, at most 63, as Kubernetes has it. "
            f"Received: {name!r}. Give another."
        )
    return name


def _values(name, found):
    card, best = found["card"], best_batch(found["batches"])
    specs = card["signatures"]["serving_default"]["inputs"]
    inputs = {key: [_TEXT] if len(spec["shape"]) == 1 else [[_TEXT, _TEXT]] for key, spec in specs.items()}
    latency = next(row for row in found["batches"] if row["batch"] == best)["median_milliseconds"]
    bytes_ = sum(
        os.path.getsize(os.path.join(root, file))
        for root, _, files in os.walk(found["folder"])
        for file in files
    )
    libraries = "The export needs core ops alone."
    if card["libraries"]:
        libraries = "The export needs ops of tensorflow-text, which the standard image has."
    return {
        "name": name,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "measured": "\n".join(
            f"#   batch {row['batch']}: {row['median_milliseconds']:.0f} ms, "
            f"{row['texts_per_second']:.0f} texts/s"
            for row in found["batches"]
        ),
        "max_batch_size": best,
        # To wait for a tenth of what an answer takes costs little and joins many.
        "timeout_micros": max(1000, min(20_000, round(latency * 100))),
        "threads": os.cpu_count(),
        "image": card["versions"]["tensorflow"],
        "memory": f"{bytes_ * 3 // 2**20 + 512}Mi",
        "libraries": libraries,
        # Between single quotes of a shell.
        "request": shlex.quote(json.dumps({"inputs": inputs}))[1:-1],
        "inputs": json.dumps(inputs),
    }


def best_batch(rows):
    """The largest measured batch that answers clearly more texts a second than the one before it."""
    best = rows[0]
    for row in rows[1:]:
        if row["texts_per_second"] < _GAIN * best["texts_per_second"]:
            break
        best = row
    return best["batch"]
