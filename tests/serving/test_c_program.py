"""Exports in a C program: TensorFlow's library from the wheel, no Python. And the ops that they need."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tfmodels
from tests.reference.weights import randomise
from tfmodels.serving.check import library_paths, read_card
from tfmodels.serving.operations import libraries, operations

HERE = pathlib.Path(__file__).parent
TENSORFLOW = pathlib.Path(tf.__file__).parent
SIZE = dict(num_heads=2, hidden_dim=16, intermediate_dim=24, max_sequence_length=40)
TEXTS = ["In the beginning", "", "God is love. " * 30, "ñ 日本", "And he went"]
OPTIONS = {"max_new_tokens": 6}
NAMES = ["serving_default", "generate", "tokenize"]


@pytest.fixture(scope="module")
def exports(tokenizer, bible, tmp_path_factory):
    """(model, tokenizer, folder) of a decoder in core ops and of an encoder-decoder."""
    byte_pairs = tfmodels.tokenizers.BytePairTokenizer.train(
        [source for source, _ in bible[:100]], vocabulary_size=300
    )
    decoder = tfmodels.models.gpt2("tiny", num_layers=1, vocabulary_size=300, **SIZE)
    translator = tfmodels.models.transformer(
        "tiny",
        num_layers=1,
        source_vocabulary_size=tokenizer.vocabulary_size,
        target_vocabulary_size=tokenizer.vocabulary_size,
        **SIZE,
    )
    found = []
    for name, model, words in (("gpt2", decoder, byte_pairs), ("transformer", translator, tokenizer)):
        randomise(model, seed=2, scale=0.3)
        path = tmp_path_factory.mktemp(name)
        found.append((model, words, tfmodels.export(model, words, path, signatures=NAMES, **OPTIONS)))
    return found


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    path = tmp_path_factory.mktemp("c") / "client"
    subprocess.run(
        [
            "gcc",
            f"-I{TENSORFLOW / 'include'}",
            HERE / "client.c",
            f"-L{TENSORFLOW}",
            "-l:libtensorflow_cc.so.2",
            "-l:libtensorflow_framework.so.2",
            f"-Wl,-rpath,{TENSORFLOW}",
            "-o",
            path,
        ],
        check=True,
    )
    return path


def tensor_names(folder):
    """The graph's names of serving_default's text in and out."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(pathlib.Path(folder, "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["serving_default"]
    return signature.inputs["text"].name, signature.outputs["text"].name


def test_c_program_answers_as_generate(exports, program):
    expected_libraries = ([], ["_sentencepiece_tokenizer.so"])
    for (model, words, folder), needed in zip(exports, expected_libraries, strict=True):
        card = read_card(folder)
        assert card["libraries"] == needed
        done = subprocess.run(
            [program, folder, *tensor_names(folder), *library_paths(card)],
            input="\n".join(TEXTS).encode() + b"\n",
            capture_output=True,
            check=False,
            env={"TF_CPP_MIN_LOG_LEVEL": "3"},  # no Python's path or the like
        )
        assert done.returncode == 0, done.stderr.decode()[-500:]
        loaded = tf.saved_model.load(folder).signatures["serving_default"]
        served = [text.decode() for text in loaded(text=tf.constant(TEXTS))["text"].numpy()]
        short = [text for text in TEXTS if len(text) < 40]
        answers = tfmodels.generate(model, short, words, **OPTIONS).text
        assert [text for text, source in zip(served, TEXTS, strict=True) if source in short] == answers
        assert done.stdout.decode() == "".join(text + "\n" for text in served)


@pytest.mark.slow
def test_saved_model_cli_runs_it(exports, tmp_path):
    """Strings in and strings out, of the decoder in core ops."""
    model, words, folder = exports[0]
    subprocess.run(
        [
            pathlib.Path(sys.executable).parent / "saved_model_cli",
            *("run", "--dir", folder, "--tag_set", "serve", "--signature_def", "serving_default"),
            *("--input_exprs", "text=['In the beginning', 'And he went']", "--outdir", tmp_path),
        ],
        capture_output=True,
        check=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    found = np.load(tmp_path / "text.npy", allow_pickle=True)
    expected = tfmodels.generate(model, ["In the beginning", "And he went"], words, **OPTIONS).text
    assert [text.decode() for text in found] == expected


def test_operations_are_those_that_servers_have(exports):
    """What each kind needs; a new op here is a question: is it in TF Serving's build?"""
    sentencepiece = {"SentencepieceOp", "SentencepieceTokenizeOp", "SentencepieceDetokenizeOp"}
    for (_, _, folder), beside in zip(exports, (set(), sentencepiece), strict=True):
        used = operations(folder)
        assert read_card(folder)["operations"] == used
        assert {name for name in used if not hasattr(tf.raw_ops, name)} == beside
        assert not [name for name in used if name.startswith(("Xla", "PyFunc", "EagerPyFunc"))]
    with pytest.raises(ValueError, match="Received: XlaDynamicUpdateSlice"):
        libraries(["Add", "XlaDynamicUpdateSlice"])
