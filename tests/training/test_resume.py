"""A run that was stopped goes on as if it had not been: every loss and weight, bit for bit."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from safetensors import safe_open

from tfmodels.data import Reader
from tfmodels.models import gpt2, transformer_xl
from tfmodels.training import Resume, run_state
from tfmodels.training.state_file import read_state, write_state

SIZES = dict(num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=12, vocabulary_size=13)
ROWS, EPOCHS = 23, 3


class Losses(keras.callbacks.Callback):
    """All that a step and an epoch report, kept and perhaps appended to a file."""

    def __init__(self, path=None):
        super().__init__()
        self.steps, self.epochs, self._path, self._epoch = [], [], path, None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append([self._epoch, batch, logs])
        if self._path:
            with open(self._path, "a") as file:
                file.write(json.dumps(self.steps[-1]) + "\n")

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append([epoch, logs])


def make_data(kind):
    """What `fit` takes of ROWS rows."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 13, (ROWS, 7)).astype("int32")
    x, y = {"token_ids": ids}, np.roll(ids, -1, 1)
    if kind == "arrays":
        return dict(x=x, y=y, batch_size=5, validation_split=0.2)
    valid = ({"token_ids": ids[:6]}, y[:6])
    if kind == "memory":
        x = {"token_ids": ids[:20]}
        return dict(
            x=x, y=y[:20], batch_size=4, shuffle=False, validation_data=valid, validation_batch_size=3
        )
    lengths = rng.integers(2, 8, ROWS)
    rows = [({"token_ids": ids[i, :n]}, y[i, :n], np.ones(n, "float32")) for i, n in enumerate(lengths)]
    repeat = kind == "reader"
    reader = Reader(rows, tokens_per_batch=20, shuffle=True, seed=5, repeat=repeat)
    return dict(x=reader.dataset(), validation_data=valid, **({"steps_per_epoch": 6} if repeat else {}))


def make_model(kind="arrays", **changes):
    keras.utils.set_random_seed(3)
    if kind == "memory":
        model = transformer_xl(
            "base", **SIZES, head_dim=4, memory_length=3, cutoffs=(), embedding_dim=None, divisor=1
        )
        model.compile(keras.optimizers.AdamW(1e-2), stateful=True)
        return model
    model = gpt2("tiny", **SIZES | changes, max_sequence_length=9, dropout=0.2)
    own = {}
    if kind == "passes":  # Keras's own loss and metrics, made anew by a resumed run
        own = dict(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.compile(keras.optimizers.AdamW(1e-2), **own)
    return model


def train(kind, folder, path=None, callbacks=(), every_steps=1):
    """(what was reported, all variables)."""
    model, losses = make_model(kind), Losses(path)
    # What callbacks remember must be put back too: these change the learning rate.
    plateau = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=0)
    resume = Resume(folder, every_steps=every_steps, keep=100)
    history = model.fit(
        **make_data(kind), epochs=EPOCHS, verbose=0, callbacks=[losses, plateau, *callbacks, resume]
    )
    arrays = [variable.numpy() for variable in model.variables + model.optimizer.variables]
    return losses, history.history, arrays


class Terminate(keras.callbacks.Callback):
    """SIGTERM to this process in the middle of a batch."""

    def __init__(self, after_steps):
        super().__init__()
        self.left = after_steps

    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGTERM)


def same_end(one, other):
    """Whether reports, histories and variables of two runs are equal to the bit."""
    assert one[0].steps == other[0].steps and one[0].epochs == other[0].epochs
    assert one[1] == other[1]
    for a, b in zip(one[2], other[2], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arrays", "passes", "memory"])
def test_a_stopped_run_goes_on(kind, tmp_path):
    whole = train(kind, tmp_path)
    steps = whole[0].steps
    assert max(path.name for path in tmp_path.iterdir()) == f"step-{len(steps):08d}.safetensors"
    # Stopped in the middle of an epoch; and at its end, before validation.
    second = [i for i, (epoch, batch, _) in enumerate(steps, 1) if epoch == 1]
    for step in (second[1], second[-1]) if kind == "arrays" else (second[1],):
        for path in tmp_path.iterdir():
            if int(path.name[5:13]) > step:
                path.unlink()
        same_end(whole, train(kind, tmp_path))


@pytest.mark.parametrize("append", [False, True])
def test_a_csv_log_has_each_epoch_once(append, tmp_path):
    """And what an earlier run had left in it, where the log is to be appended to."""
    log, folder = tmp_path / "log.csv", tmp_path / "run"
    log.write_text("epoch,of another run\n" * append)
    train("arrays", folder, callbacks=[keras.callbacks.CSVLogger(log, append=append)], every_steps=5)
    whole = log.read_text()
    assert len(whole.splitlines()) == EPOCHS + 1
    (folder / "step-00000012.safetensors").unlink()
    (folder / "step-00000010.safetensors").unlink()  # left: the first step of the second epoch
    train("arrays", folder, callbacks=[keras.callbacks.CSVLogger(log, append=append)], every_steps=5)
    assert log.read_text() == whole


@pytest.mark.slow
def test_kill_and_terminate(tmp_path):
    """SIGTERM here, then kill -9 in another process, then to the end, against a run in one go."""
    whole = train("reader", tmp_path / "whole", every_steps=50)
    before = signal.getsignal(signal.SIGTERM)
    losses = tmp_path / "losses"
    with pytest.raises(SystemExit) as left:
        train("reader", tmp_path / "run", losses, [Terminate(5)], every_steps=50)
    assert left.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    read = lambda: [json.loads(line) for line in losses.read_text().splitlines()]  # noqa: E731
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-00000005.safetensors"]
    command = [sys.executable, "-m", "tests.training.test_resume", str(tmp_path / "run"), str(losses)]
    process = subprocess.Popen(command, cwd=pathlib.Path(__file__).parents[2])
    while len(read()) < 9 and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed_after = len(read())
    again = train("reader", tmp_path / "run", losses)
    # All callbacks remember what they saw before, this one its steps.
    same_end(whole, again)
    steps = read()
    assert steps[:killed_after] == whole[0].steps[:killed_after]  # SIGTERM has lost nothing
    assert all(step in whole[0].steps for step in steps)


def two_replicas(folder):
    """In a process of its own, which makes its devices once."""
    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [device, device])
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        whole = train("memory", folder)
        for path in pathlib.Path(folder).iterdir():
            if int(path.name[5:13]) > 7:  # the second step of the second epoch
                path.unlink()
        same_end(whole, train("memory", folder))


@pytest.mark.slow
def test_each_replica_has_its_memory_back(tmp_path):
    command = [sys.executable, "-m", "tests.training.test_resume", "two_replicas", str(tmp_path)]
    subprocess.run(command, cwd=pathlib.Path(__file__).parents[2], check=True)


def test_memories_of_several_workers_are_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("tfmodels.training.stream.is_multi_worker", lambda strategy: True)
    with pytest.raises(ValueError, match="memories that other workers have"):
        make_model("memory").fit(**make_data("memory"), callbacks=[Resume(tmp_path)])


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="every_steps must be a whole number of at least 1. Received: 0"):
        Resume(tmp_path, every_steps=0)
    with pytest.raises(ValueError, match="keep must be .* Received: -1"):
        Resume(tmp_path, keep=-1)
    with pytest.raises(ValueError, match="directory must name a folder"):
        Resume("")
    x, y = np.zeros((2, 3), "int32"), np.zeros((2, 3), "int32")
    with pytest.raises(ValueError, match="one Resume callback. Received: 2"):
        make_model().fit(x, y, callbacks=[Resume(tmp_path), Resume(tmp_path)])
    with pytest.raises(OSError, match="cannot write checkpoints to '/proc/nothing'"):
        make_model().fit(x, y, callbacks=[Resume("/proc/nothing")])
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match="models of tfmodels. Received: Sequential"):
        other.fit(np.zeros((2, 3)), np.zeros((2, 1)), verbose=0, callbacks=[Resume(tmp_path)])


def test_callbacks_remember_bfloat16(tmp_path):
    """The best weights of EarlyStopping, of a model in bfloat16."""
    before, after = keras.callbacks.EarlyStopping(), keras.callbacks.EarlyStopping()
    before.best_weights = [np.arange(3).astype(ml_dtypes.bfloat16), np.float32(2)]
    values, arrays = run_state.remembered(before)
    write_state(tmp_path / "x.safetensors", arrays, values)
    values, arrays = read_state(tmp_path / "x.safetensors")
    run_state.remember(after, values, {name: read() for name, read in arrays.items()})
    assert after.best_weights[0].dtype == ml_dtypes.bfloat16
    assert after.best_weights[0].tolist() == [0, 1, 2] and after.best_weights[1] == 2


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = str(tmp_path / "x.safetensors")
    write_state(path, {"a": np.arange(3)}, "before")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="cannot write '.*x.safetensors': No space left") as raised:
        write_state(path, {"a": np.arange(4)}, "after")
    assert raised.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"] and read_state(path)[0] == "before"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    model = make_model()
    resume = Resume(folder, every_steps=2, keep=2)
    model.fit(**make_data("arrays"), epochs=2, verbose=0, callbacks=[resume])
    return folder


def test_checkpoints(finished, caplog):
    """The newest are kept; others read them; a damaged one is passed over, and said to be."""
    names = sorted(path.name for path in finished.iterdir())
    assert names == ["step-00000006.safetensors", "step-00000008.safetensors"]
    with safe_open(finished / names[1], "np") as file:
        assert file.get_tensor("model/0").shape == (13, 8)

    def newest(description):
        return Resume(finished).newest(description, tf.distribute.get_strategy())

    with safe_open(finished / names[1], "np") as file:
        description = json.loads(file.metadata()["record"])["description"]
    path = finished / names[1]
    content = path.read_bytes()
    changed = bytearray(content)
    changed[-3] ^= 1
    for damaged in (
        bytes(changed),
        content[:-5],
        content[:100],
        b"",
        b"\xff" * 99,
        content.replace(b'"step', b'"stop'),
    ):
        path.write_bytes(damaged)
        assert newest(description)[0] == str(finished / names[0])
        assert "step-00000008.safetensors is damaged" in caplog.text.splitlines()[-1]
        assert "Falling back to" in caplog.text.splitlines()[-1]
        (finished / (names[1] + ".damaged")).unlink()
    path.mkdir()  # what cannot be read at all
    assert newest(description)[0] == str(finished / names[0])
    (finished / (names[1] + ".damaged")).rmdir()
    path.write_bytes(content)
    opened = open

    def broken(name, *args):
        if str(name) == str(path):
            raise OSError(errno.EIO, "Input/output error")
        return opened(name, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.open", broken)  # what may be read again later stays where it is
        assert newest(description)[0] == str(finished / names[0])
    assert newest(description)[0] == str(path)
    older = finished / names[0]
    whole = older.read_bytes()
    older.write_bytes(b"")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="All checkpoints are damaged.*Delete the folder"):
        newest(description)
    assert {p.name for p in finished.iterdir()} == set(names)  # it says so the next time too
    older.write_bytes(whole)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "changes, compiled, message",
    [
        ({}, {"z_loss": 0.1}, "run.z_loss=0.0 in the checkpoint, 0.1 here"),
        (
            {},
            {"loss": "sparse_categorical_crossentropy"},
            "run.loss=\"the model's own\" in the checkpoint, 'sparse",
        ),
        ({}, {"loss": lambda y, logits: logits}, "'<lambda>' here"),
        ({}, {"optimizer": "adam"}, "run.optimizer='AdamW' in the checkpoint, 'Adam' here"),
        ({"label_smoothing": 0.1}, {}, "model.config.label_smoothing=0.0 in the checkpoint, 0.1 here"),
        ({"dtype": "bfloat16"}, {}, "model.dtype.config.name='float32' in the checkpoint, 'bfloat16' here"),
    ],
)
def test_another_objective(finished, changes, compiled, message):
    model = make_model(**changes)
    model.compile(**{"optimizer": keras.optimizers.AdamW(1e-2), **compiled})
    with pytest.raises(ValueError, match=message):
        model.fit(**make_data("arrays"), epochs=2, verbose=0, callbacks=[Resume(finished)])


@pytest.mark.parametrize(
    "changes, options, message",
    [
        ({"hidden_dim": 16}, {}, "model.config.hidden_dim=8 in the checkpoint, 16 here"),
        ({}, {"batch_size": 4}, "fit.batch_size=5 in the checkpoint, 4 here"),
    ],
)
def test_another_run(finished, changes, options, message):
    with pytest.raises(ValueError, match=message):
        make_model(**changes).fit(
            **make_data("arrays") | options, epochs=2, verbose=0, callbacks=[Resume(finished)]
        )


if __name__ == "__main__" and sys.argv[1] == "two_replicas":
    two_replicas(sys.argv[2])
elif __name__ == "__main__":
    slow = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.2))
    train("reader", sys.argv[1], sys.argv[2], [slow], every_steps=2)
