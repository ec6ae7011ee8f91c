"""Transformer models for Keras 3 on TensorFlow.

Most names load on first use, so that `import tfmodels` costs little more than `import keras`.
"""

import importlib
import os
import sys

from tfmodels._version import __version__

# Public name -> the module it comes from; None: it is a module itself.
_PUBLIC = {
    "data": None,
    "datasets": None,
    "evaluation": None,
    "layers": None,
    "models": None,
    "tokenizers": None,
    "training": None,
    "ClassifyResult": "tfmodels.generation",
    "GenerationConfig": "tfmodels.generation",
    "GenerationResult": "tfmodels.generation",
    "ScoreResult": "tfmodels.generation",
    "classify": "tfmodels.generation",
    "export": "tfmodels.serving",
    "from_pretrained": "tfmodels.pretrained",
    "generate": "tfmodels.generation",
    "save_pretrained": "tfmodels.pretrained",
    "score": "tfmodels.generation",
    "stream": "tfmodels.generation",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


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


if os.path.basename(sys.argv[0]) == "tfmodels":
    # The command line: TensorFlow's start-up notes are no news to its user, and --help needs no
    # TensorFlow at all. As a library we touch neither.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves its fast products off on a CPU without AVX-512 (docs/scaling.md).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
else:
    # At once and not on first use: Keras loads a saved model only if its classes are registered.
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "tfmodels needs Keras on TensorFlow. Received: "
            f"KERAS_BACKEND={keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow."
        )
    import tfmodels.models
    import tfmodels.training  # noqa: F401
