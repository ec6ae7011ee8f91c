"""Checkpoints made by transformers (tests/fixtures/make_pretrained.py): answers, round trips."""

import functools
import importlib
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
ATOL = 1e-4  # float32, 4 layers, weights of 0.3; the promise of docs/migrate-from-transformers.md
INPUTS = {
    "input_ids": "token_ids",
    "attention_mask": "padding_mask",
    "token_type_ids": "segment_ids",
}
ENCODER_DECODER_INPUTS = {
    "input_ids": "encoder_token_ids",
    "attention_mask": "encoder_padding_mask",
    "decoder_input_ids": "decoder_token_ids",
    "decoder_attention_mask": "decoder_padding_mask",
}


def holds(name, array):
    return array in np.load(FIXTURES / name / "expected.npz")


# Those of words; test_heads.py has the heads'. The labels of gpt2_bfloat16 stand on padding too, of
# which the two libraries differ.
SCORED = [
    name
    for name in NAMES
    if holds(name, "label_labels") and not holds(name, "loss_rows") and name != "gpt2_bfloat16"
]
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
    names = ENCODER_DECODER_INPUTS if "input_decoder_input_ids" in arrays else INPUTS
    inputs = {
        ours: arrays[f"input_{theirs}"] for theirs, ours in names.items() if f"input_{theirs}" in arrays
    }
    return tfmodels.from_pretrained(FIXTURES / name), inputs, arrays


@functools.cache
def shared(name):
    """`read`, once for the tests that leave the model as it is."""
    return read(name)


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
    model, inputs, arrays = shared(name)
    mask = inputs[list(model.input_pairs.values())[-1][0]] != 0
    outputs = named_outputs(model, inputs)
    theirs = {ours: arrays[f"output_{name}"] for name, ours in OUTPUTS.items() if f"output_{name}" in arrays}
    if not theirs.keys() & outputs.keys():  # a bare model of theirs has no logits
        outputs = {}
    theirs["sequence_output"] = arrays["output_last_hidden"]
    outputs["sequence_output"] = np.asarray(model.final_hidden(inputs))
    for ours, expected in theirs.items():
        real = mask.reshape(-1, mask.shape[-1])  # choices of one example are rows there
        real = real if expected.shape[:2] == real.shape else ...
        np.testing.assert_allclose(outputs[ours][real], expected[real], atol=ATOL, err_msg=ours)
    if "output_encoder_last_hidden_state" in arrays:
        real = inputs["encoder_padding_mask"] != 0
        encoded = np.asarray(model.encode(model.complete_inputs(inputs)))
        np.testing.assert_allclose(encoded[real], arrays["output_encoder_last_hidden_state"][real], atol=ATOL)


@pytest.mark.parametrize("name", SCORED)
def test_losses_equal_transformers(name):
    """Theirs reads -100 as a weight of 0, and a decoder shifts the labels itself."""
    model, inputs, arrays = shared(name)
    model.compile("sgd", run_eagerly=True)
    labels = arrays["label_labels"]
    if "token_ids" in inputs:
        inputs, labels = {key: x[:, :-1] for key, x in inputs.items()}, labels[:, 1:]
    weights = (labels != -100).astype("float32")
    loss = model.evaluate(inputs, np.maximum(labels, 0), sample_weight=weights, verbose=0)[0]
    np.testing.assert_allclose(loss, arrays["output_loss"], atol=1e-5)


@pytest.fixture
def eager(monkeypatch):
    """`generate` op by op: tracing a loop for each fixture takes longer than these few steps."""
    module = importlib.import_module("tfmodels.generation.generate")
    monkeypatch.setattr(module, "compiled", lambda model, key, function, *specs: function)


@pytest.mark.parametrize("name", [n for n in NAMES if holds(n, "greedy")])
@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_generations_equal_transformers(name, method, eager):
    model, inputs, arrays = shared(name)
    row = {"token_ids": inputs["token_ids"][1:2], "padding_mask": inputs["padding_mask"][1:2]}
    result = tfmodels.generate(model, row, method=method, max_new_tokens=4, num_beams=3, stop=())
    np.testing.assert_array_equal(result.token_ids, arrays[method])


@pytest.mark.parametrize(
    "name, beams, early",
    [
        (name, beams, early)
        for name in NAMES
        for beams in (1, 3, 4)
        for early in (False, True)
        if holds(name, f"generated_{beams}{'_early' * early}")
    ],
)
def test_generated_batches_equal_transformers(name, beams, early, eager):
    """Rows of several lengths, from the start token to the model's own end token, then padding."""
    model, inputs, arrays = shared(name)
    expected = arrays[f"generated_{beams}{'_early' * early}"]
    prompts = {key: inputs[key] for key in ("encoder_token_ids", "encoder_padding_mask")}
    options = {"method": "greedy" if beams == 1 else "beam", "num_beams": beams, "early_stopping": early}
    result = tfmodels.generate(model, prompts, max_new_tokens=8, **options)
    assert result.lengths.max() == expected.shape[1]
    for row, length, theirs in zip(result.token_ids, result.lengths, expected, strict=True):
        np.testing.assert_array_equal(row[:length], theirs[:length])
        # After a beam's end theirs writes more ends, where padding is 0.
        assert np.isin(theirs[length:], (model.config.pad_id, model.config.end_id)).all()


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name, tmp_path):
    """The same tensors, bit for bit, in their stored types, and the same config."""
    tfmodels.save_pretrained(shared(name)[0], tmp_path / "out")
    assert stored(tmp_path / "out") == stored(FIXTURES / name)
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved == json.loads((FIXTURES / name / "config.json").read_text())
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]  # nothing left aside


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_without_the_source(name, tmp_path):
    """A model that was saved by Keras in between knows no folder: all is written from its config."""
    model, inputs, _ = shared(name)
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


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_the_end_token_of_another_vocabulary(tmp_path, file):
    """GPT2Config(vocab_size=23) leaves transformers' 50256 there: no token. Another id is a mistake."""
    folder = tmp_path / "in"
    shutil.copytree(FIXTURES / "gpt2_lm", folder)
    if file == "config.json":
        (folder / "generation_config.json").unlink()
    for end in (50256, 40):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": end}))
        if end == 50256:
            assert tfmodels.from_pretrained(folder).config.end_id is None
    with pytest.raises(ValueError, match="eos_token_id must be at least 0 and below .*Received: 40"):
        tfmodels.from_pretrained(folder)


def test_quantized_is_refused(tmp_path):
    model = tfmodels.from_pretrained(FIXTURES / "gpt2_lm")
    model.quantize("int8")
    with pytest.raises(ValueError, match="Received: a quantized model"):
        tfmodels.save_pretrained(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_unknown_to_transformers(tmp_path):
    with pytest.raises(ValueError, match="Received: Transformer with .*Save it with model.save"):
        tfmodels.save_pretrained(tfmodels.models.transformer("tiny"), tmp_path / "out")


def test_an_activation_unknown_to_transformers(tmp_path):
    model = tfmodels.models.gpt2("tiny", activation="elu")
    with pytest.raises(ValueError, match="no name for activation='elu'. It has those of: gelu, gelu_tanh"):
        tfmodels.save_pretrained(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_unknown_activation():
    with pytest.raises(ValueError, match="activation function identifier: gleu"):
        tfmodels.models.gpt2("tiny", activation="gleu")


def test_a_loaded_model_trains():
    model, inputs, arrays = read("gpt2_lm")
    model.compile(keras.optimizers.AdamW(1e-2))
    labels, weights = np.maximum(arrays["label_labels"], 0), arrays["label_labels"] != -100
    history = model.fit(inputs, labels, sample_weight=weights.astype("float32"), epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


# Of kinds with tied words: words in, words out and their bias, as transformers calls them.
TIED = {
    "gpt2_lm": ("transformer.wte", "lm_head", None),
    "llama_lm": ("model.embed_tokens", "lm_head", None),
    "bert_mlm": ("bert.embeddings.word_embeddings", "cls.predictions.decoder", "cls.predictions.bias"),
    "roberta_mlm": ("roberta.embeddings.word_embeddings", "lm_head.decoder", "lm_head.bias"),
    "distilbert_mlm": ("distilbert.embeddings.word_embeddings", "vocab_projector", "vocab_projector.bias"),
}


def with_tensors(tmp_path, name, change):
    """A copy of a fixture whose tensors are updated by what `change` makes of them."""
    folder = tmp_path / "changed"
    shutil.copytree(FIXTURES / name, folder, dirs_exist_ok=True)
    tensors = load_file(FIXTURES / name / "model.safetensors")
    save_file(tensors | change(tensors), folder / "model.safetensors")
    return folder, tensors


@pytest.mark.parametrize("name", TIED)
def test_words_out_that_differ_are_a_matrix_of_their_own(name, tmp_path):
    """As in transformers, which does not tie them then, whatever config.json says."""
    model, inputs, _ = shared(name)
    words, out, bias = TIED[name]
    folder, _ = with_tensors(tmp_path, name, lambda x: {f"{out}.weight": x[f"{words}.weight"].copy()})
    assert len(tfmodels.from_pretrained(folder).weights) == len(model.weights)  # still tied
    # Each word has the logits of the one before.
    other, tensors = with_tensors(
        tmp_path, name, lambda x: {f"{out}.weight": np.roll(x[f"{words}.weight"], 1, axis=0)}
    )
    bias = 0.0 if bias is None else tensors[bias]
    expected = np.roll(model(inputs) - bias, 1, axis=-1) + bias
    again = tfmodels.from_pretrained(other)
    np.testing.assert_allclose(again(inputs), expected, atol=1e-5)  # float32, another order of sums
    tfmodels.save_pretrained(again, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    np.testing.assert_array_equal(tfmodels.from_pretrained(tmp_path / "out")(inputs), again(inputs))


def test_another_bias_of_the_words_out_is_read(tmp_path):
    name = "cls.predictions.decoder.bias"
    model, inputs, _ = shared("bert_mlm")
    folder, _ = with_tensors(tmp_path, "bert_mlm", lambda x: {name: x["cls.predictions.bias"] + 1})
    expected = np.asarray(model(inputs)) + 1
    np.testing.assert_allclose(tfmodels.from_pretrained(folder)(inputs), expected, atol=1e-5)
