"""Checkpoints made by transformers (tests/fixtures/make_pretrained.py): answers, round trips."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import tfmodels
from tests.checks import named_outputs

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "pretrained"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
GENERATIVE = [name for name in NAMES if "greedy" in np.load(FIXTURES / name / "expected.npz")]
ATOL = 1e-4  # float32, 4 layers, weights of 0.3; the promise of docs/migrate-from-transformers.md
INPUTS = {
    "input_ids": "token_ids",
    "attention_mask": "padding_mask",
    "token_type_ids": "segment_ids",
}
OUTPUTS = {
    "last_hidden": "sequence_output",
    "pooler_output": "pooled_output",
    "logits": "logits",
    "prediction_logits": "token_logits",
    "seq_relationship_logits": "next_sentence_logits",
    "start_logits": "start_logits",
    "end_logits": "end_logits",
}


def read(name):
    """A fixture's model, inputs under our names, labels and expected outputs."""
    arrays = dict(np.load(FIXTURES / name / "expected.npz"))
    inputs = {
        ours: arrays[f"input_{theirs}"] for theirs, ours in INPUTS.items() if f"input_{theirs}" in arrays
    }
    return tfmodels.from_pretrained(FIXTURES / name), inputs, arrays


def stored(folder):
    """Every tensor of a folder: name -> (bytes, dtype, shape)."""
    tensors = {}
    for path in pathlib.Path(folder).glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  safetensors has no "in"
                array = file.get_tensor(name)
                tensors[name] = (array.tobytes(), array.dtype, array.shape)
    return tensors


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_transformers(name):
    model, inputs, arrays = read(name)
    mask = inputs["padding_mask"] != 0
    outputs = named_outputs(model, inputs)
    theirs = {ours: arrays[f"output_{name}"] for name, ours in OUTPUTS.items() if f"output_{name}" in arrays}
    assert set(outputs) <= set(theirs)
    theirs["sequence_output"] = arrays["output_last_hidden"]
    outputs["sequence_output"] = np.asarray(model.final_hidden(inputs))
    for ours, expected in theirs.items():
        real = mask.reshape(-1, mask.shape[-1])  # choices of one example are rows there
        real = real if expected.shape[:2] == real.shape else ...
        np.testing.assert_allclose(outputs[ours][real], expected[real], atol=ATOL, err_msg=ours)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("gpt2_lm")])
def test_losses_equal_transformers(name):
    """Theirs shifts the labels itself and reads -100 as a weight of 0; here padding is masked."""
    model, inputs, arrays = read(name)
    model.compile("adamw")
    labels = arrays["label_labels"]
    loss = model.evaluate(
        {key: x[:, :-1] for key, x in inputs.items()},
        np.maximum(labels, 0)[:, 1:],
        sample_weight=(labels != -100)[:, 1:].astype("float32"),
        verbose=0,
    )[0]
    np.testing.assert_allclose(loss, arrays["output_loss"], atol=1e-5)


@pytest.mark.parametrize("name", GENERATIVE)
@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_generations_equal_transformers(name, method):
    model, inputs, arrays = read(name)
    row = {"token_ids": inputs["token_ids"][1:2], "padding_mask": inputs["padding_mask"][1:2]}
    result = tfmodels.generate(model, row, method=method, max_new_tokens=4, num_beams=3, stop=())
    np.testing.assert_array_equal(result.token_ids, arrays[method])


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name, tmp_path):
    """The same tensors, bit for bit, in their stored types, and the same config."""
    tfmodels.save_pretrained(tfmodels.from_pretrained(FIXTURES / name), tmp_path / "out")
    assert stored(tmp_path / "out") == stored(FIXTURES / name)
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved == json.loads((FIXTURES / name / "config.json").read_text())
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]  # nothing left aside


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_without_the_source(name, tmp_path):
    """A model that was saved by Keras in between knows no folder: all is written from its config."""
    model, inputs, _ = read(name)
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    tfmodels.save_pretrained(copy, tmp_path / "out")
    again = tfmodels.from_pretrained(tmp_path / "out")
    assert again.get_config()["config"] == model.get_config()["config"]
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_names_of_early_checkpoints(tmp_path):
    """bert-base calls a norm's weight gamma, and stores the positions 0, 1, 2, ... themselves."""
    folder = tmp_path / "early"
    shutil.copytree(FIXTURES / "bert", folder)
    tensors = load_file(folder / "model.safetensors")
    old = {".weight": ".gamma", ".bias": ".beta"}
    early = {"embeddings.position_ids": np.arange(11)[None]}
    for name, array in tensors.items():
        for new in old:
            if "LayerNorm" in name and name.endswith(new):
                name = name.removesuffix(new) + old[new]
        early[name] = array
    assert "embeddings.LayerNorm.gamma" in early
    save_file(early, folder / "model.safetensors")
    model, inputs, _ = read("bert")
    again = tfmodels.from_pretrained(folder)
    np.testing.assert_array_equal(again(inputs)["pooled_output"], model(inputs)["pooled_output"])
    tfmodels.save_pretrained(again, tmp_path / "out")
    early = {"embeddings.position_ids": stored(folder)["embeddings.position_ids"]}
    assert stored(tmp_path / "out") == stored(FIXTURES / "bert") | early


def test_saved_over_a_sharded_folder(tmp_path):
    """One file replaces five and their index; a tokenizer's files come along."""
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "gpt2_lm_untied", folder)
    (folder / "vocab.json").write_text("{}")
    tfmodels.save_pretrained(tfmodels.from_pretrained(folder), folder)
    assert not list(folder.glob("*of*")) and not (folder / "model.safetensors.index.json").exists()
    assert stored(folder) == stored(FIXTURES / "gpt2_lm_untied")
    tfmodels.save_pretrained(tfmodels.from_pretrained(folder), tmp_path / "other")
    assert (tmp_path / "other" / "vocab.json").read_text() == "{}"


def test_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("tfmodels.pretrained.save._SHARD_BYTES", 8000)
    model, inputs, _ = read("gpt2_lm")
    tfmodels.save_pretrained(model, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
    assert stored(tmp_path / "out") == stored(FIXTURES / "gpt2_lm")
    again = tfmodels.from_pretrained(tmp_path / "out")
    np.testing.assert_array_equal(again(inputs), model(inputs))


def test_trained_weights_are_written_whole(tmp_path):
    """A tensor that no longer fits its stored bfloat16 is written in float32; others stay."""
    model = tfmodels.from_pretrained(FIXTURES / "gpt2_bfloat16")
    model.final_norm.gamma.assign(model.final_norm.gamma + 1e-4)
    tfmodels.save_pretrained(model, tmp_path / "out")
    written = stored(tmp_path / "out")
    assert written["transformer.ln_f.weight"][1] == "float32"
    assert written["transformer.ln_f.bias"][1] == "bfloat16"
    again = tfmodels.from_pretrained(tmp_path / "out")
    np.testing.assert_array_equal(again.final_norm.gamma, model.final_norm.gamma)


def test_dtype():
    model = tfmodels.from_pretrained(FIXTURES / "gpt2_bfloat16", dtype="bfloat16")
    assert {variable.dtype for variable in model.variables} == {"bfloat16"}
    whole = tfmodels.from_pretrained(FIXTURES / "gpt2_bfloat16")
    for half, full in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(half.astype("float32"), full)


def test_quantized_is_refused(tmp_path):
    model = tfmodels.from_pretrained(FIXTURES / "gpt2_lm")
    model.quantize("int8")
    with pytest.raises(ValueError, match="Received: a quantized model"):
        tfmodels.save_pretrained(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_unknown_to_transformers(tmp_path):
    with pytest.raises(ValueError, match="Received: Transformer with .*Save it with model.save"):
        tfmodels.save_pretrained(tfmodels.models.transformer("tiny"), tmp_path / "out")


def test_a_loaded_model_trains():
    model, inputs, arrays = read("gpt2_lm")
    model.compile(keras.optimizers.AdamW(1e-2))
    labels, weights = np.maximum(arrays["label_labels"], 0), arrays["label_labels"] != -100
    history = model.fit(inputs, labels, sample_weight=weights.astype("float32"), epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
