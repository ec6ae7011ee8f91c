"""Shared by all tests: quiet TensorFlow, two threads a worker at the most."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
import tensorflow as tf

# Tests trace graphs for most of their time. Rare collections, and traces of errors that nobody filters at
# every call, save a fifth of it.
gc.set_threshold(100_000, 50, 100)
tf.debugging.disable_traceback_filtering()
keras.config.disable_traceback_filtering()


@pytest.fixture(autouse=True)
def _float32_and_seed():
    """Each test starts from float32 and seed 0, whatever the one before has set."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def bible():
    """Pairs of short verses for tests."""
    import tfmodels

    pairs = tfmodels.datasets.load("mt_enes_bible", "train")
    return [pair for pair in pairs if len(pair[0].split()) <= 12][:800]


@pytest.fixture(scope="session")
def tokenizer(bible):
    """A real SentencePiece vocabulary, learnt from a few hundred verses."""
    import tfmodels

    return tfmodels.tokenizers.SentencePieceTokenizer.train(
        [side for pair in bible for side in pair], vocabulary_size=700
    )
