"""Transformer models for Keras 3 on TensorFlow.

Names load on first use, so that `import tfmodels` costs little more than `import keras`.
"""

import importlib

import keras

from tfmodels._version import __version__

# Public name -> the module it comes from.
_PUBLIC = {
    "data": None,
    "datasets": None,
    "layers": None,
    "models": None,
    "tokenizers": None,
    "training": None,
    "GenerationConfig": "tfmodels.generation",
    "export": "tfmodels.serving",
    "generate": "tfmodels.generation",
}

__all__ = ["__version__", *sorted(_PUBLIC)]

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "tfmodels needs Keras on TensorFlow. "
        f"Received: KERAS_BACKEND={keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow."
    )


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfmodels' has no attribute {name!r}")
    if _PUBLIC[name] is None:
        return importlib.import_module(f"tfmodels.{name}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
