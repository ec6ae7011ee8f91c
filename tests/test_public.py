"""The public names, the price of the import, and the packaged data."""

import pathlib
import subprocess
import sys

import pytest

import tfmodels

GOLDEN = pathlib.Path(__file__).parent / "public_names.txt"
MODULES = ("data", "datasets", "evaluation", "layers", "models", "tokenizers", "training")


def public_names():
    names = [f"tfmodels.{name}" for name in tfmodels.__all__]
    for module in MODULES:
        names += [f"tfmodels.{module}.{name}" for name in getattr(tfmodels, module).__all__]
    return sorted(names)


def test_public_names_are_the_golden_ones():
    """Rewrite the file on purpose: python -m tests.test_public"""
    assert public_names() == GOLDEN.read_text().split()


def test_every_public_name_has_a_docstring():
    for name in public_names():
        value = tfmodels
        for part in name.split(".")[1:]:
            value = getattr(value, part)
        assert getattr(value, "__doc__", None), name


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tfmodels.nothing  # noqa: B018


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_import_is_lazy_and_cheap():
    code = (
        "import sys, time, keras; start = time.process_time(); import tfmodels;"
        "print(time.process_time() - start);"
        "print([m for m in ('tensorflow_text', 'sentencepiece', 'sacrebleu') if m in sys.modules])"
    )
    seconds, loaded = run(code).stdout.splitlines()
    assert loaded == "[]"
    assert float(seconds) < 0.3  # of the processor's, whatever else it does; measured 0.05


@pytest.mark.parametrize("chosen", [None, "0"])
def test_the_command_line_has_onednn_unless_told(chosen):
    """TensorFlow reads it once, as it is loaded."""
    code = (
        f"import os, sys; sys.argv = ['tfmodels']; name, chosen = 'TF_ENABLE_ONEDNN_OPTS', {chosen!r};"
        "os.environ.pop(name, None); os.environ.update({name: chosen} if chosen else {});"
        "import tfmodels; print(os.environ[name], 'tensorflow' in sys.modules)"
    )
    assert run(code).stdout.split() == [chosen or "1", "False"]


def test_another_backend_is_refused():
    """Keras itself stands for JAX here, which is not installed."""
    code = (
        "import sys, types; keras = types.ModuleType('keras');"
        "keras.backend = types.SimpleNamespace(backend=lambda: 'jax');"
        "sys.modules['keras'] = keras; import tfmodels"
    )
    result = run(code)
    assert result.returncode and "Set KERAS_BACKEND=tensorflow." in result.stderr


def test_datasets():
    pairs = {split: tfmodels.datasets.load("mt_enes_bible", split) for split in ("train", "valid", "test")}
    assert [len(pairs[s]) for s in pairs] == [24225, 1277, 1272]
    assert all(len(pair) == 2 and all(pair) for split in pairs.values() for pair in split)
    assert not set(pairs["train"]) & set(pairs["test"])
    novels = tfmodels.datasets.load("lm_novels")
    assert novels[0].startswith("Emma Woodhouse, handsome, clever, and rich")
    assert sum(len(text.encode()) + 1 for text in novels) == 4_321_306


@pytest.mark.parametrize("arguments", [("nothing",), ("lm_novels", "dev")])
def test_unknown_data(arguments):
    with pytest.raises(ValueError, match="Choose one of"):
        tfmodels.datasets.load(*arguments)


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(public_names()) + "\n")
