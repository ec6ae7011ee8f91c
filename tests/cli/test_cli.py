"""The command line: a small training run end to end, its help, and its errors."""

import json
import os
import re
import subprocess
import sys
import zipfile

import pytest
import yaml

import tfmodels
from tfmodels.cli import main
from tfmodels.cli.baselines import dictionary_translate
from tfmodels.cli.run_folder import check_same_config, start_run

TINY = {"num_layers": 1, "hidden_dim": 16, "num_heads": 2, "intermediate_dim": 32}


def fails(capsys, *arguments):
    """The one line that a failed command prints; exit code 2."""
    assert main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("tfmodels: error:")]
    assert len(errors) == 1 and lines[-1] == errors[0]
    return errors[0]


@pytest.fixture
def config(tmp_path, bible):
    """A config file for a run of seconds."""
    for name, part in (("train", bible[:200]), ("valid", bible[200:240])):
        lines = "".join(f"{source}\t{target}\n" for source, target in part)
        (tmp_path / f"{name}.tsv").write_text(lines, encoding="utf-8")
    fields = {
        "output": str(tmp_path / "run"),
        "train": str(tmp_path / "train.tsv"),
        "valid": str(tmp_path / "valid.tsv"),
        "model": TINY,
        "vocabulary_size": 500,
        "tokens_per_batch": 1024,
        "epochs": 1,
    }

    def write(**changes):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(fields | changes))
        return tmp_path / "config.yaml"

    return write


@pytest.mark.slow
def test_train_generate_export(config, tmp_path, capsys):
    assert main(["train", str(config()), "--epochs", "2", "--optimizer", "muon"]) == 0
    run = tmp_path / "run"
    names = {"checkpoints", "config.yaml", "epochs.csv", "logs", "model.keras", "run.json", "tokenizer.model"}
    assert {p.name for p in run.iterdir()} == names
    assert yaml.safe_load((run / "config.yaml").read_text())["epochs"] == 2
    record = json.loads((run / "run.json").read_text())
    assert record["versions"]["tfmodels"] == tfmodels.__version__ and record["seed"] == 0
    # The same command on a finished run changes nothing; another config is no run of this folder.
    before = (run / "model.keras").read_bytes()
    assert main(["train", str(config()), "--epochs", "2", "--optimizer", "muon"]) == 0
    assert (run / "model.keras").read_bytes() == before
    assert len(json.loads((run / "run.json").read_text())["starts"]) == 2
    assert "epochs, optimizer differ" in fails(capsys, "train", config())
    valid = str(tmp_path / "short.tsv")
    (tmp_path / "short.tsv").write_text("Jesus wept.\tY lloró Jesús.\nGod\tDios\n")
    metrics = ["bleu", "f1", "perplexity", "bits_per_byte"]
    arguments = ["--run", str(run), "--metrics", json.dumps(metrics), "--max_new_tokens", "3"]
    assert main(["evaluate", valid, *arguments, "--output", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores) == metrics and scores["perplexity"]["value"] > 1
    capsys.readouterr()
    assert main(["generate", str(run), "Jesus wept.", "God", "--max_new_tokens=5"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    assert main(["export", str(run), str(tmp_path / "out"), "--max_new_tokens=5"]) == 0
    path = capsys.readouterr().out.strip()
    assert path == str(tmp_path / "out" / "1")
    script = tfmodels.__path__[0] + "/cli/call_saved_model.py"
    answers = subprocess.run(
        [sys.executable, "-I", script, path],
        input=json.dumps(["Jesus wept.", "God"]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(answers.stdout) == printed
    with open(run / "config.yaml") as file:  # a run's own config makes the same run
        assert yaml.safe_load(file)["model"] == TINY


@pytest.mark.slow
def test_train_generation_task(config, tmp_path):
    (tmp_path / "text.txt").write_text("It was a dark and stormy night.\nAnd then?\n" * 60)
    path = config(
        task="generation",
        train=str(tmp_path / "text.txt"),
        valid=None,
        vocabulary_size=280,
        max_length=16,
        schedule="inverse_square_root",
    )
    assert main(["train", str(path)]) == 0
    assert (tmp_path / "run" / "model.keras").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"size": "huge"}, "size='huge'. Choose one of: tiny"),
        ({"model": {"num_layer": 2}}, "did you mean 'num_layers'"),
        ({"model": {"vocabulary_size": 2}}, "set vocabulary_size instead"),
        ({"model": TINY | {"num_heads": 3}}, "hidden_dim=16, num_heads=3"),
        ({"epoch": 3}, "epoch"),
        ({"epochs": "many"}, "epochs"),
        ({"epochs": 0}, "epochs must be at least 1. Received: 0"),
        ({"workers": ["here"]}, "each worker once as host:port. Received: 'here'"),
        ({"workers": ["a:1", "a:1"]}, "each worker once"),
        ({"workers": ["a:1", "b:2"]}, "One of workers must be this host"),
        ({"workers": ["a:1", "b:2"], "worker_index": 2}, "Received: 2 for 2 workers"),
        ({"workers": ["a:1", "b:2"], "strategy": "none"}, "workers needs strategy auto or multi_worker"),
        ({"micro_batches": 0}, "micro_batches must be at least 1. Received: 0"),
        ({"micro_batches": 200}, "replicas x micro_batches = 200"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and finite. Received: nan"),
        ({"weight_decay": -1}, "weight_decay must be at least 0 and finite. Received: -1"),
        ({"patience": -1}, "patience must be at least 0. Received: -1"),
        ({"seed": -1}, "seed must be at least 0 and below 2**32. Received: -1"),
        ({"seed": 2**32}, "Received: 4294967296"),
        ({"checkpoint_steps": 0}, "checkpoint_steps must be at least 1. Received: 0"),
        ({"average_decay": 1.0}, "average_decay must be at least 0 and below 1. Received: 1.0"),
        (
            {"schedule": "warmup_stable_decay", "decay_steps": 10**6, "epochs": 1},
            "decay_steps=1000000",
        ),
        ({"max_length": 500}, "max_length=500, max_sequence_length=128"),
        ({"max_length": 1}, "at least one example. Received: none. 200 were too long"),
        ({"train": "/nowhere.tsv"}, "'/nowhere.tsv'"),
        ({"train": "lm_novels"}, "'lm_novels'"),
        ({"task": "poetry"}, "poetry"),
        ({"output": "/proc/run"}, "'/proc/run'"),
        ({"vocabulary_size": 100_000}, "vocabulary_size=100000"),
    ],
)
def test_bad_config(config, tmp_path, capsys, changes, message):
    assert message in fails(capsys, "train", config(**changes)).replace("Did", "did").replace("No e", "no e")
    assert not (tmp_path / "run").exists()  # no half-written run


def test_a_folder_without_checkpoints_takes_another_config(tmp_path):
    """A run that failed in its first steps leaves nothing to go on with."""
    (tmp_path / "config.yaml").write_text("epochs: 2\n")
    (tmp_path / "checkpoints").mkdir()
    check_same_config(str(tmp_path), {"epochs": 1})
    (tmp_path / "checkpoints" / "step-00000001.safetensors").touch()
    with pytest.raises(ValueError, match="epochs differ. Received: epochs=1, there 2"):
        check_same_config(str(tmp_path), {"epochs": 1})


@pytest.mark.parametrize("content", [b"", b"epochs: [1", b"\xff\xfe", b"- epochs"])
def test_a_broken_config_in_the_run_folder(config, tmp_path, capsys, content):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "step-00000001.safetensors").touch()
    (tmp_path / "run" / "config.yaml").write_bytes(content)
    error = fails(capsys, "train", config())
    assert "run/config.yaml' must be the config of the run there" in error and "cannot be read" in error


def test_the_config_of_a_run_is_there_whole_or_not_at_all(tmp_path, tokenizer, monkeypatch):
    start_run(str(tmp_path), {"seed": 0, "epochs": 2}, tokenizer)
    (tmp_path / "epochs.csv").touch()
    before = (tmp_path / "config.yaml").read_text()

    def killed(*names):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.replace", killed)
        start_run(str(tmp_path), {"seed": 0, "epochs": 3}, tokenizer)
    assert (tmp_path / "config.yaml").read_text() == before
    start_run(str(tmp_path), {"seed": 0, "epochs": 3}, tokenizer)
    assert {p.name for p in tmp_path.iterdir()} == {"config.yaml", "run.json", "tokenizer.model"}


def test_diverging_training_is_told_in_one_line(config, capsys, monkeypatch):
    def diverge(*args, **options):
        raise FloatingPointError("Gradients must be finite.")

    monkeypatch.setattr(tfmodels.models.Transformer, "fit", diverge)
    assert "Gradients must be finite." in fails(capsys, "train", config())


@pytest.mark.parametrize("content, message", [("", "empty"), ("a\tb\nalone\n", "train.tsv:2:")])
def test_bad_training_file(config, tmp_path, capsys, content, message):
    path = config()
    (tmp_path / "train.tsv").write_text(content)
    assert message in fails(capsys, "train", path)
    assert not (tmp_path / "run").exists()


def test_a_damaged_model_is_told(tmp_path, tokenizer, capsys):
    tokenizer.save(str(tmp_path / "tokenizer.model"))
    path = tmp_path / "model.keras"
    for content in (b"PK, but no archive", None):
        if content is None:
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("other.json", "{}")
        else:
            path.write_bytes(content)
        error = fails(capsys, "generate", tmp_path, "text")
        assert "model.keras' must be a model as Keras saves it. Received: a damaged file" in error


def test_failed_commands_leave_no_folder(tmp_path, capsys):
    fails(capsys, "export", tmp_path / "none", tmp_path / "new" / "words")
    assert not list(tmp_path.iterdir())


def test_a_reader_that_has_enough(tmp_path):
    """As tfmodels models | head -1."""
    reads, writes = os.pipe()
    os.close(reads)
    script = "import sys; from tfmodels.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "models"],
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writes)
    assert done.returncode == 141 and "pipe" not in done.stderr.lower()


@pytest.mark.parametrize("metrics", ["f1", "exact_match,f1", "exact_match, f1", "[exact_match,f1]"])
def test_metrics_with_commas(tmp_path, capsys, metrics):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    path = str(tmp_path / "a.txt")
    assert main(["evaluate", path, "--answers", path, "--metrics", metrics]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == (["f1"] if metrics == "f1" else ["exact_match", "f1"])


@pytest.mark.parametrize("command, first", [("evaluate", "REFERENCES"), ("train", "[CONFIG.yaml]")])
def test_usage_names_what_comes_first(capsys, command, first):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: tfmodels {command} {first} ")


def test_too_little_disk(config, capsys, monkeypatch):
    import collections
    import shutil

    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000))
    assert "of free disk. Received: 0 MB" in fails(capsys, "train", config())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "/nowhere.yaml"], "/nowhere.yaml"),
        (["demo", "--minutes", "soon"], "soon"),
        (["demo", "--minutes", "-1"], "Received: -1.0"),
        (["demo", "--task", "poetry"], "poetry"),
        (["demo", "--output", "/proc/x"], "'/proc/x'"),
        (["demo", "--nothing"], "--nothing"),
        (["nothing"], "nothing"),
        (["generate", "/nowhere", "text"], "no model.keras in '/nowhere'"),
        (["generate", "/nowhere", "text", "--method", "best"], "'best'"),
        (["generate", "/nowhere", "text", "--stop", "end", "--top_k", "-1"], "top_k must be at least 0"),
        (
            ["generate", "/nowhere", "text", "--stop", "-7"],
            "stop must be a tuple of ids and strings, none empty. Received: -7",
        ),
        (["generate", "/nowhere", "--file", "/nowhere.txt"], "/nowhere.txt"),
        (["generate", "/nowhere", "text", "--file", "/nowhere.txt"], "not both"),
        (["export", "/nowhere", "/proc/x"], "'/proc/x'"),
        (["evaluate", "/nowhere", "--answers", "x"], "/nowhere"),
        (["evaluate", __file__], "Give one of answers and run. Received: None, None"),
        (["evaluate", __file__, "--answers", __file__, "--metrics", "[rouge]"], "Received: 'rouge'"),
        (["evaluate", __file__, "--answers", __file__, "--metrics", "[perplexity]"], "needs a model"),
        (["evaluate", __file__, "--answers", __file__, "--resamples", "0"], "resamples must be at least 1"),
        (["evaluate", __file__, "--answers", __file__, "--output", "/no/x"], "'/no/x'"),
        (["evaluate", __file__, "--answers", __file__, "--output", "."], "Received: '.', a folder"),
        (["check", "/nowhere", "--seconds", "0"], "seconds must be above 0 and finite. Received: 0.0"),
        (["check", "/nowhere", "--seconds", "-1"], "Received: -1.0"),
        (["serve", "/nowhere", "--rest_port", "99999"], "rest_port must be from 0 to 65535. Received: 99999"),
        (["export", "/nowhere", "My_Words", "--serving", "true"], "small letters, digits and hyphens"),
        (
            ["export", "/nowhere", "words", "--serving", "true", "--format", "litert"],
            "--serving writes configs of TF Serving",
        ),
        (["evaluate", __file__, "--answers", __file__, "--metrics", "bleu,rouge"], "Received: 'rouge'"),
        (["evaluate", __file__, "--run", "/nowhere", "--metrics", "[f1]"], "line without a tab"),
        (["evaluate", __file__, "--run", "/nowhere"], "no model.keras in '/nowhere'"),
    ],
)
def test_bad_arguments(capsys, arguments, message):
    assert message in fails(capsys, *arguments)


@pytest.mark.parametrize(
    "command", ["", "demo", "train", "generate", "evaluate", "export", "check", "serve", "models"]
)
def test_help_names_every_option(capsys, command):
    import dataclasses

    from tfmodels.cli.evaluate import EvaluateConfig
    from tfmodels.cli.train import TrainConfig

    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    found = set(re.findall(r"^  (?:-h, )?--([a-z_]+)", text, re.MULTILINE))
    generation = {f.name for f in dataclasses.fields(tfmodels.GenerationConfig)}
    assert (
        found
        == {"help"}
        | {
            "": {"version"},
            "demo": {"task", "minutes", "output", "strategy"},
            "train": {"config", "print_config"} | {f.name for f in dataclasses.fields(TrainConfig)},
            "generate": generation | {"file", "batch_size"},
            "evaluate": generation | {f.name for f in dataclasses.fields(EvaluateConfig)},
            "export": generation | {"format", "quantize", "jit_compile", "max_length", "license", "serving"},
            "check": {"seconds"},
            "serve": {"name", "host", "rest_port", "grpc_port", "max_batch_size"},
            "models": set(),
        }[command]
    )


def test_models_prints_all(capsys):
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    for info in tfmodels.models.list_models():
        assert re.search(rf"^{info.architecture} +{info.size} +{info.parameters:,}$", printed, re.MULTILINE)
        assert f"{info.architecture}: {', '.join(info.tasks)}" in printed


def test_dictionary_baseline():
    pairs = [("the house", "la casa"), ("the book", "el libro"), ("a book", "un libro")]
    pairs += [("a house", "una casa"), ("green house", "casa verde")]
    answers = dictionary_translate(pairs, ["green book", "unknown house"])
    assert answers == ["verde libro", "unknown casa"]


@pytest.mark.slow
def test_interrupted_save_keeps_the_old_model(tmp_path, monkeypatch):
    from tfmodels.cli.run import save_model

    model = tfmodels.models.gpt2("tiny", **TINY, vocabulary_size=7)
    path = str(tmp_path / "model.keras")
    save_model(model, path)
    before = (tmp_path / "model.keras").read_bytes()

    def full_disk(self, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model), "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(model, path)
    assert (tmp_path / "model.keras").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]
