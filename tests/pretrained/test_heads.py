"""Checkpoints with a task head (tests/fixtures/make_heads.py): losses, `task=`, options, errors."""

import json
import logging
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

import tfmodels
from tests.checks import named_outputs
from tests.pretrained.test_pretrained import FIXTURES, NAMES, read, shared, stored
from tfmodels.models import SentenceEmbedder, SequenceClassifier, TokenClassifier

HEADS = [name for name in NAMES if "loss_rows" in np.load(FIXTURES / name / "expected.npz")]
TARGETS = {
    "next_sentence_label": "next_sentence_logits",
    "start_positions": "start_logits",
    "end_positions": "end_logits",
}


def targets(arrays):
    """The labels under the names of our outputs, and weights of 0 where transformers has -100."""
    y = {name.removeprefix("label_"): x for name, x in arrays.items() if name.startswith("label_")}
    if len(y) == 1:
        y = next(iter(y.values()))
        return np.where(y == -100, 0, y), (y != -100).astype("float32")
    y = {TARGETS.get(name, "token_logits"): x for name, x in y.items()}
    return (
        {name: np.maximum(x, 0) for name, x in y.items()},
        {name: (x != -100).astype("float32") for name, x in y.items()},
    )


def pick(tree, rows):
    return {n: x[rows] for n, x in tree.items()} if isinstance(tree, dict) else tree[rows]


@pytest.mark.parametrize("name", HEADS)
def test_losses_equal_transformers(name):
    model, inputs, arrays = shared(name)
    model.compile("sgd", run_eagerly=True)  # tracing takes longer than this
    y, weights = targets(arrays)
    inputs, y, weights = (pick(tree, arrays["loss_rows"]) for tree in (inputs, y, weights))
    logs = model.evaluate(inputs, y, sample_weight=weights, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], arrays["output_loss"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in HEADS if name.startswith("bert_")])
def test_steps(name):
    """A few steps of fit lower the loss, dropout and all."""
    model, inputs, arrays = read(name)
    y, weights = targets(arrays)
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)

    def loss():
        return model.evaluate(inputs, y, sample_weight=weights, verbose=0, return_dict=True)["loss"]

    before = loss()
    model.fit(inputs, y, sample_weight=weights, batch_size=3, epochs=6, verbose=0)
    assert loss() < before


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.WARNING, "tfmodels.pretrained.load")
    return caplog


@pytest.mark.parametrize("name, used", [("t5", ()), ("marian", ("bad_words_ids", "forced_bos_token_id"))])
def test_rules_of_generation_that_a_kind_does_not_know(name, used, tmp_path, log):
    """They are told of, and not ignored without a word."""
    folder = tmp_path / name
    shutil.copytree(FIXTURES / name, folder)
    path = folder / "generation_config.json"
    fields = json.loads(path.read_text()) if path.exists() else {}
    fields |= {"bad_words_ids": [[7]], "forced_bos_token_id": 3, "suppress_tokens": [4], "num_beams": 9}
    path.write_text(json.dumps(fields))
    tfmodels.from_pretrained(folder)
    told = " ".join(record.message for record in log.records if "not used" in record.message)
    for field, value in (("bad_words_ids", "[[7]]"), ("forced_bos_token_id", 3), ("suppress_tokens", "[4]")):
        assert (f"{field}={value}" in told) == (field not in used)
    assert "num_beams" not in told


def test_fresh_head_on_another_heads_folder(log):
    """A head of tokens is no head of sequences, though their tensors have the same names."""
    model = tfmodels.from_pretrained(
        FIXTURES / "bert_token", task="sequence_classification", labels=["bad", "good"]
    )
    assert isinstance(model, SequenceClassifier) and model.config.labels == ("bad", "good")
    source = load_file(FIXTURES / "bert_token" / "model.safetensors")
    np.testing.assert_array_equal(
        model.backbone.token_embedding.embeddings, source["bert.embeddings.word_embeddings.weight"]
    )
    assert np.abs(model.output_dense.kernel).max() < 0.05  # TruncatedNormal(0.02), not of the file
    (record,) = log.records
    assert "fresh: bert.pooler.dense.weight, bert.pooler.dense.bias, classifier.weight" in record.message
    assert "Left out: classifier.bias, classifier.weight" in record.message


@pytest.mark.parametrize(
    "name, task, other",
    [
        ("bert_pre_training", "masked_language_modelling", "token_logits"),
        ("bert_pre_training", "next_sentence_prediction", "next_sentence_logits"),
    ],
)
def test_a_part_of_pre_training(name, task, other, log):
    whole, inputs, _ = read(name)
    part = tfmodels.from_pretrained(FIXTURES / name, task=task)
    expected = named_outputs(whole, inputs)[other]
    np.testing.assert_allclose(part(inputs), expected, atol=1e-6)
    assert "fresh: none" in log.records[-1].message


def test_both_heads_stored_under_the_name_of_one(tmp_path, log):
    """bert-base-uncased names BertForMaskedLM and holds all of the pre-training."""
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "bert_pre_training", folder)
    fields = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(fields))
    whole, inputs, _ = read("bert_pre_training")
    expected = named_outputs(whole, inputs)
    words = tfmodels.from_pretrained(folder)
    np.testing.assert_allclose(words(inputs), expected["token_logits"], atol=1e-6)
    assert "Left out: bert.pooler" in log.records[-1].message
    again = tfmodels.from_pretrained(folder, task="pre_training")
    np.testing.assert_allclose(again(inputs)["token_logits"], expected["token_logits"], atol=1e-6)
    following = tfmodels.from_pretrained(folder, task="next_sentence_prediction")
    np.testing.assert_allclose(following(inputs), expected["next_sentence_logits"], atol=1e-6)


def test_labels_of_one_name_are_told_apart(tmp_path):
    """transformers writes such folders; two classes of one name would be one for who reads the answer."""
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "bert_seq", folder)
    fields = json.loads((folder / "config.json").read_text())
    fields["id2label"] = {"0": "bad", "1": "good", "2": "bad"}
    (folder / "config.json").write_text(json.dumps(fields))
    model = tfmodels.from_pretrained(folder)
    assert model.config.labels == ("bad (0)", "good", "bad (2)")
    tfmodels.save_pretrained(model, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == fields["id2label"]
    with pytest.raises(ValueError, match=r"each name once. Received: 'a' 2 times"):
        tfmodels.from_pretrained(folder, task="sequence_classification", labels=["a", "a", "b"])


def test_stored_head_is_used_and_renamed():
    model, inputs, _ = read("bert_seq")
    assert model.config.labels == ("bad", "so so", "good") and model.config.dropout == 0.3
    renamed = tfmodels.from_pretrained(
        FIXTURES / "bert_seq", task="sequence_classification", labels=["a", "b", "c"], dropout=0.2
    )
    assert renamed.config.labels == ("a", "b", "c") and renamed.config.dropout == 0.2
    np.testing.assert_array_equal(renamed(inputs), model(inputs))
    other = tfmodels.from_pretrained(FIXTURES / "bert_seq", task="sequence_classification", num_labels=5)
    assert other(inputs).shape == (3, 5) and other.config.labels is None
    number = tfmodels.from_pretrained(FIXTURES / "bert_seq", task="regression")
    assert number(inputs).shape == (3, 1) and number.config.problem == "regression"


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "gpt2_lm"])
def test_fresh_head_is_written(name, tmp_path):
    """A fresh head on a folder's backbone is a folder again, named for its class."""
    _, inputs, _ = read(name)
    model = tfmodels.from_pretrained(FIXTURES / name, task="token_classification", num_labels=4)
    assert isinstance(model, TokenClassifier)
    tfmodels.save_pretrained(model, tmp_path / "out")
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["architectures"][0].endswith("ForTokenClassification") and len(fields["id2label"]) == 4
    again = tfmodels.from_pretrained(tmp_path / "out")
    assert again.config == model.config
    np.testing.assert_array_equal(again(inputs), model(inputs))


@pytest.mark.parametrize(
    "name, task, words",
    [
        ("llama_lm", "question_answering", "transformer.embed_tokens.weight"),
        ("llama_seq", "question_answering", "transformer.embed_tokens.weight"),
        ("qwen3_lm", "question_answering", "transformer.embed_tokens.weight"),
        ("mistral_lm", "question_answering", "model.embed_tokens.weight"),
        ("llama_qa", "causal_language_modelling", "model.embed_tokens.weight"),
        ("llama_qa", "token_classification", "model.embed_tokens.weight"),
        ("llama_qa", "sentence_embedding", "embed_tokens.weight"),
        ("t5_seq", "question_answering", "shared.weight"),
        ("t5", "sequence_classification", "transformer.shared.weight"),
    ],
)
def test_another_class_has_its_own_names(name, task, words, tmp_path):
    """transformers' classes of one architecture look for the backbone under different names."""
    model = tfmodels.from_pretrained(FIXTURES / name, task=task)
    tfmodels.save_pretrained(model, tmp_path / "out")
    names = stored(tmp_path / "out").keys()
    prefix = words.removesuffix("embed_tokens.weight").removesuffix("shared.weight")
    assert words in names and not [n for n in names if "norm" in n and not n.startswith(prefix)]
    inputs = {"token_ids": np.array([[3, 7, 5, 9, 1]])}
    expected = named_outputs(model, inputs)
    again = named_outputs(tfmodels.from_pretrained(tmp_path / "out", task=task), inputs)
    for output, array in expected.items():
        np.testing.assert_array_equal(again[output], array)


def test_names_that_a_class_does_not_know_are_not_kept(tmp_path):
    """As an earlier version of this library wrote them: transformers would read a random body."""
    folder = shutil.copytree(FIXTURES / "llama_qa", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    wrong = {name.replace("transformer.", "model."): array for name, array in tensors.items()}
    save_file(wrong, folder / "model.safetensors")
    tfmodels.save_pretrained(tfmodels.from_pretrained(folder), tmp_path / "out")
    assert stored(tmp_path / "out") == stored(FIXTURES / "llama_qa")


def test_a_fresh_head_is_not_overwritten_by_the_folders(tmp_path):
    """The bias of words of the folder's own head, which the fresh one has too."""
    model = tfmodels.from_pretrained(FIXTURES / "bert_mlm", task="pre_training")
    tfmodels.save_pretrained(model, tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(written["cls.predictions.bias"], model.bias.bias)


@pytest.mark.parametrize(
    "name, task", [("bert_seq", "question_answering"), ("gpt2_seq", "causal_language_modelling")]
)
def test_labels_of_another_head_are_left_out(name, task, tmp_path):
    """transformers gives a head of answers as many outputs as there are labels, and refuses the folder."""
    tfmodels.save_pretrained(tfmodels.from_pretrained(FIXTURES / name, task=task), tmp_path / "out")
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not fields.keys() & {"id2label", "label2id", "num_labels", "problem_type"}


def test_special_tokens_that_stood_beside_the_config(tmp_path):
    """As transformers 5 writes T5: its reader of answers looks for the first token in config.json alone."""
    folder = shutil.copytree(FIXTURES / "t5", tmp_path / "t5")
    fields = json.loads((folder / "config.json").read_text())
    start = fields.pop("decoder_start_token_id")
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": start}))
    tfmodels.save_pretrained(tfmodels.from_pretrained(folder, task="question_answering"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["decoder_start_token_id"] == start


def test_a_number_of_labels_beside_new_ones_is_left_out(tmp_path):
    folder = spoil(tmp_path, "bert_seq", num_labels=3)
    model = tfmodels.from_pretrained(folder, task="sequence_classification", labels=["a", "b", "c", "d"])
    tfmodels.save_pretrained(model, tmp_path / "out")
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert len(fields["id2label"]) == len(fields["label2id"]) == 4 and "num_labels" not in fields
    kept = tfmodels.from_pretrained(folder)
    tfmodels.save_pretrained(kept, tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "config.json").read_text())["num_labels"] == 3


def test_labels_are_written_for_another_class(tmp_path):
    """transformers' BART has three where a folder names none."""
    model = tfmodels.from_pretrained(FIXTURES / "bart_reader_qa", task="sequence_classification")
    tfmodels.save_pretrained(model, tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]) == 2


def test_a_head_on_the_encoder_of_a_whole_folder(tmp_path, log):
    model = tfmodels.from_pretrained(FIXTURES / "t5", task="token_classification", num_labels=5)
    assert "Left out: decoder.block.0.layer.0.SelfAttention.k.weight" in log.records[-1].message
    words = load_file(FIXTURES / "t5" / "model.safetensors")["shared.weight"]
    np.testing.assert_array_equal(model.backbone.token_embedding.embeddings, words)
    tfmodels.save_pretrained(model, tmp_path / "out")
    names = stored(tmp_path / "out").keys()
    assert all(
        name.startswith(("classifier.", "transformer.encoder.", "transformer.shared")) for name in names
    )
    inputs = {"token_ids": np.array([[3, 7, 5, 9, 1]])}
    np.testing.assert_array_equal(tfmodels.from_pretrained(tmp_path / "out")(inputs), model(inputs))


@pytest.mark.parametrize("name", ["t5_token", "t5_encoder"])
def test_a_head_on_a_decoder_that_is_not_there(name):
    with pytest.raises(ValueError, match=r"'question_answering' must have a folder with a decoder. Received"):
        tfmodels.from_pretrained(FIXTURES / name, task="question_answering")


@pytest.mark.parametrize("name", ["t5_v1_1", "bart_untied"])
def test_words_out_are_left_out(name, tmp_path, log):
    """Untied, they are the language head's own, and no copy of the words in."""
    model = tfmodels.from_pretrained(FIXTURES / name, task="sequence_classification", num_labels=3)
    assert "lm_head.weight" in log.records[-1].message.split("Left out: ")[1]
    tfmodels.save_pretrained(model, tmp_path / "out")
    assert "lm_head.weight" not in stored(tmp_path / "out")
    inputs = {"token_ids": np.array([[3, 7, 5, 9, 1]])}
    np.testing.assert_array_equal(tfmodels.from_pretrained(tmp_path / "out")(inputs), model(inputs))


def test_what_a_class_needs_of_the_backbone_is_said(tmp_path):
    """transformers ties the words of a Llama with a head of tokens; our bare one does not by itself."""
    sizes = dict(num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=8, vocabulary_size=9)
    model = tfmodels.models.TokenClassifier(tfmodels.models.llama("tiny", **sizes), num_labels=3)
    with pytest.raises(
        ValueError, match="LlamaForTokenClassification .* backbone with {'tie_embeddings': True}"
    ):
        tfmodels.save_pretrained(model, tmp_path / "out")


def test_head_put_on_by_hand(tmp_path):
    """A head over a loaded backbone, and over a fresh one with a pooler that its class lacks."""
    backbone, inputs, _ = read("bert")
    model = tfmodels.models.QuestionAnsweringModel(backbone)
    tfmodels.save_pretrained(model, tmp_path / "out")
    again = tfmodels.from_pretrained(tmp_path / "out")
    np.testing.assert_allclose(again(inputs)["end_logits"], model(inputs)["end_logits"], atol=1e-6)
    assert "bert.pooler.dense.weight" not in stored(tmp_path / "out")
    tfmodels.save_pretrained(model.backbone, tmp_path / "bare")
    assert stored(tmp_path / "bare") == stored(FIXTURES / "bert")
    unlike = SequenceClassifier(tfmodels.from_pretrained(FIXTURES / "distilbert"))
    with pytest.raises(ValueError, match="DistilBertForSequenceClassification always has.*'relu'"):
        tfmodels.save_pretrained(unlike, tmp_path / "unlike")


def test_missing_pooler(tmp_path):
    """transformers' add_pooling_layer=False."""
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "bert", folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({n: x for n, x in tensors.items() if "pooler" not in n}, folder / "model.safetensors")
    model, inputs, _ = read("bert")
    bare = tfmodels.from_pretrained(folder)
    np.testing.assert_array_equal(bare(inputs)["sequence_output"], model(inputs)["sequence_output"])
    tfmodels.save_pretrained(bare, tmp_path / "out")
    assert stored(tmp_path / "out") == stored(folder)


@pytest.mark.parametrize("pooling, normalize", [("mean", True), ("cls", False), ("lasttoken", True)])
def test_sentence_transformers(pooling, normalize, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "bert", folder)
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    modules = [{"path": f"{i}_{kind}" * (i > 0), "type": f"x.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    _, inputs, arrays = read("bert")
    model = tfmodels.from_pretrained(folder, task="sentence_embedding")
    assert isinstance(model, SentenceEmbedder)
    hidden, mask = arrays["output_last_hidden"], inputs["padding_mask"]
    last = mask.sum(1) - 1
    expected = {
        "mean": (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True),
        "cls": hidden[:, 0],
        "lasttoken": hidden[np.arange(len(hidden)), last],
    }[pooling]
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(model(inputs), expected, atol=1e-4)  # as the hidden states
    tfmodels.save_pretrained(model, tmp_path / "out")
    again = tfmodels.from_pretrained(tmp_path / "out", task="sentence_embedding")
    np.testing.assert_array_equal(again(inputs), model(inputs))
    assert stored(tmp_path / "out") == stored(FIXTURES / "bert")
    tfmodels.save_pretrained(model, folder)  # over itself, folders of modules included
    assert tfmodels.from_pretrained(folder, task="sentence_embedding").config == model.config


@pytest.mark.parametrize(
    "modules, pooling, message",
    [
        ([{"type": "x.Transformer"}, {"type": "x.CNN"}], {}, r"must list Transformer.*'CNN'"),
        ({}, {}, r"must hold a JSON list. Received: dict"),
        (None, {"pooling_mode_max_tokens": True}, r"one pooling mode of cls.*'pooling_mode_max_tokens'"),
        (None, {"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, None),
        (None, {}, r"one pooling mode of cls.*Received: \[\]"),
        ([{"type": "Transformer"}, {"type": "Pooling", "path": "../x"}], {}, r"inside the folder.*'../x'"),
    ],
)
def test_bad_sentence_transformers(modules, pooling, message, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "bert_relu", folder)
    default = [{"type": "Transformer"}, {"type": "Pooling", "path": "1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(default if modules is None else modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if message is None:
        assert tfmodels.from_pretrained(folder, task="sentence_embedding").config.pooling == "first"
        return
    with pytest.raises(ValueError, match=message):
        tfmodels.from_pretrained(folder, task="sentence_embedding")


@pytest.mark.parametrize("name", ["bart", "t5", "llama_lm", "gpt2_lm"])
def test_label_smoothing_of_a_loaded_language_model(name):
    """Szegedy et al. 2016, section 7: each word has its share of the training loss."""
    rates = {} if name == "t5" else {"attention_dropout": 0.0}
    model = tfmodels.from_pretrained(FIXTURES / name, label_smoothing=0.1, dropout=0.0, **rates)
    inputs = model.complete_inputs({ids: np.array([[3, 7, 5, 9, 1]]) for ids in model.input_pairs})
    labels = np.array([[7, 5, 9, 1, 2]])
    total, count = model.task_loss(inputs, tf.constant(labels), tf.ones((1, 5)), training=True)["loss"]
    loss = total / count
    logits = np.asarray(model(inputs), "float64")
    words = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -0.9 * np.take_along_axis(words, labels[..., None], -1).mean() - 0.1 * words.mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-4)  # float32


@pytest.mark.parametrize(
    "name, options, fields",
    [
        (
            "bart",
            dict(dropout=0.2, attention_dropout=0.3, intermediate_dropout=0.4, label_smoothing=0.1),
            dict(dropout=0.2, attention_dropout=0.3, activation_dropout=0.4),
        ),
        ("gpt2_lm", dict(dropout=0.2), dict(resid_pdrop=0.2, embd_pdrop=0.2)),
        ("gpt2_lm", dict(embedding_dropout=0.2), dict(embd_pdrop=0.2)),
        ("llama_lm", dict(dropout=0.2, label_smoothing=0.1, rematerialise=True), {}),
        ("bert_qa", dict(dropout=0.2), dict(hidden_dropout_prob=0.2)),
        ("bert_seq", dict(attention_dropout=0.2), dict(attention_probs_dropout_prob=0.2)),
        ("t5_token", dict(rematerialise=True), {}),
    ],
)
def test_options_that_training_follows(name, options, fields, tmp_path):
    """They change no answer, and config.json where it has a place for them."""
    model = tfmodels.from_pretrained(FIXTURES / name, **options)
    backbone = getattr(model, "backbone", model)
    assert {option: getattr(backbone.config, option) for option in options} == options
    expected, inputs, _ = shared(name)
    for output, array in named_outputs(expected, inputs).items():
        np.testing.assert_array_equal(named_outputs(model, inputs)[output], array)
    tfmodels.save_pretrained(model, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    source = json.loads((FIXTURES / name / "config.json").read_text())
    assert {field: written[field] for field in fields} == fields
    assert fields or written == source
    assert not written.keys() & {"label_smoothing", "rematerialise", "intermediate_dropout"}


def test_a_heads_own_dropout_comes_first():
    model = tfmodels.from_pretrained(FIXTURES / "bert_seq", dropout=0.25, attention_dropout=0.2)
    source = json.loads((FIXTURES / "bert_seq" / "config.json").read_text())
    assert model.config.dropout == 0.25
    assert model.backbone.config.dropout == source["hidden_dropout_prob"]
    assert model.backbone.config.attention_dropout == 0.2


def spoil(tmp_path, name, drop=None, **fields):
    """A copy of a fixture with fields set and a tensor left out."""
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / name, folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | fields))
    if drop:
        tensors = load_file(folder / "model.safetensors")
        del tensors[drop]
        save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "name, spoilt, options, message",
    [
        ("bert_seq", {"id2label": {"0": "a", "2": "b"}}, {}, r"id2label must map.*'2': 'b'"),
        ("bert_seq", {"id2label": ["a"]}, {}, r"id2label must map.*\['a'\]"),
        ("bert_seq", {"id2label": {"0": 7, "1": "b"}}, {}, r"id2label must map"),
        ("bert_seq", {"problem_type": "ranking"}, {}, r"problem_type must be one of.*'ranking'"),
        ("bert_seq", {"id2label": {"0": "a", "1": "b"}}, {}, r"'classifier.weight'.*\(2, 12\)"),
        ("bert_seq", {"drop": "classifier.bias"}, {}, r"must hold the tensor 'classifier.bias'"),
        (
            "bert_seq",
            {"drop": "classifier.bias"},
            {"task": "sequence_classification"},
            r"must hold the tensor 'classifier.bias'",
        ),
        ("bert_seq", {"drop": "bert.pooler.dense.bias"}, {}, r"the tensor 'bert.pooler.dense.bias'"),
        ("bert_seq", {"classifier_dropout": 2}, {}, r"classifier_dropout must be a number.*Received: 2"),
        ("bert_seq", {"architectures": ["BertLMHeadModel"]}, {}, r"must name one of BertModel, .*LMHead"),
        ("bert_seq", {"architectures": [["x"]]}, {}, r"must name one of BertModel"),
        ("bert_seq", {}, {"task": "causal_language_modelling"}, r"task must be one of masked_.*bert"),
        ("bert_seq", {}, {"num_label": 3}, r"no option 'num_label'.*mean 'num_labels'"),
        ("bert_seq", {}, {"pooling": "mean"}, r"no option 'pooling'"),
        ("bert", {}, {"num_labels": 3}, r"no option 'num_labels' for BertModel. Its head's fields: none"),
        ("bart", {}, {"hidden_dim": 3}, r"no option.*fields: none. Its backbone's: dropout, att.*label_sm"),
        ("bart", {}, {"dropout": 1.5}, r"BartConfig.dropout must be at least 0 and below 1. Received: 1.5"),
        ("bart", {}, {"intermediat_dropout": 0.1}, r"Did you mean 'intermediate_dropout'"),
        ("gpt2_seq", {}, {"label_smoothing": 0.1}, r"no option 'label_smoothing' for GPT2ForSequence"),
        ("t5_encoder", {}, {"label_smoothing": 0.1}, r"no option 'label_smoothing'.*dropout, rematerialise"),
        ("bert_seq", {}, {"num_labels": 2}, r"'classifier.weight' must have the shape \(2, 12\)"),
        (
            "bert",
            {},
            {"task": "token_classification", "num_labels": 3, "labels": ["a"]},
            r"num_labels=3, labels=\['a'\]",
        ),
        ("bert", {}, {"task": "sequence_classification", "num_labels": 0}, r"Received: 0"),
        ("bert", {}, {"task": "sequence_classification", "num_labels": 1}, r"num_labels=1. Pass problem="),
    ],
)
def test_bad_heads(name, spoilt, options, message, tmp_path):
    folder = spoil(tmp_path, name, **spoilt)
    with pytest.raises(ValueError, match=message) as error:
        tfmodels.from_pretrained(folder, **options)
    assert "\n" not in str(error.value)
