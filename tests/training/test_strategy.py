"""The same step on every strategy. Each strategy has processes of its own (see `equality`)."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from tfmodels.training import make_strategy

ROOT = pathlib.Path(__file__).parents[2]


def start(out, strategy, devices, cases, environment=None):
    command = [sys.executable, "-m", "tests.training.equality", str(out), strategy, str(devices), cases]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def tf_config(ports, index):
    workers = [f"localhost:{port}" for port in ports]
    task = {"type": "worker", "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task})}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of one device and of Mirrored, made in one process, and of each of two workers."""
    folder = tmp_path_factory.mktemp("equality")
    ports = free_ports(2)
    runs = {
        "local": start(folder / "local", "none,mirrored", 2, "adamw-packed-1,sgd-padded-2,keras-padded-1")
    }
    for i in range(2):
        out = folder / f"worker_{i}"
        runs[f"worker_{i}"] = start(
            out, "multi_worker", 1, "adamw-packed-2,keras-padded-1", tf_config(ports, i)
        )
    for name, process in runs.items():
        assert process.wait(timeout=600) == 0, name
    return {name: dict(np.load(folder / f"{name}.npz")) for name in runs}


@pytest.mark.slow
@pytest.mark.parametrize("run", ["local", "worker_0", "worker_1"])
def test_every_layout_gives_the_same_weights_and_metrics(results, run):
    expected = {}
    for key, value in results["local"].items():
        strategy, case, _, name = key.split("/")
        if strategy == "none":
            expected[case, name] = value
    compared = 0
    for key, value in results[run].items():
        strategy, case, _, name = key.split("/")
        compared += strategy != "none"
        # float32, five steps, sums in another order
        np.testing.assert_allclose(value, expected[case, name], atol=1e-5, rtol=1e-5, err_msg=key)
    assert compared >= 7  # weights, and three metrics of training and of validation


def test_names():
    assert make_strategy("auto").num_replicas_in_sync == 1  # no GPU here
    with pytest.raises(ValueError, match="auto, none, mirrored, multi_worker. Received: 'tpu'"):
        make_strategy("tpu")


@pytest.mark.parametrize("config", ["{", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"index": 1}}', ""])
def test_a_config_that_is_none(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="TF_CONFIG"):
        make_strategy("multi_worker")
