"""Who may import whom: the table of docs/design.md, read off the code with ast."""

import ast
import configparser
import pathlib
import re
import sys

PACKAGE = pathlib.Path(__file__).parent.parent / "tfmodels"
TRAINING_PARTS = {"training.step", "training.stream"}
EVERYTHING = {"*"}
MAY_IMPORT = {
    "layers": set(),
    "training": {"layers"},
    "models": {"layers", *TRAINING_PARTS},
    "tokenizers": set(),
    "datasets": set(),
    "data": set(),
    "evaluation": set(),
    "generation": set(),
    "pretrained": {"models", "tokenizers"},
    "serving": {"generation"},
    "cli": EVERYTHING,
}
PRIVATE_KERAS = ("keras.src", "keras._")


def imports(path):
    """Dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files():
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ("__init__", "_version"):
            yield room, path


def test_every_room_keeps_to_the_table():
    rooms = set()
    for room, path in files():
        rooms.add(room)
        allowed = MAY_IMPORT[room]
        for name in imports(path):
            if allowed == EVERYTHING or not name.startswith("tfmodels."):
                continue
            target = name.removeprefix("tfmodels.")
            fine = {room, "_version", *allowed}
            assert any(target == f or target.startswith(f + ".") for f in fine), f"{path}: {name}"
    assert rooms == set(MAY_IMPORT)


def test_layers_and_models_are_backend_neutral():
    for room, path in files():
        # The one file of kernels that keras.ops has no op for.
        if room in ("layers", "models") and path != PACKAGE / "layers" / "_kernels.py":
            assert not any(name.split(".")[0] == "tensorflow" for name in imports(path)), path


def test_checkpoints_need_no_torch_and_no_pickle():
    for room, path in files():
        if room == "pretrained":
            roots = {name.split(".")[0] for name in imports(path)}
            assert not roots & {"torch", "pickle", "transformers"}, path


def test_no_private_keras():
    for _, path in files():
        assert not any(name.startswith(PRIVATE_KERAS) for name in imports(path)), path


def test_private_names_of_keras_stand_in_one_file():
    names = ("_maybe_symbolic_build", "_all_reduce_sum_gradients", "_model_variables_moving_average")
    names += ("_exclude_from_weight_decay", "_use_weight_decay", "_get_variable_index", "tf.__internal__")
    for _, path in files():
        found = [name for name in names if name in path.read_text()]
        assert not found or path == PACKAGE / "training" / "_keras_internals.py", f"{path}: {found}"


def test_what_is_imported_is_in_setup_cfg():
    """What a dependency brings along today it may not bring tomorrow."""
    config = configparser.ConfigParser()
    config.read(PACKAGE.parent / "setup.cfg")
    extras = config["options.extras_require"]
    lines = "\n".join([config["options"]["install_requires"], *extras.values()]).splitlines()
    declared = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in lines if line and line[0] != "#"}
    other_names = {"pyyaml": "yaml", "grpcio": "grpc", "tensorflow_serving_api": "tensorflow_serving"}
    declared = {other_names.get(name, name) for name in declared}
    declared.add("google")  # protobuf, which tensorflow-serving-api's own messages are made of
    roots = {name.split(".")[0] for _, path in files() for name in imports(path)}
    assert roots - declared - sys.stdlib_module_names == {"tfmodels"}


def test_the_table_sees_a_breach(tmp_path):
    """The reader finds imports inside functions too."""
    (tmp_path / "x.py").write_text("def f():\n    from tfmodels.models import gpt2\n")
    assert list(imports(tmp_path / "x.py")) == ["tfmodels.models.gpt2"]
