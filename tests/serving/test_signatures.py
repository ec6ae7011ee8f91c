"""The signatures of models that write text, against `generate`, `score` and the model itself."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import tfmodels
from tfmodels.generation.config import make_generation_config
from tfmodels.serving.text_generation import TextGeneration

ODD = ["In the", "", "ñ 日本", b"\xff\xfe bad \xc3", "God " * 30, "x"]
METHODS = {
    "greedy": {},
    "sample": {"top_k": 9, "top_p": 0.8, "temperature": 1.5, "seed": 7, "num_return_sequences": 2},
    "beam": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5},
}
OTHER_METHODS = {
    "diverse_beam": {"num_beams": 4, "num_return_sequences": 2, "diversity_penalty": 1.5},
    "contrastive": {"top_k": 3, "penalty_alpha": 0.7},
}
# Those in which the others differ from greedy decoding; each costs seconds.
NAMES = ["serving_default", "generate"]


@pytest.fixture(scope="module")
def exports(words, decoder, greedy_export, tmp_path_factory):
    """Method -> (card, signatures): loaded once."""
    found = {}
    for method, options in METHODS.items():
        folder = greedy_export
        if method != "greedy":
            path = tmp_path_factory.mktemp(method)
            options = options | {"method": method, "max_new_tokens": 5, "signatures": NAMES}
            folder = tfmodels.export(decoder, words, path, **options)
        loaded = tf.saved_model.load(folder)
        card = json.loads(pathlib.Path(folder, "assets.extra", "tfmodels.json").read_text())
        found[method] = card, loaded.signatures, loaded, folder
    return found


def defaults(card, rows=1):
    inputs = card["signatures"]["generate"]["inputs"]
    return {
        name: tf.constant([spec["default"]] * rows, spec["dtype"])
        for name, spec in inputs.items()
        if "default" in spec
    }


@pytest.mark.parametrize("method", METHODS)
def test_generate_is_generate(method, words, decoder, exports):
    """With the defaults of the card, and with other numbers than those that it was exported with."""
    card, signatures, *_ = exports[method]
    check_generate(method, METHODS[method], words, decoder, signatures["generate"], defaults(card))


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_other_methods_are_generate(method, words, decoder):
    """Traced as for an export; what is written and read again differs by nothing from the others."""
    options = OTHER_METHODS[method]
    config = make_generation_config(None, {"method": method, "max_new_tokens": 5, **options})
    signature = TextGeneration(decoder, words, config).signatures(["generate"])["generate"]
    check_generate(method, options, words, decoder, signature.traced(), numbers_of(signature))


@pytest.mark.parametrize("method, stop", [("greedy", "p"), ("sample", "u"), ("beam", "\x06")])
def test_stop_strings(method, stop, words, decoder):
    """Texts end at them and are cut before them, each row's from its own least length on."""
    texts, options = ["In the", "x", "earth. "], METHODS[method] | {"method": method, "max_new_tokens": 5}
    config = make_generation_config(None, {"stop": (stop,), **options})
    signatures = TextGeneration(decoder, words, config).signatures(NAMES)
    expected = [tfmodels.generate(decoder, texts, words, config, min_new_tokens=n) for n in (0, 4)]
    assert expected[0].text != expected[1].text
    default = signatures["serving_default"].traced()(text=tf.constant(texts))["text"].numpy()
    assert np.vectorize(bytes.decode)(default).tolist() == expected[0].text
    signature = signatures["generate"]
    numbers = {n: tf.constant([x] * 3, signature.inputs[n].dtype) for n, x in signature.defaults.items()}
    numbers["min_new_tokens"] = tf.constant([4, 0, 4])
    found = {n: x.numpy() for n, x in signature.traced()(text=tf.constant(texts), **numbers).items()}
    for i, least in enumerate((4, 0, 4)):
        row, alone = expected[least // 4], {name: x[i] for name, x in found.items()}
        text, end = np.vectorize(bytes.decode)(alone["text"]), alone["end_reason"].astype(str)
        assert text.tolist() == np.atleast_1d(row.text[i]).tolist()
        assert end.tolist() == np.atleast_1d(row.end_reason[i]).tolist()
    assert signature.traced()(text=tf.constant([], tf.string), **numbers_of(signature))["text"].shape[0] == 0


def test_xla_draws_the_same_numbers(words, decoder):
    options = {"max_new_tokens": 6, "method": "sample", "top_k": 9, "top_p": 0.9, "seed": 3}
    config = make_generation_config(None, options)
    signature = TextGeneration(decoder, words, config, jit_compile=True).signatures(["serving_default"])
    texts = ["In the", "God", "x"]
    found = signature["serving_default"].traced()(text=tf.constant(texts))["text"].numpy()
    assert np.vectorize(bytes.decode)(found).tolist() == tfmodels.generate(decoder, texts, words, config).text
    config = make_generation_config(config, {"stop": ("God",)})
    with pytest.raises(ValueError, match="XLA has no strings.*jit_compile=True with stop strings, 'God'"):
        TextGeneration(decoder, words, config, jit_compile=True)


def numbers_of(signature):
    return {n: tf.constant([x], signature.inputs[n].dtype) for n, x in signature.defaults.items()}


def check_generate(method, options, words, decoder, signature, numbers):
    texts = ["In the", "God", "earth. "]
    changes = {"max_new_tokens": 3, "repetition_penalty": 1.4, "min_new_tokens": 2}
    changes |= {
        "sample": {"temperature": 0.7, "top_k": 0, "seed": 3},
        "beam": {"length_penalty": 1.0},
        "diverse_beam": {"length_penalty": 2.0},
        "contrastive": {"penalty_alpha": 0.2},
    }.get(method, {})
    for own in ({}, changes):
        given = {name: tf.constant([value], numbers[name].dtype) for name, value in own.items()}
        found = signature(text=tf.constant(texts), **(numbers | given))
        found = {name: value.numpy() for name, value in found.items()}
        expected = tfmodels.generate(
            decoder,
            texts,
            words,
            **({"method": method, "max_new_tokens": 5, "return_scores": True} | options | own),
        )
        if "num_return_sequences" not in options:
            found = {n: x[:, 0] if n != "truncated" else x for n, x in found.items()}
        assert np.vectorize(bytes.decode)(found["text"]).tolist() == expected.text
        np.testing.assert_array_equal(found["token_ids"], expected.token_ids)
        np.testing.assert_array_equal(found["lengths"], expected.lengths)
        np.testing.assert_array_equal(found["end_reason"].astype(str), expected.end_reason)
        np.testing.assert_allclose(found["log_probabilities"], expected.log_probabilities, atol=1e-4)
        np.testing.assert_allclose(found["score"], expected.log_probabilities.sum(-1), atol=1e-3)


def test_each_row_by_its_own_numbers(words, decoder, exports):
    """A batch of requests of different clients is each request alone."""
    card, signatures, *_ = exports["sample"]
    own = {"temperature": [0.5, 1.0, 2.0], "top_k": [0, 2, 40], "top_p": [1.0, 0.4, 0.9]}
    own |= {"seed": [1, 2, 3], "max_new_tokens": [1, 4, 3], "repetition_penalty": [1.0, 3.0, 0.5]}
    own |= {"min_p": [0.0, 0.1, 0.0], "typical_p": [0.9, 1.0, 0.7]}
    texts = ["In the", "God", ""]
    types = defaults(card)
    numbers = defaults(card, 3) | {n: tf.constant(v, types[n].dtype) for n, v in own.items()}
    found = signatures["generate"](text=texts, **numbers)
    for i, text in enumerate(texts):
        options = {name: values[i] for name, values in own.items()}
        expected = tfmodels.generate(
            decoder, text, words, method="sample", num_return_sequences=2, **options
        ).text[0]
        assert [each.decode() for each in found["text"][i].numpy()] == expected


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_rows_are_as_alone(batch, exports):
    """Empty strings, invalid UTF-8, texts that are cut, mixed lengths."""
    _, signatures, *_ = exports["beam"]
    serve = signatures["serving_default"]
    alone = [serve(text=tf.constant([text]))["text"].numpy()[0].tolist() for text in ODD]
    texts = [ODD[i * 5 % 6] for i in range(batch)]
    answers = serve(text=tf.constant(texts))["text"].numpy().tolist()
    assert answers == [alone[ODD.index(text)] for text in texts]


def test_a_megabyte_is_cut_and_said_so(exports):
    card, signatures, *_ = exports["greedy"]
    texts = ["God " * 250_000, "In the"]
    found = signatures["generate"](text=texts, **defaults(card))
    assert found["truncated"].numpy().tolist() == [True, False]
    alone = signatures["serving_default"](text=tf.constant(["In the"]))["text"].numpy()
    assert found["text"].numpy()[1] == alone
    assert signatures["score"](text=tf.constant(texts))["truncated"].numpy().tolist() == [True, False]


@pytest.mark.parametrize(
    "method, name, value, message",
    [
        ("greedy", "max_new_tokens", 0, "max_new_tokens must be from 1 to 24"),
        ("greedy", "max_new_tokens", 2**31 - 1, "max_new_tokens must be from 1 to 24"),
        ("greedy", "repetition_penalty", 0.0, "repetition_penalty must be above 0"),
        ("greedy", "presence_penalty", float("nan"), "presence_penalty must be finite"),
        ("sample", "temperature", -1.0, "temperature must be above 0"),
        ("sample", "temperature", float("inf"), "temperature must be above 0"),
        ("sample", "top_p", 1.5, "top_p must be above 0 and at most 1"),
        ("sample", "seed", -1, "seed must be from 0"),
        ("beam", "length_penalty", float("inf"), "length_penalty must be finite"),
    ],
)
def test_numbers_out_of_range(exports, method, name, value, message):
    card, signatures, *_ = exports[method]
    numbers = defaults(card)
    wrong = numbers | {name: tf.constant([value], numbers[name].dtype)}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["generate"](text=["In the"], **wrong)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one number, or one a text"):
        signatures["generate"](text=["a"], **(numbers | {name: tf.repeat(numbers[name], 2)}))
    signatures["generate"](text=["In the"], **numbers)  # it goes on


def test_score_is_score(words, decoder, exports):
    texts = ["In the beginning", "God", "x y"]
    found = exports["greedy"][1]["score"](text=tf.constant(texts))
    expected = tfmodels.score(decoder, texts, words)
    np.testing.assert_allclose(found["score"], expected.log_likelihood, atol=1e-4)
    for i, ids in enumerate(expected.token_ids):
        assert found["token_ids"][i, : found["lengths"][i]].numpy().tolist() == ids.tolist()


def test_prefill_and_decode_write_what_generate_writes(words, decoder, exports):
    """A server's own loop, of two prompts of different lengths."""
    _, signatures, *_ = exports["greedy"]
    texts = ["In the beginning", "God"]
    ids = signatures["tokenize"](text=tf.constant(texts))
    lengths = ids["lengths"]
    mask = tf.sequence_mask(lengths, dtype=tf.int32)
    step = signatures["prefill"](token_ids=ids["token_ids"], padding_mask=mask, cache_length=tf.constant(20))
    written = []
    for i in range(5):
        token = tf.argmax(step["logits"], axis=-1, output_type=tf.int32)
        written.append(token)
        cache = {name: value for name, value in step.items() if name != "logits"}
        step = signatures["decode"](token_ids=token, index=lengths + i, **cache)
    found = signatures["detokenize"](token_ids=tf.stack(written, 1), lengths=tf.constant([5, 5]))
    options = {"max_new_tokens": 5, "stop": ()}
    expected = tfmodels.generate(decoder, texts, words, **options).text
    assert [text.decode() for text in found["text"].numpy()] == expected
    inputs = {"token_ids": ids["token_ids"], "padding_mask": mask}
    np.testing.assert_allclose(signatures["logits"](**inputs)["logits"], decoder(inputs), atol=1e-5)


def test_ids_out_of_range(exports):
    _, signatures, *_ = exports["greedy"]
    one = tf.constant([[1]])
    step = signatures["prefill"](token_ids=one, padding_mask=one, cache_length=tf.constant(3))
    caches = {name: value for name, value in step.items() if name != "logits"}
    for wrong, name in (
        ({"token_ids": one[:, :0], "padding_mask": one[:, :0]}, "logits"),
        ({"token_ids": tf.ones((1, 25), tf.int32), "padding_mask": tf.ones((1, 25), tf.int32)}, "logits"),
        ({"token_ids": tf.repeat(one, 2, axis=0), "padding_mask": one}, "logits"),
        ({"token_ids": tf.repeat(one, 2, axis=0), "lengths": tf.constant([1])}, "detokenize"),
        ({"token_ids": tf.constant([1, 1]), "index": tf.constant([1]), **caches}, "decode"),
        ({"token_ids": tf.constant([1, 1]), "index": tf.constant([1, 1]), **caches}, "decode"),
        ({"token_ids": one * 999, "padding_mask": one}, "logits"),
        ({"token_ids": one, "padding_mask": tf.constant([[1, 1]])}, "logits"),
        ({"token_ids": one, "padding_mask": one, "cache_length": tf.constant(99)}, "prefill"),
        ({"token_ids": one, "padding_mask": one * 0, "cache_length": tf.constant(3)}, "prefill"),
        ({"token_ids": one, "lengths": tf.constant([2])}, "detokenize"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must"):
            signatures[name](**wrong)


def test_warm_up_requests_are_answered(exports):
    pytest.importorskip("tensorflow_serving")
    from tfmodels.serving.warmup import read_requests

    card, signatures, _, folder = exports["greedy"]
    requests = read_requests(folder)
    assert {name for name, _ in requests} == set(card["signatures"])
    assert len(requests) == 2 * len(card["signatures"])
    for name, inputs in requests:
        assert signatures[name](**inputs)


def test_card(words, exports):
    card = exports["beam"][0]
    assert card["model"] == "GPT2" and card["config"]["hidden_dim"] == 12
    assert card["generation"]["num_beams"] == 3 and card["max_length"] == 24
    assert card["versions"]["tfmodels"] == tfmodels.__version__
    assert card["signatures"]["generate"]["inputs"]["length_penalty"]["default"] == 0.5
    for name, signature in card["signatures"].items():
        outputs = {n for n in signature["outputs"] if not n.startswith("cache_")}
        assert all(signature["outputs"][n]["about"] for n in outputs), name
