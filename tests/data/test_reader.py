"""The pipeline: packing, budgets, shards, and the position that a restart comes back to."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmodels
from tfmodels.data import (
    Reader,
    batches,
    causal_language_modelling,
    question_answering,
    sequence_to_sequence,
)
from tfmodels.data.planning import first_fit_decreasing


@pytest.fixture(scope="module")
def texts(bible):
    return [pair[0] for pair in bible][:200]


@pytest.fixture(scope="module")
def lines(texts, tokenizer):
    """Each verse an example of its own."""
    return causal_language_modelling(texts, tokenizer, length=32, join=False)


def sequences(batch):
    """The sequences of a batch, as tuples of ids, taken out of their rows."""
    x, y, weight = batch
    found = []
    for ids, mask, targets, scored in zip(x["token_ids"], x["padding_mask"], y, weight, strict=True):
        assert not np.any(scored[mask == 0])
        for k in range(1, mask.max(initial=0) + 1):
            found.append((*ids[mask == k].tolist(), *targets[mask == k].tolist()))
    return found


def everything(data):
    return [sequence for batch in data.as_numpy_iterator() for sequence in sequences(batch)]


def as_lists(data, count=None):
    arrays = data.take(count or -1).as_numpy_iterator()
    return [tf.nest.map_structure(lambda array: array.tolist(), batch) for batch in arrays]


def test_packed_rows_hold_every_example_once(lines):
    data = batches(lines, batch_size=8, pack=64, shuffle=True)
    assert data.element_spec[1].shape == (None, 64)
    assert sorted(everything(data)) == sorted(everything(batches(lines, batch_size=8)))
    masks = np.concatenate([x["padding_mask"] for x, _, _ in data])
    assert np.mean(masks != 0) > 0.95


def test_packed_pairs_keep_source_and_target_together(tokenizer, bible):
    examples = sequence_to_sequence(bible[:200], tokenizer, max_length=50)
    sizes = {"encoder_padding_mask": 60, "decoder_padding_mask": 70}
    found = []
    for x, y, _ in batches(examples, batch_size=4, pack=sizes).as_numpy_iterator():
        assert x["encoder_token_ids"].shape[1] == 60 and y.shape[1] == 70
        for row in range(len(y)):
            masks = x["encoder_padding_mask"][row], x["decoder_padding_mask"][row]
            for k in range(1, masks[0].max() + 1):
                source = x["encoder_token_ids"][row][masks[0] == k]
                found.append((source.tolist(), y[row][masks[1] == k].tolist()))
    alone = [(x["encoder_token_ids"].tolist(), y.tolist()) for x, y, _ in examples]
    assert sorted(found) == sorted(alone)


def test_packed_losses_are_the_padded_ones(lines):
    """Token by token, on the same weights."""
    model = tfmodels.models.gpt2("tiny", vocabulary_size=700, dropout=0.0, attention_dropout=0.0)

    def losses(data):
        found = {}
        for x, y, _ in data.as_numpy_iterator():
            nll = keras.ops.sparse_categorical_crossentropy(y, model(x), from_logits=True).numpy()
            for row, mask in enumerate(x["padding_mask"]):
                for k in range(1, mask.max(initial=0) + 1):
                    found[tuple(x["token_ids"][row][mask == k])] = nll[row][mask == k]
        return found

    packed = losses(batches(lines, batch_size=8, pack=64))
    padded = losses(batches(lines, tokens_per_batch=512))
    assert packed.keys() == padded.keys() and len(packed) > 150
    for key in packed:
        # float32, 2 layers
        np.testing.assert_allclose(packed[key], padded[key], atol=1e-5)


def test_first_fit_decreasing():
    """Against the definition, row by row."""
    lengths = np.random.default_rng(1).integers(1, 30, (200, 2))
    capacity = np.array([41, 37])
    rows = []
    for i in sorted(range(200), key=lambda i: -max(lengths[i] / capacity)):
        for row in rows:
            if np.all(lengths[[*row, i]].sum(0) <= capacity):
                row.append(i)
                break
        else:
            rows.append([i])
    row_of = first_fit_decreasing(lengths, capacity)
    assert [sorted(row) for row in rows] == [np.flatnonzero(row_of == r).tolist() for r in range(len(rows))]


OPTIONS = [
    {"batch_size": 7},
    {"batch_size": 7, "shuffle": True},
    {"tokens_per_batch": 200, "shuffle": True},
    {"batch_size": 3, "pack": 32, "shuffle": True},
]


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_restart_goes_on_where_it_stopped(lines, options, repeat):
    """At several steps of three epochs, by a state that went through JSON."""
    reader = Reader(lines, seed=5, **options)
    whole = [batch for _ in range(3) for batch in as_lists(reader.dataset())]
    sizes = [reader.num_batches(epoch) for epoch in range(3)]
    assert sum(sizes) == len(whole)
    if options.get("shuffle"):
        assert whole[0] != whole[sizes[0]]
    for step in (0, 1, sizes[0] - 1, sizes[0], sizes[0] + 3, len(whole) - 1):
        state = json.loads(json.dumps(Reader(lines, seed=5, **options).state(step)))
        restarted = Reader(lines, seed=5, repeat=repeat, **options)
        restarted.restore(state)
        left = len(whole) - step
        if repeat:
            rest = as_lists(restarted.dataset(), left)
        else:
            rest = [batch for _ in range(3 - state["epoch"]) for batch in as_lists(restarted.dataset())]
        assert rest == whole[step:]
        assert restarted.state(left) == reader.state(len(whole))


def test_a_position_of_other_data_is_refused(lines):
    state = Reader(lines, batch_size=7, shuffle=True, seed=1).state(3)
    for other in ({"seed": 2}, {"batch_size": 8}, {"shuffle": False}):
        with pytest.raises(ValueError, match="belongs to other data"):
            Reader(lines, **({"batch_size": 7, "shuffle": True, "seed": 1} | other)).restore(state)


@pytest.mark.parametrize("options", OPTIONS)
def test_shards_are_the_rows_of_the_batch(lines, options):
    whole = [sorted(sequences(b)) for b in batches(lines, **options).as_numpy_iterator()]
    shards = [list(batches(lines, **options, shard=(i, 3)).as_numpy_iterator()) for i in range(3)]
    assert [len(shard) for shard in shards] == [len(whole)] * 3
    for batch, parts in zip(whole, zip(*shards, strict=True), strict=True):
        assert sorted(sum(map(sequences, parts), [])) == batch
        # A worker without rows has one of padding.
        assert all(y.size for _, y, _ in parts) and all(x["token_ids"].size for x, _, _ in parts)


def test_fit_goes_on_where_it_stopped(lines):
    """Training that is cut in two, with the position in between, ends in the same weights."""

    def fit(model, reader, steps):
        model.fit(reader.dataset(), steps_per_epoch=3, epochs=steps // 3, verbose=0, shuffle=False)

    def make():
        keras.utils.set_random_seed(1)
        model = tfmodels.models.gpt2("tiny", vocabulary_size=700, num_layers=1, dropout=0.0)
        model.compile(keras.optimizers.SGD(0.1))
        return model, Reader(lines, tokens_per_batch=1000, shuffle=True, seed=2, repeat=True)

    whole, reader = make()
    assert reader.num_batches() < 12
    fit(whole, reader, 15)
    model, first = make()
    fit(model, first, 6)
    _, second = make()
    second.restore(first.state(6))
    fit(model, second, 9)
    for a, b in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_killed_reader_goes_on():
    """Twenty kills are the benchmark's; `test_a_restart_goes_on_where_it_stopped` is the fast twin."""
    script = pathlib.Path(__file__).parents[2] / "examples" / "benchmarks" / "data.py"
    result = subprocess.run(
        [sys.executable, script, "--tries", "2"], capture_output=True, text=True, check=True
    )
    assert "equal those of one uninterrupted run: 2 of 2" in result.stdout


def test_iterables_are_read_into_memory(tokenizer, bible):
    examples = sequence_to_sequence(bible[:20], tokenizer)
    elements = list(examples)
    same = as_lists(batches(elements, batch_size=5))
    assert same == as_lists(batches(examples, batch_size=5))
    signature = tf.nest.map_structure(lambda a: tf.TensorSpec((None,), a.dtype), elements[0])
    dataset = tf.data.Dataset.from_generator(lambda: iter(elements), output_signature=signature)
    assert same == as_lists(batches(dataset, batch_size=5))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "from 1 on. Received: 0"),
        ({"batch_size": 2.5}, "whole number of rows or tokens.*Received: 2.5"),
        ({"tokens_per_batch": "64"}, "whole number of rows or tokens.*Received: '64'"),
        ({"batch_size": 2, "pack": 40.5}, "for each of .*Received: 40.5"),
        ({"batch_size": 2, "shard": (2, 2)}, r"shard must be .*\(2, 2\)"),
        ({"tokens_per_batch": 5}, "tokens_per_batch=5 must be at least the longest.*tokens in number"),
        ({"batch_size": 2, "pack": 5}, "must fit into a row of pack=.*tokens in number"),
        ({"tokens_per_batch": 20, "pack": 32}, "at least a row.*tokens_per_batch=20, pack=32"),
        ({"batch_size": 2, "pack": {"encoder_padding_mask": 40}}, "for each of \\['padding_mask'\\]"),
    ],
)
def test_bad_options(lines, options, message):
    with pytest.raises(ValueError, match=message):
        Reader(lines, **options)


def test_elements_of_another_form(wordpiece):
    record = {"question": "Who?", "context": "God is love", "answers": {"text": ["God"], "answer_start": [0]}}
    elements = list(question_answering([record], wordpiece))
    with pytest.raises(ValueError, match="y must be an array of numbers.*start_logits.* in number 0"):
        Reader(elements, batch_size=1)


def test_nothing_left(tokenizer):
    examples = sequence_to_sequence([("God is love", "Dios es amor")], tokenizer, max_length=2)
    with pytest.raises(ValueError, match="at least one example.*1 were too long"):
        Reader(examples, batch_size=2)
