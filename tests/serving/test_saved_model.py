"""The SavedModel in a process of its own, against `generate`."""

import json
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

import tfmodels
from tests.reference.weights import randomise

SCRIPT = pathlib.Path(tfmodels.__file__).parent / "cli" / "call_saved_model.py"
# All others cost seconds an export; test_signatures.py has them.
ONLY = {"signatures": ["serving_default"]}


def models(tokenizer):
    size = {"vocabulary_size": tokenizer.vocabulary_size, "max_sequence_length": 40}
    return tfmodels.models.gpt2("tiny", **size), tfmodels.models.transformer("tiny", **size)


@pytest.mark.parametrize("which, method", [(0, "greedy"), (1, "greedy"), (1, "beam"), (0, "sample")])
def test_answers_equal_generate(tokenizer, bible, tmp_path, which, method):
    """50 sentences, in batches of 1, 7 and 32. Sampling draws by row: in one batch only."""
    model = models(tokenizer)[which]
    randomise(model, seed=2, scale=0.15)
    options = {"method": method, "num_beams": 3, "max_new_tokens": 6}
    texts = [source[:60] for source, _ in bible[:48]] + ["", "ñ 日本"]
    path = tfmodels.export(model, tokenizer, tmp_path / "m", **ONLY, **options)
    assert path == str(tmp_path / "m" / "1")
    serve = tf.saved_model.load(path).signatures["serving_default"]
    spec = serve.structured_input_signature[1]["text"]
    assert spec.shape.as_list() == [None] and spec.dtype == tf.string
    for size in (50,) if method == "sample" else (1, 7, 32):
        for begin in range(0, 50, size):
            batch = texts[begin : begin + size]
            answers = serve(text=tf.constant(batch))["text"]
            expected = tfmodels.generate(model, batch, tokenizer, **options).text
            assert [answer.decode() for answer in answers.numpy()] == expected
    assert len(set(expected)) > 5  # the answers differ


def test_a_process_without_tfmodels(tokenizer, tmp_path):
    model = models(tokenizer)[1]
    texts = ["In the beginning", "", "God is love. " * 30]  # the last is over the limit: cut
    path = tfmodels.export(model, tokenizer, tmp_path, max_new_tokens=5, **ONLY)
    done = subprocess.run(
        [sys.executable, "-I", SCRIPT, path],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)
    assert answers[:2] == tfmodels.generate(model, texts[:2], tokenizer, max_new_tokens=5).text
    assert len(answers) == 3


def test_long_prompts_are_cut(tokenizer, tmp_path):
    """An encoder reads the beginning, a decoder goes on from the end."""
    long = " ".join(["God", "is", "love,", "and", "he", "went"] * 30)
    for model, side in zip(models(tokenizer), (slice(-40, None), slice(0, 39)), strict=True):
        randomise(model, seed=2, scale=0.15)
        path = tfmodels.export(model, tokenizer, tmp_path / model.name, max_new_tokens=5, **ONLY)
        serve = tf.saved_model.load(path).signatures["serving_default"]
        ids = tokenizer.tokenize(long)[side]
        name = list(model.input_pairs)[0]
        if name == "encoder_token_ids":
            ids = tf.concat([ids, [tokenizer.end_id]], 0)
        expected = tfmodels.generate(model, {name: ids[None]}, tokenizer, max_new_tokens=5).text
        assert [serve(text=tf.constant([long]))["text"].numpy()[0].decode()] == expected


def test_versions_and_failures(tokenizer, tmp_path, monkeypatch):
    model = models(tokenizer)[0]
    for version in ("1", "2"):
        assert tfmodels.export(model, tokenizer, tmp_path, **ONLY).endswith(version)
    (tmp_path / "9").mkdir()

    def full_disk(module, path, **options):
        (pathlib.Path(path) / "half").write_text("half")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full_disk)
    with pytest.raises(OSError, match="Cannot export to path.*No space left"):
        tfmodels.export(model, tokenizer, tmp_path, **ONLY)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "9"]  # nothing half written
    with pytest.raises(OSError, match="Cannot export to path='/proc/no'"):
        tfmodels.export(model, tokenizer, "/proc/no")
    with pytest.raises(ValueError, match=r"others of serving_default, generate.*Received: \['decode'\]"):
        tfmodels.export(model, tokenizer, tmp_path, signatures=["decode"])
    with pytest.raises(ValueError, match="mean 'num_beams'"):
        tfmodels.export(model, tokenizer, tmp_path, num_beam=3)
