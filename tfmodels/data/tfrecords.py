"""Examples in TFRecord shards, any of them read by its number, for data that memory cannot hold.

Beside the shards stands an index of where each example is and how long, so that batches are planned, and
a run is resumed, without reading what no batch needs.
"""

import concurrent.futures
import dataclasses
import json
import os
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from tfmodels.data.examples import Examples, Field

# A record's frame: length and its checksum before, the data's checksum after.
_HEADER_BYTES, _FOOTER_BYTES = 12, 4
_EXAMPLES_A_READ = 64
_READERS = 4


def write_tfrecords(examples, prefix, shards=1):
    """Writes examples to shards, `prefix-00000-of-00004.tfrecord`, and their index, `prefix.index.npz`.

    The records are tf.train.Examples with a feature for each part ("x/token_ids", "y"), unpadded. Words
    that are hidden anew each epoch are written as epoch 0 has them.

    Args:
        examples: an `Examples`.
        prefix: str, folder and beginning of the files' names; files of that name are replaced.
        shards: int.

    Returns:
        List of str, the files.

    Raises:
        ValueError: shards is not between 1 and the number of examples.
    """
    if not 1 <= shards <= len(examples):
        raise ValueError(f"shards must be from 1 to {len(examples)}, the examples. Received: {shards}.")
    os.makedirs(os.path.dirname(os.path.abspath(prefix)), exist_ok=True)
    paths = [f"{prefix}-{i:05d}-of-{shards:05d}.tfrecord" for i in range(shards)]
    index_path = f"{prefix}.index.npz"
    if os.path.exists(index_path):
        os.remove(index_path)  # an old index must not stand beside new shards
    shard_of = np.arange(len(examples)) * shards // len(examples)
    offsets, sizes, sums = [], [], []
    for shard, path in enumerate(paths):
        offset = 0
        with tf.io.TFRecordWriter(f"{path}.part") as writer:
            for i in np.flatnonzero(shard_of == shard):
                record = _record(examples, int(i))
                writer.write(record)
                offsets.append(offset + _HEADER_BYTES)
                sizes.append(len(record))
                sums.append(zlib.crc32(record))
                offset += _HEADER_BYTES + len(record) + _FOOTER_BYTES
        os.replace(f"{path}.part", path)
    fields = {name: dataclasses.asdict(field) for name, field in examples.fields.items()}
    about = {"fields": fields, "labels": examples.labels, "left_out": examples.left_out, "shards": shards}
    with open(f"{index_path}.part", "wb") as file:
        np.savez(
            file,
            about=np.array(json.dumps(about)),
            shard=shard_of,
            offset=offsets,
            size=sizes,
            checksum=np.array(sums, np.uint32),
            **{f"lengths/{axis}": lengths for axis, lengths in examples.lengths.items()},
        )
    os.replace(f"{index_path}.part", index_path)
    return paths


def read_tfrecords(prefix):
    """Examples that `write_tfrecords` has written; they stay in their files until a batch needs them.

    Args:
        prefix: str, as it was given to `write_tfrecords`.

    Returns:
        `Examples`.

    Raises:
        FileNotFoundError: there is no index, or a shard is missing.
        ValueError: a file is damaged, now or when it is read.
    """
    path = f"{prefix}.index.npz"
    if not os.path.exists(path):
        raise FileNotFoundError(f"no index {path!r}; `write_tfrecords` makes it last of all")
    try:
        with np.load(path) as file:
            index = dict(file)
        about = json.loads(str(index["about"]))
    except (ValueError, KeyError, OSError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: the index is damaged: {error}.") from error
    return _RecordExamples(prefix, index, about)


class _RecordExamples(Examples):
    def __init__(self, prefix, index, about):
        fields = {name: Field(**field) for name, field in about["fields"].items()}
        fields = {name: dataclasses.replace(f, shape=tuple(f.shape)) for name, f in fields.items()}
        lengths = {k.removeprefix("lengths/"): v for k, v in index.items() if k.startswith("lengths/")}
        super().__init__(fields, {}, {}, lengths, left_out=about["left_out"])
        self.labels = about["labels"]
        self._index = index
        shards = about["shards"]
        self._paths = [f"{prefix}-{i:05d}-of-{shards:05d}.tfrecord" for i in range(shards)]
        for path in self._paths:
            if not os.path.exists(path):
                raise FileNotFoundError(f"no shard {path!r}")
        self._files = [open(path, "rb", buffering=0) for path in self._paths]  # noqa: SIM115
        self._pool = concurrent.futures.ThreadPoolExecutor(_READERS)
        self._spec = {name: _feature(field) for name, field in fields.items()}

    def fetch(self, numbers, epoch=0):
        numbers = np.asarray(numbers)
        parts = np.split(numbers, range(_EXAMPLES_A_READ, len(numbers), _EXAMPLES_A_READ))
        records = [record for part in self._pool.map(self._read, parts) for record in part]
        parsed = tf.io.parse_example(tf.constant(records, tf.string), self._spec)
        fetched = {}
        for name, field in self.fields.items():
            values = parsed[name].flat_values if field.axis else parsed[name]
            fetched[name] = values.numpy().astype(field.dtype)
        return fetched

    def _read(self, numbers):
        return [self._read_one(i) for i in numbers]

    def _read_one(self, i):
        shard, size = int(self._index["shard"][i]), int(self._index["size"][i])
        # pread keeps no position, so threads may share a file.
        record = os.pread(self._files[shard].fileno(), size, int(self._index["offset"][i]))
        if len(record) != size or zlib.crc32(record) != self._index["checksum"][i]:
            raise ValueError(f"{self._paths[shard]}: the record of example {i} is damaged. Write it anew.")
        return record


def _feature(field):
    dtype = tf.float32 if field.dtype == "float32" else tf.int64
    if field.axis is None:
        return tf.io.FixedLenFeature(field.shape, dtype)
    return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)


def _record(examples, i):
    features = {}
    for name, values in examples.fetch(np.array([i])).items():
        if examples.fields[name].dtype == "float32":
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=values.reshape(-1)))
        else:
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=values.reshape(-1)))
        features[name] = feature
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
