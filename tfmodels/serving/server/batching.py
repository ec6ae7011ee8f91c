"""Requests of many clients to batches of one model."""

import collections
import queue
import threading
import time
from concurrent.futures import Future

import numpy as np
import tensorflow as tf

MOST_WAITING = 1000  # requests; more are refused, since memory has an end


class Overloaded(Exception):
    """Too many requests wait."""


class Batcher:
    """Runs signatures on one thread; requests that wait for the same signature go together.

    Only requests whose every input has the batch first, and otherwise the same shape, are joined. If a
    joined batch fails, each of its requests runs alone, so that no client gets another's error.

    Args:
        signatures: dict of name -> concrete function.
        max_batch_size: int, texts that run at once.
        wait_seconds: float, how long an early request waits for others; while a batch runs the next
            one gathers anyway.
    """

    def __init__(self, signatures, max_batch_size=32, wait_seconds=0.005):
        self._signatures = signatures
        self._max_batch_size, self._wait_seconds = max_batch_size, wait_seconds
        self._waiting = queue.Queue(MOST_WAITING)
        self._kept = collections.deque()  # taken from the queue, but not of the batch at hand
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, name, inputs):
        """A future of the outputs, dict of arrays, of a signature for a dict of tensors."""
        future = Future()
        try:
            self._waiting.put_nowait((name, inputs, future))
        except queue.Full:
            raise Overloaded(f"{MOST_WAITING} requests wait already") from None
        return future

    def close(self):
        self._waiting.put(None)
        self._thread.join()

    def _run(self):
        while True:
            first = self._kept.popleft() if self._kept else self._waiting.get()
            if first is None:
                return
            self._answer(self._gather(first))

    def _gather(self, first):
        """The first request and those that fit to it, of the ones that come in time."""
        batch, rows = [first], _rows(first)
        key, until = _key(first), time.monotonic() + self._wait_seconds
        passed = collections.deque()
        while key is not None and rows < self._max_batch_size:
            try:
                left = max(until - time.monotonic(), 0)
                found = self._kept.popleft() if self._kept else self._waiting.get(timeout=left)
            except queue.Empty:
                break
            if found is not None and _key(found) == key and rows + _rows(found) <= self._max_batch_size:
                batch.append(found)
                rows += _rows(found)
            else:
                passed.append(found)
                if found is None or len(passed) > MOST_WAITING:
                    break
        self._kept.extendleft(reversed(passed))
        return batch

    def _answer(self, batch):
        batch = [request for request in batch if request[2].set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            outputs = self._call(batch[0][0], [inputs for _, inputs, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][2].set_exception(error)
                return
            for name, inputs, future in batch:
                try:
                    future.set_result(self._call(name, [inputs])[0])
                except Exception as own:
                    future.set_exception(own)
            return
        for (_, _, future), result in zip(batch, outputs, strict=True):
            future.set_result(result)

    def _call(self, name, each):
        """The outputs of each of several requests."""
        if len(each) == 1:
            joined = each[0]
        else:
            joined = {key: tf.concat([inputs[key] for inputs in each], 0) for key in each[0]}
        request = name, joined, None
        rows = _rows(request) if _key(request) else 0
        if rows:
            joined = _rounded(joined, rows)
        outputs = {key: value.numpy() for key, value in self._signatures[name](**joined).items()}
        if rows:
            outputs = {key: value[:rows] for key, value in outputs.items()}
        if len(each) == 1:
            return [outputs]
        ends = np.cumsum([len(next(iter(inputs.values()))) for inputs in each])[:-1]
        parts = {key: np.split(value, ends) for key, value in outputs.items()}
        return [{key: parts[key][i] for key in parts} for i in range(len(each))]


def _rounded(inputs, rows):
    """Inputs with their last row again up to a power of two.

    Kernels are made ready for each number of rows, and kept: with all of them a server takes the longer
    the more memory.
    """
    more = 2 ** (rows - 1).bit_length() - rows
    return (
        {key: tf.concat([x, tf.repeat(x[-1:], more, axis=0)], 0) for key, x in inputs.items()}
        if more
        else inputs
    )


def _rows(request):
    shapes = [tensor.shape for tensor in request[1].values()]
    return int(shapes[0][0]) if shapes and shapes[0].rank else 1


def _key(request):
    """What two requests must share to be joined; None: this one goes alone."""
    name, inputs, _ = request
    shapes = [tuple(tensor.shape) for tensor in inputs.values()]
    if not shapes or any(not shape or shape[0] != shapes[0][0] for shape in shapes):
        return None
    return name, tuple(shape[1:] for shape in shapes)
