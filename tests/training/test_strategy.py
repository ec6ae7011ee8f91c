"""MirroredStrategy gives the weights of one device. A process of its own: a strategy's devices are
made once in a process."""

import subprocess
import sys

import pytest

from tfmodels.training import make_strategy

_COMPARE = """
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import tfmodels
rng = np.random.default_rng(0)
ids = rng.integers(0, 13, (20, 6)).astype("int32")
# Rows of different lengths: replicas have different numbers of tokens.
weights = (np.arange(6) < rng.integers(1, 7, (20, 1))).astype("float32")
x = {"token_ids": ids, "padding_mask": weights.astype("int32")}
data = tf.data.Dataset.from_tensor_slices((x, np.roll(ids, -1, 1), weights)).batch(4)

def train(name):
    keras.utils.set_random_seed(0)
    strategy = tfmodels.training.make_strategy(name)
    assert strategy.num_replicas_in_sync == {"none": 1, "mirrored": 2}[name]
    with strategy.scope():
        model = tfmodels.models.gpt2("tiny", num_layers=2, num_heads=3, hidden_dim=12,
            intermediate_dim=11, vocabulary_size=13, max_sequence_length=9, dropout=0.0,
            attention_dropout=0.0, label_smoothing=0.1)
        model.compile(keras.optimizers.SGD(0.5))
    history = model.fit(data, epochs=1, shuffle=False, verbose=0).history  # 5 steps
    logs = model.evaluate(data, verbose=0, return_dict=True)
    return model.get_weights(), history["loss"], logs

(one, loss_1, logs_1), (two, loss_2, logs_2) = train("none"), train("mirrored")
for a, b in zip(one, two, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)  # float32, sums in another order
np.testing.assert_allclose(loss_1, loss_2, rtol=1e-5)
for name in logs_1:
    np.testing.assert_allclose(logs_1[name], logs_2[name], rtol=1e-4)
"""


@pytest.mark.slow
def test_mirrored_equals_one_device():
    subprocess.run([sys.executable, "-c", _COMPARE], check=True)


def test_names():
    assert make_strategy("auto").num_replicas_in_sync == 1  # no GPU here
    with pytest.raises(ValueError, match="auto, none, mirrored. Received: 'tpu'"):
        make_strategy("tpu")
