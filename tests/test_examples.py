"""The benchmarks' own help. What they measure no test repeats."""

import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "examples" / "benchmarks"


@pytest.mark.parametrize("name", ["scaling", pytest.param("ops", marks=pytest.mark.slow)])
def test_help_is_no_run(name):
    script = BENCHMARKS / f"{name}.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {name}.py"), done.stderr[-500:]
