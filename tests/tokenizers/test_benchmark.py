"""The benchmark runs to its end, and its name does not hide the tokenizers library."""

import json
import pathlib
import subprocess
import sys

import pytest

from tfmodels.tokenizers import BytePairTokenizer

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "benchmarks" / "tokenizers.py"


@pytest.mark.slow
def test_benchmark_runs(bible, tmp_path):
    config = BytePairTokenizer.train([pair[0] for pair in bible], 300)._config
    (tmp_path / "vocab.json").write_text(json.dumps(config.vocabulary))
    merges = "\n".join(" ".join(pair) for pair in config.merges)
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    command = [
        sys.executable,
        str(SCRIPT),
        str(tmp_path),
        "--lines",
        "256",
        "--repeats",
        "1",
        "--rules",
        "qwen2",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "tokenizers (Rust), one thread" in result.stdout and "MB/s" in result.stdout
