"""The README's commands and its script, as printed."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_script_runs_as_printed(tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()
    assert (tmp_path / "novels.keras").exists() and (tmp_path / "exported" / "1").is_dir()


def test_the_commands_come_first_and_ci_runs_them():
    run_demo, run_tests = re.findall(r"^(pip install.*?)\s*#", README, re.MULTILINE)
    assert run_demo == "pip install . && tfmodels demo"
    ci = (ROOT / ".ci" / "run").read_text()
    install, command = (part.strip() for part in run_tests.split("&&"))
    assert command in ci.splitlines() and install.removeprefix("pip install ") in ci


def test_links_and_pictures_exist():
    for link in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / link).exists(), link
