"""Five steps of training in one process: its weights and metrics go to a file, for tests to compare.

    python -m tests.training.equality OUT STRATEGY[,STRATEGY] DEVICES CASE[,CASE...]

A case is OPTIMIZER-ROWS-MICRO_BATCHES, such as adamw-packed-2, or with -DTYPE; the optimizer "keras" is SGD
with a loss of Keras, which weighs replicas and not tokens, so its last batch is left out. A process of its
own each time, since a process makes its devices once and cannot go on after a failed step of several workers.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tfmodels.models import gpt2
from tfmodels.training import make_strategy

# Four batches of 12 and one of 7: some replicas and parts have fewer rows, some none.
ROWS, BATCH, LENGTH, WORDS = 55, 12, 7, 11


def dataset(kind):
    """Rows of very different numbers of tokens, padded, or with up to three sequences packed."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, WORDS, (ROWS, LENGTH)).astype("int32")
    real = (np.arange(LENGTH) < rng.integers(1, LENGTH + 1, (ROWS, 1))).astype("int32")
    mask = real
    if kind == "packed":
        mask = real * (1 + np.cumsum(rng.random((ROWS, LENGTH)) < 0.2, axis=1).astype("int32"))
    x = {"token_ids": ids, "padding_mask": mask}
    weights = real * rng.choice([0.0, 0.5, 1.0], real.shape, p=[0.2, 0.2, 0.6])
    data = (x, np.roll(ids, -1, 1), weights.astype("float32"))
    return tf.data.Dataset.from_tensor_slices(data).batch(BATCH)


def make_optimizer(name):
    return {
        "keras": lambda: keras.optimizers.SGD(0.5),
        "sgd": lambda: keras.optimizers.SGD(0.5, global_clipnorm=0.6),
        # A large epsilon: gradients that are 0 but for rounding would else be steps of full size.
        "adamw": lambda: keras.optimizers.AdamW(0.02, weight_decay=0.1, epsilon=1e-3, use_ema=True,
                                                 ema_momentum=0.5, ema_overwrite_frequency=2),
    }[name]()  # fmt: skip


def train(strategy, optimizer, kind, micro_batches, dtype=None):
    """Weights after five steps, and metrics of training and validation."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = gpt2(
            "tiny",
            dtype=dtype,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=12,
            vocabulary_size=WORDS,
            max_sequence_length=LENGTH,
            initializer_range=0.3,
            dropout=0.0,
            attention_dropout=0.0,
        )
        own = {}
        if optimizer == "keras":
            own = {
                "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                "metrics": ["accuracy"],
            }
        model.compile(make_optimizer(optimizer), micro_batches=micro_batches, **own)
    data = dataset(kind)
    if own:
        data = data.take(ROWS // BATCH)
    history = model.fit(data, validation_data=data, shuffle=False, verbose=0).history
    return {"weights": np.concatenate([w.ravel() for w in model.get_weights()])} | history


def main(out, strategies, devices, cases):
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * int(devices)
    tf.config.set_logical_device_configuration(cpu, devices)
    results = {}
    for name in strategies.split(","):
        strategy = make_strategy(name, timeout_seconds=120)
        for case in cases.split(","):
            optimizer, kind, micro_batches, *dtype = case.split("-")
            for key, value in train(strategy, optimizer, kind, int(micro_batches), *dtype).items():
                results[f"{name}/{'-'.join([optimizer, kind, *dtype])}/{micro_batches}/{key}"] = value
    np.savez(out, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
