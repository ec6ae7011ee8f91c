"""Examples to batches for `model.fit`, with a position that a killed run can come back to."""

import itertools
import zlib
from numbers import Integral

import numpy as np
import tensorflow as tf

from tfmodels.data import planning
from tfmodels.data.assembly import assemble, nested
from tfmodels.data.elements import examples_from_elements
from tfmodels.data.examples import Examples


class Reader:
    """Shuffles, buckets or packs examples, and knows at any batch how to go on from there.

    Which examples are in which batch follows from their lengths, the seed and the epoch alone. So a
    restart at any batch reads nothing of what came before.

    Each pass over `dataset()` is the next epoch, with its own order and its own masks. For `fit` of several
    epochs take `repeat=True` and `steps_per_epoch`: Keras holds all epochs to the length of the first,
    which by a token budget is not theirs, and after a restart is the rest of one.

    Args:
        examples: an `Examples`, or an iterable of (x, y, sample_weight) elements, read into memory.
        batch_size: int, rows a batch; or
        tokens_per_batch: int, the budget of positions in the longest part of x and y, padding included:
            short examples come in larger batches. One of the two is needed.
        shuffle: bool, whether each epoch has a new order.
        seed: int, of the order.
        repeat: bool, whether a pass goes on for ever, through all epochs (for `steps_per_epoch`).
        pack: int, the length of rows that are filled with several short examples, or a dict from padding
            mask to length; None: one example a row.
        shard: (index, count), for worker `index` of `count`: it reads its rows of each batch and no
            others. All workers have equally many batches; one without a row has a row of padding.

    Raises:
        ValueError: both or neither of batch_size and tokens_per_batch are given, there are no examples, or
            one is too long.

    Example:
        >>> reader = Reader(examples, tokens_per_batch=4096, shuffle=True, repeat=True)
        >>> model.fit(reader.dataset(), steps_per_epoch=reader.num_batches(), epochs=3)
        >>> position = reader.state(consumed=3 * reader.num_batches())
    """

    def __init__(
        self,
        examples,
        batch_size=None,
        tokens_per_batch=None,
        shuffle=False,
        seed=0,
        repeat=False,
        pack=None,
        shard=(0, 1),
    ):
        if (batch_size is None) == (tokens_per_batch is None):
            raise ValueError(
                "Give one of batch_size and tokens_per_batch. "
                f"Received: batch_size={batch_size}, tokens_per_batch={tokens_per_batch}."
            )
        size = batch_size if tokens_per_batch is None else tokens_per_batch
        if not _is_size(size):
            raise ValueError(
                f"A batch must have a whole number of rows or tokens, from 1 on. Received: {size!r}."
            )
        if not 0 <= shard[0] < shard[1]:
            raise ValueError(f"shard must be (index, count) with 0 <= index < count. Received: {shard}.")
        if not isinstance(examples, Examples):
            examples = examples_from_elements(examples)
        if not len(examples):
            left_out = f" {examples.left_out} were too long." if examples.left_out else ""
            raise ValueError(f"There must be at least one example. Received: none.{left_out}")
        self.examples = examples
        self._lengths = np.stack([examples.lengths[axis] for axis in examples.axes], axis=1)  # (n, a)
        self._widths = None if pack is None else _widths(examples, pack)
        self._batch_size, self._budget = batch_size, tokens_per_batch
        self._check_lengths()
        self._shuffle, self._seed, self._repeat, self._shard = bool(shuffle), seed, repeat, tuple(shard)
        self._sizes = {}  # batches of the epochs that were planned to their end
        options = (self._batch_size, self._budget, self._widths, self._shuffle, seed)
        self._fingerprint = zlib.crc32(
            repr(options).encode(), zlib.crc32(np.ascontiguousarray(self._lengths))
        )
        self._origin = self._next = (0, 0)

    def _check_lengths(self):
        longest = self._lengths.max(axis=1)
        if self._widths is not None:
            over = (self._lengths > list(self._widths.values())).any(axis=1)
            rule = f"An example must fit into a row of pack={self._widths}"
            if self._batch_size is None:
                width = max(self._widths.values())
                self._batch_size = self._budget // width
                if not self._batch_size:
                    raise ValueError(
                        "tokens_per_batch must be at least a row. Received: "
                        f"tokens_per_batch={self._budget}, pack={width}."
                    )
        elif self._budget is not None:
            over = longest > self._budget
            rule = f"tokens_per_batch={self._budget} must be at least the longest example"
        else:
            return
        if over.any():
            i = int(over.argmax())
            raise ValueError(
                f"{rule}. Received: {longest[i]} tokens in number {i}. Cut or leave out long ones."
            )

    def dataset(self):
        """A tf.data.Dataset of batches, (x, y, sample_weight), prefetched.

        Each part is (batch, length), padded; parts with one value an example are (batch, ...). Each
        iterator that is made of it is a pass: the next epoch, or from where `restore` has put it.
        """
        dataset = tf.data.Dataset.from_generator(self._batches, output_signature=self._signature())
        if self._repeat:
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        options = tf.data.Options()
        options.deterministic = True
        if self._shard[1] > 1:  # each worker has its own rows already
            options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        dataset = dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
        dataset.reader = self  # by which a resumed `fit` goes on at once; other datasets are read again
        return dataset

    def num_batches(self, epoch=0):
        """Batches of an epoch; by a token budget or packing, shuffled epochs may differ a little."""
        if epoch not in self._sizes:
            if self._widths is None and self._budget is None:
                self._sizes[epoch] = -(-len(self.examples) // self._batch_size)
            else:
                self._sizes[epoch] = sum(1 for _ in self._plan(epoch))
        return self._sizes[epoch]

    def state(self, consumed=0):
        """The position after a number of batches, as a dict for JSON.

        Args:
            consumed: int, batches that training has used up since the reader was made or restored. The
                caller counts, since what is prefetched is read but not used.

        Returns:
            Dict of int: `epoch`, `batch` and `fingerprint`, by which `restore` knows other data.
        """
        epoch, batch = self._origin
        batch += consumed
        while batch >= self.num_batches(epoch):
            batch -= self.num_batches(epoch)
            epoch += 1
        return {"epoch": epoch, "batch": batch, "fingerprint": self._fingerprint}

    def restore(self, state):
        """Lets the next pass begin at a position that `state` gave, perhaps in another process.

        Raises:
            ValueError: the position belongs to other examples or other options.
        """
        if state["fingerprint"] != self._fingerprint:
            raise ValueError(
                "The position belongs to other data: number or lengths of examples, batch size, packing, "
                f"shuffling or seed differ. Received: fingerprint {state['fingerprint']}, here "
                f"{self._fingerprint}. Restart with the same data and options, or begin anew."
            )
        self._origin = self._next = (int(state["epoch"]), int(state["batch"]))

    def _plan(self, epoch):
        numbers = planning.order(len(self.examples), self._shuffle, self._seed, epoch)
        # A stream of its own, so that mixing batches takes nothing from the order's.
        generator = np.random.default_rng([self._seed, epoch, 1]) if self._shuffle else None
        if self._widths is not None:
            capacity = np.array(list(self._widths.values()))
            return planning.packed(numbers, self._lengths, capacity, self._batch_size, generator)
        if self._budget is not None:
            return planning.by_tokens(numbers, self._lengths, self._budget, generator)
        return planning.by_size(numbers, self._batch_size)

    def _batches(self):
        """The batches of a pass."""
        epoch, batch = self._next
        self._next = (epoch + 1, 0)
        while True:
            for numbers, row_of in itertools.islice(self._plan(epoch), batch, None):
                yield self._read(numbers, row_of, epoch)
            if not self._repeat:
                return
            epoch, batch = epoch + 1, 0

    def _read(self, numbers, row_of, epoch):
        index, count = self._shard
        rows = int(row_of[-1]) + 1
        if count > 1:
            mine = row_of % count == index
            numbers, row_of = numbers[mine], row_of[mine] // count
            rows = max(1, len(range(index, rows, count)))
        return nested(assemble(self.examples, numbers, row_of, rows, self._widths, epoch))

    def _signature(self):
        def spec(axis, dtype, shape=()):
            tokens = () if axis is None else (self._widths[axis] if self._widths else None,)
            return tf.TensorSpec((None, *tokens, *shape), dtype)

        fields = self.examples.fields
        signature = {f"x/{axis}": spec(axis, tf.int32) for axis in self.examples.axes}
        signature |= {name: spec(f.axis, f.dtype, f.shape) for name, f in fields.items()}
        for name in [name for name in fields if name.split("/")[0] == "y"]:
            signature[name.replace("y", "sample_weight", 1)] = spec(fields[name].axis, tf.float32)
        return nested(signature)


def batches(
    examples,
    batch_size=None,
    tokens_per_batch=None,
    shuffle=False,
    seed=0,
    repeat=False,
    pack=None,
    shard=(0, 1),
):
    """Batches of examples for `model.fit`: `Reader(...).dataset()`, for runs that need no position.

    Args:
        examples, batch_size, tokens_per_batch, shuffle, seed, repeat, pack, shard: as `Reader` has them.

    Returns:
        tf.data.Dataset of (x, y, sample_weight).

    Raises:
        ValueError: as `Reader`.
    """
    return Reader(examples, batch_size, tokens_per_batch, shuffle, seed, repeat, pack, shard).dataset()


def _is_size(value):
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def _widths(examples, pack):
    """The length of packed rows by axis."""
    dense = [name for name, field in examples.fields.items() if field.axis is None]
    if dense:
        raise ValueError(
            f"Only examples whose every part runs along tokens can share a row. Received: {dense} with one "
            "value an example. Leave out pack, and batch by tokens_per_batch."
        )
    widths = dict(pack) if isinstance(pack, dict) else dict.fromkeys(examples.axes, pack)
    if set(widths) != set(examples.axes) or not all(map(_is_size, widths.values())):
        raise ValueError(
            f"pack must be a length of at least 1 for each of {examples.axes}. Received: {pack}."
        )
    return {axis: int(widths[axis]) for axis in examples.axes}
