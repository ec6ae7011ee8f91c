"""`check_layer` and `check_model`: what every layer and every model must hold."""

import atexit
import functools
import json
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

from tests.reference.weights import randomise


def check_layer(layer, *inputs, **options):
    """A layer survives its config: same weights' names and shapes, same outputs; bfloat16 runs."""
    outputs = layer(*inputs, **options)
    copy = type(layer).from_config(layer.get_config())
    copy(*inputs, **options)
    assert [(v.path.split("/", 1)[1], v.shape) for v in copy.weights] == [
        (v.path.split("/", 1)[1], v.shape) for v in layer.weights
    ]
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(*inputs, **options), outputs)
    half = type(layer).from_config(layer.get_config() | {"dtype": "mixed_bfloat16"})
    half(*inputs, **options)
    half.set_weights(layer.get_weights())
    result = half(*inputs, **options)
    assert result.dtype == "bfloat16"
    # bfloat16 has 8 bits of mantissa; outputs here are of the order of 1.
    np.testing.assert_allclose(np.asarray(result, "float32"), outputs, atol=0.1)


def check_model(model, inputs, tmp_path, targets=None):
    """What every model must hold.

    Args:
        model: a float32 model, of any weights.
        inputs: dict of its inputs without padding; the last pair is the one that is written.
        tmp_path: a folder for files.
        targets: what it can learn by heart; None: the next token, of a model that generates.
    """
    randomise(model, seed=7, scale=0.2)
    check_padding(model, inputs)
    check_export(model, inputs, tmp_path)
    check_round_trips(model, inputs, tmp_path)
    if hasattr(model, "init_cache"):  # it keeps the protocol of generation
        check_causal(model, inputs)
        check_cache(model, inputs)
        written = np.asarray(inputs[list(model.input_pairs)[-1]])
        targets = np.roll(written, -1, axis=1) if targets is None else targets
    if targets is not None:
        check_overfits(model, inputs, targets)


def named_outputs(model, inputs):
    """The outputs as a dict of float32 arrays, one output under "logits"."""
    outputs = model(inputs)
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    return {name: np.asarray(x, "float32") for name, x in outputs.items()}


def check_padding(model, inputs):
    """Padding on either side, with any ids, changes no real token and no row's own output."""
    expected = named_outputs(model, inputs)
    written = list(model.input_pairs)[-1]
    masks = {ids_name: mask_name for ids_name, (mask_name, _) in model.input_pairs.items()}
    for left in (False, True):
        padded = {}
        for name, value in inputs.items():
            width = [(0, 0)] * (np.ndim(value) - 1) + [(2, 0) if left else (0, 2)]
            # What goes with the ids, such as segments, has small vocabularies.
            padded[name] = np.pad(value, width, constant_values=3 if name in masks else 1)
            if name in masks:
                padded[masks[name]] = np.pad(np.ones_like(value), width)
        for name, output in named_outputs(model, padded).items():
            if output.shape != expected[name].shape:  # an output a token
                output = output[:, 2:] if left else output[:, : np.shape(inputs[written])[1]]
            np.testing.assert_allclose(output, expected[name], atol=1e-5)  # float32, 2 layers


def check_causal(model, inputs):
    """A future token changes no logits before it, and changes its own."""
    written = list(model.input_pairs)[-1]
    ids = np.array(inputs[written])
    logits = np.asarray(model(inputs))
    ids[:, -1] = (ids[:, -1] + 1) % 5
    changed = np.asarray(model({**inputs, written: ids}))
    np.testing.assert_array_equal(changed[:, :-1], logits[:, :-1])
    assert np.abs(changed[:, -1] - logits[:, -1]).max() > 1e-3


def check_cache(model, inputs):
    """Token by token, in pieces, and rows at different positions: all equal the full pass."""
    written = list(model.input_pairs)[-1]
    ids = np.asarray(inputs[written])
    batch, length = ids.shape
    expected = np.asarray(model(inputs))
    cache = model.init_cache(inputs, length + 2)
    for i in range(length):
        logits, cache = model.decode_step(ids[:, i : i + 1], cache, i)
        np.testing.assert_allclose(logits[:, 0], expected[:, i], atol=1e-5)  # float32, 2 layers
    cache = model.init_cache(inputs, length)
    first, cache = model.decode_step(ids[:, :2], cache, 0)
    rest, _ = model.decode_step(ids[:, 2:], cache, np.full(batch, 2))
    np.testing.assert_allclose(np.concatenate([first, rest], 1), expected, atol=1e-5)
    # Row 0 one token behind the others: it writes its own position again.
    cache = model.init_cache(inputs, length)
    _, cache = model.decode_step(ids[:, :-1], cache, 0)
    index = np.full(batch, length - 1)
    index[0] -= 1
    token = ids[np.arange(batch), index][:, None]
    logits, _ = model.decode_step(token, cache, index)
    np.testing.assert_allclose(logits[:, 0], expected[np.arange(batch), index], atol=1e-5)


def check_export(model, inputs, tmp_path):
    """Keras's own export: int32 inputs of any size under their names, the same logits."""
    model.export(str(tmp_path / "keras_export"), verbose=False)
    signature = tf.saved_model.load(str(tmp_path / "keras_export")).signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    names = {name for ids, (mask, _) in model.input_pairs.items() for name in (ids, mask)}
    assert set(specs) == names | set(inputs)
    rank = np.ndim(next(iter(inputs.values())))
    assert all(spec.shape.as_list() == [None] * rank for spec in specs.values())
    assert all(spec.dtype == tf.int32 for spec in specs.values())
    complete = {name: tf.constant(x, tf.int32) for name, x in model.complete_inputs(inputs).items()}
    exported, expected = signature(**complete), named_outputs(model, inputs)
    assert len(exported) == len(expected)
    # Keras names a single output itself.
    exported = exported if len(exported) > 1 else {next(iter(expected)): next(iter(exported.values()))}
    for name, output in expected.items():
        np.testing.assert_allclose(exported[name], output, atol=1e-5)  # float32, 2 layers


_RELOAD = """
import json, sys
import numpy as np, keras
import tfmodels
for line in sys.stdin:
    path, inputs = json.loads(line)
    model = keras.saving.load_model(path)
    assert type(model).__module__.startswith("tfmodels.models."), type(model)
    outputs = model({name: np.array(value) for name, value in inputs.items()})
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    np.savez(path + ".npz", **{k: np.asarray(v, "float32") for k, v in outputs.items()})
    print("done", flush=True)
"""


@functools.cache
def _loading_process():
    """A process that has made no model: it loads files by name. One a test run, for its imports' sake."""
    process = subprocess.Popen(
        [sys.executable, "-c", _RELOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.kill)
    return process


def load_elsewhere(path, inputs):
    """The outputs of a `.keras` file, computed by a process that has made no model."""
    process = _loading_process()
    arguments = {name: np.asarray(x).tolist() for name, x in inputs.items()}
    process.stdin.write(json.dumps([path, arguments]) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if answer != "done\n":
        _loading_process.cache_clear()
        raise AssertionError(f"The process that loads {path} has failed: {answer!r}.")
    return np.load(path + ".npz")


def check_round_trips(model, inputs, tmp_path):
    """float32, bfloat16 and int8 models saved as .keras give the same logits in a fresh process."""
    half = type(model).from_config(model.get_config() | {"dtype": "mixed_bfloat16"})
    half.set_weights(model.get_weights())
    small = type(model).from_config(model.get_config())
    small.set_weights(model.get_weights())
    small.quantize("int8")
    rounded = named_outputs(small, inputs)
    for name, output in named_outputs(model, inputs).items():
        # int8 rounds each weight to 1/127 of its column's largest: small beside this spread.
        assert 0 < np.abs(rounded[name] - output).mean() < 0.2 * output.std()
    for name, each in (("float32", model), ("bfloat16", half), ("int8", small)):
        path = str(tmp_path / f"{name}.keras")
        each.save(path)
        loaded, outputs = load_elsewhere(path, inputs), named_outputs(each, inputs)
        assert set(loaded) == set(outputs)
        for name, output in outputs.items():
            np.testing.assert_allclose(loaded[name], output, atol=1e-6, err_msg=path)


def check_overfits(model, inputs, targets):
    """One batch is learnt by heart: the gradients reach all that they must."""
    copy = type(model).from_config(model.get_config())
    copy.compile(keras.optimizers.AdamW(1e-2))
    batch = len(next(iter(inputs.values())))
    first = copy.evaluate(inputs, targets, batch_size=batch, verbose=0, return_dict=True)["loss"]

    def learnt(logs):
        shares = [value for name, value in logs.items() if "accuracy" in name or "match" in name]
        return logs["loss"] < 0.1 * first and all(share == 1.0 for share in shares)

    def stop(epoch, logs):
        copy.stop_training = learnt(logs)

    callback = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    data = tf.data.Dataset.from_tensors((inputs, targets)).repeat()  # 10 steps an epoch: fewer starts
    options = dict(steps_per_epoch=10, epochs=30, verbose=0, callbacks=[callback])
    history = copy.fit(data, **options).history
    assert learnt({name: values[-1] for name, values in history.items()})
