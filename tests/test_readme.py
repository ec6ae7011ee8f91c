"""The README's commands and its script, as printed."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import tfmodels

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


SCRIPT, FINE_TUNING = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(script, folder):
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_script_runs_as_printed(tmp_path):
    few_steps = SCRIPT.replace("data.take(100)", "data.take(3)")
    assert few_steps != SCRIPT
    assert run(few_steps, tmp_path).strip()
    assert (tmp_path / "novels.keras").exists() and (tmp_path / "exported" / "1").is_dir()


@pytest.mark.slow
def test_the_fine_tuning_runs_as_printed(tmp_path):
    """On a checkpoint of random weights and a vocabulary of its own texts."""
    texts = ["a good film", "a bad film", "good songs, so good", "what a bad, bad day"] * 5
    tokenizer = tfmodels.tokenizers.WordPieceTokenizer.train(texts, vocabulary_size=60)
    model = tfmodels.models.bert("tiny", vocabulary_size=tokenizer.vocabulary_size)
    tfmodels.save_pretrained(model, tmp_path / "checkpoints" / "bert", tokenizer)
    labels = ["good", "bad", "good", "bad"] * 5
    run(f"texts, labels = {texts!r}, {labels!r}\n{FINE_TUNING}", tmp_path)
    written = tfmodels.from_pretrained(tmp_path / "checkpoints" / "fine_tuned")
    assert written.config.labels == ("bad", "good")
    read = tfmodels.tokenizers.from_pretrained(tmp_path / "checkpoints" / "fine_tuned")
    np.testing.assert_array_equal(read.encode(texts)["token_ids"], tokenizer.encode(texts)["token_ids"])


def test_the_commands_come_first_and_ci_runs_them():
    run_demo, run_tests = re.findall(r"^(pip install.*?)\s*#", README, re.MULTILINE)
    assert run_demo == "pip install . && tfmodels demo"
    ci = (ROOT / ".ci" / "run").read_text()
    install, command = (part.strip() for part in run_tests.split("&&"))
    assert command in ci.splitlines() and install.removeprefix("pip install ") in ci


def test_links_and_pictures_exist():
    for link in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / link).exists(), link
