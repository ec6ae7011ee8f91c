"""The LiteRT export, run by ai-edge-litert with nothing of TensorFlow, against `generate`."""

import json
import pathlib

import keras
import numpy as np
import pytest

import tfmodels
from tests.checks import randomise
from tfmodels.serving.check import check


class Device:
    """What a device's own program does: NumPy, the interpreter and the card."""

    def __init__(self, folder):
        litert = pytest.importorskip(
            "ai_edge_litert.interpreter", reason="ai-edge-litert, which runs the export, is not installed"
        )
        self.card = json.loads((folder / "assets.extra" / "tfmodels.json").read_text())
        interpreter = litert.Interpreter(str(folder / "model.tflite"))
        self.prefill, self.decode = map(interpreter.get_signature_runner, ("prefill", "decode"))

    def logits(self, prompt, choose):
        """Yields the logits before each token, which `choose` takes from them, until it is None."""
        ids_name, mask_name = self.card["signatures"]["prefill"]["inputs"]
        ids = np.array([prompt], np.int32)
        found = self.prefill(**{ids_name: ids, mask_name: np.ones_like(ids)})
        index = 1 if ids_name == "encoder_token_ids" else len(prompt)
        while True:
            logits = found.pop("logits")[0]
            yield logits
            token = choose(logits)
            if token is None:
                return
            step = {"token_ids": np.array([token], np.int32), "index": np.array([index], np.int32)}
            found = self.decode(**step, **found)
            index += 1


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_it_writes_what_generate_writes(kind, words, decoder, tmp_path):
    model = decoder
    if kind == "encoder_decoder":
        size = dict.fromkeys(("source_vocabulary_size", "target_vocabulary_size"), words.vocabulary_size)
        size |= dict(num_layers=1, num_heads=2, hidden_dim=12, intermediate_dim=8, max_sequence_length=24)
        model = tfmodels.models.transformer("tiny", **size)
        randomise(model, seed=2, scale=0.3)
    folder = pathlib.Path(
        tfmodels.export(model, words, tmp_path, format="litert", max_length=12, max_new_tokens=9)
    )
    assert {file.name for file in folder.iterdir()} == {"assets.extra", "model.tflite", "tokenizer"}
    assert words.load(str(folder / "tokenizer" / "tokenizer.json")).end_id == words.end_id
    for path in (folder, tmp_path):  # the command line names the folder, and what else to export
        with pytest.raises(ValueError, match=r"'.*1' is an export for LiteRT.*tf_saved_model"):
            check(path)
    device, name = Device(folder), next(iter(model.input_pairs))
    assert device.card["stop_ids"] == [words.end_id]
    for prompt in ([3, 40, 7, 260, 11], [5], list(range(100, 112))):
        options = {"max_new_tokens": 9, "stop": (words.end_id,)}
        expected = tfmodels.generate(model, {name: np.array([prompt])}, **options).token_ids[0]
        loop = device.logits(prompt, np.argmax)
        written = [int(next(loop).argmax()) for _ in range(len(expected))]
        assert written == expected.tolist()
        # Tokens that differ from one another, whatever the model would write.
        forced = [7, 40, 3, 200]
        rest = iter(forced)
        found = np.stack(list(device.logits(prompt, lambda _, rest=rest: next(rest, None))))
        inputs = {name: [prompt + forced]}
        if kind == "encoder_decoder":
            inputs = {name: [prompt], "decoder_token_ids": [[device.card["start_id"], *forced]]}
        whole = np.array(model(inputs))[0, -len(found) :]
        np.testing.assert_allclose(found, whole, atol=1e-4)  # float32, another library's kernels


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "mixed_float16"])
def test_of_another_type_it_is_written_in_float32(words, decoder, tmp_path, dtype):
    """As `tfmodels train` leaves models; LiteRT has no embeddings in bfloat16."""
    policy = keras.dtype_policies.serialize(keras.dtype_policies.get(dtype))
    model = type(decoder).from_config(decoder.get_config() | {"dtype": policy})
    model.set_weights(decoder.get_weights())
    exact = type(decoder).from_config(decoder.get_config())
    exact.set_weights([np.asarray(w, "float32") for w in model.get_weights()])
    options = {"format": "litert", "max_length": 12, "max_new_tokens": 9}
    device = Device(pathlib.Path(tfmodels.export(model, words, tmp_path, **options)))
    prompt, forced = [3, 40, 260], [7, 40, 3]
    rest = iter(forced)
    found = np.stack(list(device.logits(prompt, lambda _: next(rest, None))))
    assert found.dtype == "float32" and model.compute_dtype == dtype.removeprefix("mixed_")
    whole = np.array(exact({"token_ids": [prompt + forced]}))[0, -len(found) :]
    np.testing.assert_allclose(found, whole, atol=1e-4)  # float32, another library's kernels


def test_what_it_does_not_have(words, decoder, tmp_path):
    for options, received in (
        ({"method": "beam", "num_beams": 2}, "method, num_beams"),
        ({"quantize": "int8"}, "quantize"),
        ({"signatures": ["serving_default"]}, "signatures"),
    ):
        with pytest.raises(ValueError, match=f"has no loop of its own.* Received: {received}"):
            tfmodels.export(decoder, words, tmp_path, format="litert", **options)
    with pytest.raises(ValueError, match="one of tf_saved_model, litert. Received: 'onnx'"):
        tfmodels.export(decoder, words, tmp_path, format="onnx")
    assert not list(tmp_path.iterdir())
