"""Plain words for what TensorFlow reports from within a step, at the end of its own stack."""

import contextlib
import re
import warnings

import tensorflow as tf

# What `tf.debugging` and gathers on a CPU say; on a GPU gathers of a wrong index give zeros.
_OF_TARGETS = "Targets must be at least 0 and below the vocabulary size"
_OF_IDS = "Ids and masks must be at least 0"
_OF_PLACES = "Targets must be one a token, of the shape of the ids"
_OF_INDEX = re.compile(r"indices\[[\d, ]*\] = (-?\d+) is not in \[0, (\d+)\)")
# What the cross-entropy of heads and of Keras says, before it lists all labels.
_OF_LABEL = re.compile(r"label value of (-?\d+) which is outside the valid range of \[0, (\d+)\)")


def check_targets(targets, vocabulary_size):
    """Targets that fail the step if one is no word: int tensor, (rows,)."""
    wrong = tf.boolean_mask(targets, (targets < 0) | (targets >= vocabulary_size))
    check = tf.debugging.Assert(
        tf.equal(tf.size(wrong), 0), [_OF_TARGETS, vocabulary_size, wrong], summarize=5
    )
    with tf.control_dependencies([] if check is None else [check]):  # None: checked at once
        return tf.identity(targets)


def none_negative(x):
    """A dict of inputs that fail the step if a number in it is negative, which Keras counts from the end."""
    if not isinstance(x, dict):
        return x
    numbers = [value for value in x.values() if value.dtype.is_integer and not value.dtype.is_unsigned]
    if not numbers:
        return x
    least = tf.reduce_min([tf.cast(tf.reduce_min(value), tf.int64) for value in numbers])
    check = tf.debugging.Assert(least >= 0, [_OF_IDS, least])
    with tf.control_dependencies([] if check is None else [check]):  # None: checked at once
        return {name: tf.identity(value) for name, value in x.items()}


def one_a_token(targets, hidden):
    """Targets (b, l) that fail the step unless they are one a token of hidden states (b, l, d).

    Flattened, those of another length would be compared with other tokens' states.
    """
    expected = hidden.shape[:-1]
    if not targets.shape.is_compatible_with(expected):
        raise ValueError(_of_places(tuple(expected), tuple(targets.shape)))
    if targets.shape.is_fully_defined() and expected.is_fully_defined():
        return targets
    shape, wanted = tf.shape(targets), tf.shape(hidden)[:-1]
    check = tf.debugging.Assert(tf.reduce_all(shape == wanted), [_OF_PLACES, wanted, shape])
    with tf.control_dependencies([] if check is None else [check]):  # None: checked at once
        return tf.identity(targets)


def _of_places(expected, received):
    return (
        f"{_OF_PLACES}, {expected}. Received: {received}. For the next token cut the ids' last and the "
        "targets' first, or give a target that shall not count a sample_weight of 0."
    )


@contextlib.contextmanager
def quiet_end_of_data(steps_per_epoch):
    """Within it Keras does not warn that data has ended whose length nobody has said."""
    with warnings.catch_warnings():
        if steps_per_epoch is None:
            warnings.filterwarnings("ignore", "Your input ran out of data")
        yield


@contextlib.contextmanager
def in_plain_words():
    """Within it a wrong id or target raises a ValueError that names it, a lost worker a ConnectionError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        targets = re.search(rf"{_OF_TARGETS}\]? \[(\d+)\]? \[([-\d ]+)", error.message)
        if targets:
            raise ValueError(
                f"{_OF_TARGETS}, {targets[1]}. Received: {targets[2]}. Use the tokenizer that the model was "
                "built for, and give targets that shall not count a sample_weight of 0."
            ) from error
        ids = re.search(rf"{_OF_IDS}\]? \[(-\d+)", error.message)
        if ids:
            raise ValueError(f"{_OF_IDS}. Received: {ids[1]}.") from error
        places = re.search(rf"{_OF_PLACES}\]? \[([\d ]+)\]+ \[([\d ]+)", error.message)
        if places:
            shapes = [tuple(map(int, sizes.split())) for sizes in places.groups()]
            raise ValueError(_of_places(*shapes)) from error
        label = _OF_LABEL.search(error.message)
        if label:
            raise ValueError(
                f"Labels must be at least 0 and below their number, {label[2]}. Received: {label[1]}. "
                "Give those that shall not count a sample_weight of 0."
            ) from error
        index = _OF_INDEX.search(error.message)
        if index:
            raise ValueError(
                f"A token id, a target or a position is not in its table, of {index[2]} rows. Received: "
                f"{index[1]}. Use the tokenizer that the model was built for, and texts within its length."
            ) from error
        raise
    except tf.errors.UnavailableError as error:  # what several workers tell of one another
        lost = ", ".join(sorted(set(re.findall(r"task:(\d+)", error.message))))
        raise ConnectionError(
            f"All workers must stay to the end. Received: no answer from worker {lost}, see its log. Start "
            "the same command on all again: with the callback Resume it goes on from the last checkpoint."
        ) from error
