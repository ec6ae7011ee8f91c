"""Weak scaling on this machine: tokens a second of 1 and of several workers, each on a core of its own.

    python examples/benchmarks/workers.py [--workers 2] [--rounds 3] [--steps 3] [--micro_batches 4]

Each worker trains GPT-2 (6 layers, 6 heads, 384 wide, 50257 words) on 8 x 256 tokens a step, so that two
have twice the work of one. A round is an epoch. Prints their median after one of warm-up, and the
efficiency: the tokens a second of several over those of one and their number. As many processes that know
nothing of each other show what the machine itself loses when all its cores are busy.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time

ROWS, LENGTH, WORDS = 8, 256, 50257


def train(index, workers, apart, rounds, steps, micro_batches):
    """A worker, or with `apart` one of several trainings; prints the seconds of each round."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index]})  # before TensorFlow counts its threads
    import keras
    import numpy as np
    import tensorflow as tf

    from tfmodels.models import gpt2
    from tfmodels.training import make_strategy

    workers = 1 if apart else workers
    strategy = make_strategy("multi_worker" if workers > 1 else "none")
    with strategy.scope():
        model = gpt2(
            "small",
            num_layers=6,
            num_heads=6,
            hidden_dim=384,
            intermediate_dim=1536,
            dropout=0.0,
            attention_dropout=0.0,
        )
        model.compile(keras.optimizers.AdamW(1e-4), micro_batches=micro_batches)
    shape = (steps * workers * ROWS, LENGTH + 1)
    ids = np.random.default_rng(0).integers(0, WORDS, shape).astype("int32")
    data = tf.data.Dataset.from_tensor_slices(({"token_ids": ids[:, :-1]}, ids[:, 1:])).batch(ROWS * workers)

    class Clock(keras.callbacks.Callback):
        """Of the steps alone."""

        def on_train_batch_begin(self, batch, logs=None):
            self.start = self.start if batch else time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            print(time.perf_counter() - self.start, flush=True)

    model.fit(data, epochs=rounds + 1, verbose=0, callbacks=[Clock()])


def tokens_per_second(workers, options, apart=False):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(workers)]
    addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for i in range(workers):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
        sizes = [i, workers, apart, options.rounds, options.steps, options.micro_batches]
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, "--point", json.dumps(sizes)],
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_CONFIG": json.dumps(cluster)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"A worker failed: {[process.returncode for process in processes]}.")
    seconds = statistics.mean(
        statistics.median([float(line) for line in output.split()][1:]) for output in outputs
    )
    return workers * options.steps * ROWS * LENGTH / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--micro_batches", type=int, default=4)
    parser.add_argument("--point", help=argparse.SUPPRESS)  # the sizes of a worker, as JSON
    options = parser.parse_args()
    if options.point:
        train(*json.loads(options.point))
        return
    cores = len(os.sched_getaffinity(0))
    if not 1 < options.workers <= cores:
        parser.error(f"--workers must be 2 to {cores}, a core each. Received: {options.workers}.")
    print(f"{platform.machine()}, {cores} cores, {time.strftime('%Y-%m-%d')}")
    one = tokens_per_second(1, options)
    print(f"1 worker: {one:.0f} tokens/s", flush=True)
    for name, apart in {"processes apart": True, "workers": False}.items():
        rate = tokens_per_second(options.workers, options, apart)
        share = rate / one / options.workers
        print(f"{options.workers} {name}: {rate:.0f} tokens/s, efficiency {share:.0%}", flush=True)


if __name__ == "__main__":
    main()
