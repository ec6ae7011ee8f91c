"""Files, tables and shards, and what is wrong with them."""

import gzip
import lzma
import math

import numpy as np
import pytest

from tfmodels.data import (
    Reader,
    classification,
    masked_language_modelling,
    read_columns,
    read_jsonl,
    read_pairs,
    read_texts,
    read_tfrecords,
    read_tsv,
    sequence_to_sequence,
    write_tfrecords,
)
from tfmodels.data.elements import examples_from_elements


def write(path, data):
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wb") as file:
        file.write(data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_files(tmp_path, suffix):
    texts = write(tmp_path / f"a.txt{suffix}", "\ufeffé\r\n\r\nb".encode())
    assert read_texts(texts) == ["é", "", "b"]
    table = write(tmp_path / f"a.tsv{suffix}", b"1\ta\n2\tb\n")
    numbers, letters = read_tsv(table, 2).columns()
    assert (numbers, letters) == (["1", "2"], ["a", "b"]) and letters.where(1).endswith(f"a.tsv{suffix}:2")
    named = write(tmp_path / f"b.tsv{suffix}", b"x\ty\tz\n1\t2\t3\n")
    rows = read_tsv(named, ["z", "x"])
    assert rows == [("3", "1")] and rows.where(0).endswith(":2")
    assert read_tsv(named, "y") == ["2"]
    lines = write(tmp_path / f"a.jsonl{suffix}", b'{"x": 1, "y": "a"}\n\n{"x": 2, "y": "\\u00e9"}\n')
    assert read_jsonl(lines) == [{"x": 1, "y": "a"}, {"x": 2, "y": "é"}]
    assert read_jsonl(lines, ["y", "x"]) == [("a", 1), ("é", 2)]
    ys = read_jsonl(lines, "y")
    assert ys == ["a", "é"] and ys.where(1).endswith(f"a.jsonl{suffix}:3")


@pytest.mark.parametrize(
    "read, data, message",
    [
        (read_texts, b"a\n\xf1\n", r"file:2: .*UTF-8.*0xf1 at offset 0"),
        (read_texts, b"a\nb\0\n", r"file:2: .*byte 0x0 at offset 1"),
        (read_texts, "a".encode("utf-16"), r"file:1: .*0xff at offset 0"),
        (read_texts, b" \n\n", "an empty file"),
        (read_texts, b"", "an empty file"),
        (read_pairs, b"a\tb\na\tb\tc\n", "file:2: .*source and target.*Received: 3 in 'a"),
        (lambda path: read_tsv(path, 3), b"a\tb\tc\na\n", "file:2: .*3 columns.*Received: 1 in 'a'"),
        (lambda path: read_tsv(path, ["x", "q"]), b"x\ty\n1\t2\n", "file:1: no column 'q'. Received: x, y"),
        (lambda path: read_tsv(path, ["x"]), b"x\ty\n1\n", "file:2: .*2 columns.*Received: 1"),
        (lambda path: read_tsv(path, ["x"]), b"x\ty\n", "rows under its header"),
        (read_jsonl, b'{"x": 1}\n{"x": \n', "file:2: not JSON"),
        (read_jsonl, b'{"x": 1}\n' + b"[" * 100_000, "file:2: not JSON: .*recursion"),
        (read_jsonl, b"[1]\n", "file:1: a line must be an object"),
        (lambda path: read_jsonl(path, ["x"]), b'{"x": 1}\n{"y": 1}\n', "file:2: no field 'x'. Received: y"),
        (lambda path: read_texts(path, errors="x"), b"a", "errors must be"),
    ],
)
def test_bad_files(tmp_path, read, data, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "file", data))


def test_bad_bytes_can_be_replaced(tmp_path):
    path = write(tmp_path / "file", b"a\xffb\0c\n\xed\xa0\x80\n")
    assert read_texts(path, errors="replace") == ["a\ufffdb\ufffdc", "\ufffd\ufffd\ufffd"]
    good = write(tmp_path / "good", "\ufffd is a character\n".encode())
    assert read_texts(good) == ["\ufffd is a character"]


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_damaged_archives(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", b"some text\n" * 99)
    whole = path.read_bytes()
    for data in (whole[:-9], b"not an archive", whole[:20] + b"\xff" * 9 + whole[29:]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="damaged"):
            read_texts(path)


def test_errors_of_the_tasks_name_file_and_line(tmp_path, wordpiece):
    path = write(tmp_path / "a.tsv", b"x\ta text\ny\t\nz\tanother\n")
    labels, texts = read_tsv(path, 2).columns()
    with pytest.raises(ValueError, match=r"a.tsv:2: a text must not be empty"):
        classification(texts, labels, wordpiece)
    texts[1] = "filled"
    with pytest.raises(ValueError, match=r"a.tsv:3: unknown label. Received: 'z'. Known: x, y"):
        classification(texts, labels, wordpiece, label_names=["x", "y"])
    with pytest.raises(ValueError, match=r"a.tsv:2: a text must not be empty"):
        sequence_to_sequence(read_pairs(path), wordpiece)


class Frame:
    """What pandas.DataFrame shows of itself here."""

    def __init__(self, **columns):
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name):
        return np.array(self._columns[name], dtype=object)


class HubDataset:
    """What datasets.Dataset shows of itself here."""

    def __init__(self, **columns):
        self._columns = columns
        self.column_names = list(columns)

    def __len__(self):
        return len(self._columns["text"])

    def __getitem__(self, name):
        return iter(self._columns[name])


TABLE = {"text": ["a", "b"], "label": [1, 0], "other": [None, math.nan]}


@pytest.mark.parametrize(
    "table",
    [TABLE, Frame(**TABLE), HubDataset(**TABLE), [{"text": "a", "label": 1}, {"text": "b", "label": 0}]],
    ids=["dict", "pandas", "datasets", "rows"],
)
def test_tables(table):
    assert read_columns(table, "text") == ["a", "b"]
    rows = read_columns(table, ["label", "text"])
    assert rows == [(1, "a"), (0, "b")]
    labels, texts = rows.columns()
    assert (labels, texts, texts.where(1)) == ([1, 0], ["a", "b"], "row 1")
    with pytest.raises(ValueError, match="no column 'txt'.*Received: text, label"):
        read_columns(table, "txt")


@pytest.mark.parametrize(
    "table, columns, message",
    [
        (TABLE, "other", "row 0: .*None in 'other'"),
        ({"a": [1.0, math.nan]}, "a", "row 1: .*nan in 'a'"),
        ({"a": [1], "b": [1, 2]}, ["a", "b"], "equally long"),
        ({"a": []}, "a", "must have rows"),
    ],
)
def test_bad_tables(table, columns, message):
    with pytest.raises(ValueError, match=message):
        read_columns(table, columns)


@pytest.fixture
def examples(bible, tokenizer):
    return sequence_to_sequence(bible[:150], tokenizer)


def as_lists(reader):
    return [
        [{k: v.tolist() for k, v in x.items()}, y.tolist(), w.tolist()]
        for x, y, w in reader.dataset().as_numpy_iterator()
    ]


@pytest.mark.parametrize(
    "options", [{"batch_size": 70}, {"tokens_per_batch": 600}, {"batch_size": 3, "pack": 64}]
)
def test_shards_hold_the_examples(tmp_path, examples, options):
    files = write_tfrecords(examples, tmp_path / "folder" / "data", shards=4)
    assert [file[-27:] for file in files] == [f"data-0000{i}-of-00004.tfrecord"[-27:] for i in range(4)]
    stored = read_tfrecords(tmp_path / "folder" / "data")
    assert len(stored) == len(examples)
    options = options | {"shuffle": True, "seed": 3}
    assert as_lists(Reader(stored, **options)) == as_lists(Reader(examples, **options))
    assert Reader(stored, **options).state(2) == Reader(examples, **options).state(2)


def test_shards_of_dense_and_weighted_examples(tmp_path, wordpiece, bible):
    labelled = classification(["a text", "b"], ["x", "y"], wordpiece)
    write_tfrecords(labelled, tmp_path / "a")
    stored = read_tfrecords(tmp_path / "a")
    assert stored.labels == ["x", "y"]
    assert as_lists(Reader(stored, 2)) == as_lists(Reader(labelled, 2))
    masked = masked_language_modelling([p[0] for p in bible[:50]], wordpiece, 24)
    write_tfrecords(masked, tmp_path / "b", shards=2)
    stored = Reader(read_tfrecords(tmp_path / "b"), 7)
    first = as_lists(stored)
    assert first == as_lists(Reader(masked, 7)) == as_lists(stored)  # frozen: the second epoch is the first


def test_shards_of_numbers_of_other_types(tmp_path):
    elements = [({"token_ids": np.array([1, 2], "int16")}, y) for y in (0.5, np.float64(2))]
    files = write_tfrecords(examples_from_elements(elements), tmp_path / "a")
    assert len(files) == 1
    ((x, y, _),) = Reader(read_tfrecords(tmp_path / "a"), 2).dataset().as_numpy_iterator()
    assert x["token_ids"].tolist() == [[1, 2]] * 2 and y.tolist() == [0.5, 2.0] and y.dtype == np.float32
    flags = [({"token_ids": np.array([1])}, True), ({"token_ids": np.array([1])}, False)]
    write_tfrecords(examples_from_elements(flags), tmp_path / "b")
    ((_, y, _),) = Reader(read_tfrecords(tmp_path / "b"), 2).dataset().as_numpy_iterator()
    assert y.tolist() == [1, 0]


def test_only_what_a_batch_needs_is_read(tmp_path, examples):
    """A restart at a later batch reads none of the records before it."""
    write_tfrecords(examples, tmp_path / "data")
    stored = read_tfrecords(tmp_path / "data")
    read, fetch = [], stored.fetch

    def spy(numbers, epoch=0):
        read.extend(numbers.tolist())
        return fetch(numbers, epoch)

    stored.fetch = spy
    reader = Reader(stored, batch_size=10, shuffle=True)
    reader.restore(reader.state(reader.num_batches() - 2))
    assert len(as_lists(reader)) == 2
    assert len(read) == 10 + (len(examples) % 10 or 10)


def test_damaged_shards(tmp_path, examples):
    prefix = tmp_path / "data"
    (path,) = write_tfrecords(examples, prefix)
    with open(path, "r+b") as file:
        file.seek(500)
        file.write(b"\xff\xff")
    with pytest.raises(ValueError, match="data-00000-of-00001.tfrecord: the record of example"):
        read_tfrecords(prefix).fetch(np.arange(len(examples)))
    with open(path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match="the record of example"):
        read_tfrecords(prefix).fetch(np.array([len(examples) - 1]))
    (tmp_path / "data.index.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(ValueError, match="index is damaged"):
        read_tfrecords(prefix)
    with pytest.raises(FileNotFoundError, match="no index"):
        read_tfrecords(tmp_path / "other")
    write_tfrecords(examples, prefix)
    (tmp_path / "data-00000-of-00001.tfrecord").unlink()
    with pytest.raises(FileNotFoundError, match="no shard"):
        read_tfrecords(prefix)
    with pytest.raises(ValueError, match="shards must be from 1"):
        write_tfrecords(examples, prefix, shards=0)
