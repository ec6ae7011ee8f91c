"""What a signature is made of, and the checks of what it is given."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from tfmodels.generation.prompts import rounded_length

TEXT = tf.TensorSpec((None,), tf.string)
IDS = tf.TensorSpec((None, None), tf.int32)
ROW_IDS = tf.TensorSpec((None,), tf.int32)
SCALAR = tf.TensorSpec((), tf.int32)


@dataclasses.dataclass(frozen=True)
class Signature:
    """One endpoint of an export.

    Attributes:
        call: function in graph ops, of the inputs by name to a dict of outputs.
        inputs: dict of name -> `tf.TensorSpec`.
        about: str, what it does, in a sentence.
        outputs: dict of name -> str, what each output is.
        defaults: dict of input -> the value that stands for the config's own; inputs of a signature
            cannot be left out.
        ranges: dict of input -> str, the values that are answered.
    """

    call: Callable
    inputs: dict
    about: str
    outputs: dict
    defaults: dict = dataclasses.field(default_factory=dict)
    ranges: dict = dataclasses.field(default_factory=dict)

    def traced(self):
        """The function of named tensors that `tf.saved_model.save` takes."""
        specs = {name: tf.TensorSpec(s.shape, s.dtype, name=name) for name, s in self.inputs.items()}
        function = tf.function(lambda **tensors: self.call(**tensors), autograph=False)
        return function.get_concrete_function(**specs)

    def describe(self, function):
        """The signature as JSON: types, shapes, defaults and what they mean."""

        def tensor(value):
            return {"dtype": value.dtype.name, "shape": value.shape.as_list()}

        inputs = {name: tensor(spec) for name, spec in self.inputs.items()}
        for name, value in self.defaults.items():
            inputs[name]["default"] = value
        for name, rule in self.ranges.items():
            inputs[name]["rule"] = rule
        outputs = {
            name: tensor(value) | {"about": self.outputs.get(name, "")}
            for name, value in function.structured_outputs.items()
        }
        return {"about": self.about, "inputs": inputs, "outputs": outputs}


def checked(tensors, *rules):
    """The tensors, after the rules: no op on them runs before.

    Args:
        tensors: nested structure of tensors.
        *rules: (condition, message, received): a bool tensor, all of which must be true, else the
            request is answered with INVALID_ARGUMENT and the message.

    Returns:
        The same structure.
    """
    asserts = [
        tf.debugging.Assert(tf.reduce_all(condition), [f"{message} Received:", received], summarize=8)
        for condition, message, received in rules
    ]
    with tf.control_dependencies(asserts):
        return tf.nest.map_structure(tf.identity, tensors)


def same_rows(**tensors):
    """The tensors, after the rule that all have as many rows as the first."""
    (first, reference), *others = tensors.items()
    rows = tf.shape(reference)[0]
    rules = [
        (tf.shape(x)[0] == rows, f"{name} must have as many rows as {first}.", tf.shape(x)[0])
        for name, x in others
    ]
    return checked(tensors, *rules)


def checked_ids(inputs, model):
    """A model's ids, masks and segments, of one shape, as long as the model reads and in their ranges."""
    pairs = {ids: pair for ids, pair in model.input_pairs.items() if ids in inputs}
    rules = []

    def in_range(name, size):
        x = inputs[name]
        rules.append(((x >= 0) & (x < size), f"{name} must be at least 0 and below {size}.", x))

    def like(name, ids):
        shape = tf.shape(inputs[name])
        same = tf.reduce_all(shape == tf.shape(inputs[ids]))
        rules.append((same, f"{name} must have the shape of {ids}.", shape))

    for ids, (mask, field) in pairs.items():
        in_range(ids, getattr(model.config, field))
        if mask in inputs:
            like(mask, ids)
        length, most = tf.shape(inputs[ids])[-1], getattr(model.config, "max_sequence_length", None)
        fine, rule = length >= 1, "at least 1"
        if most is not None:
            fine, rule = fine & (length <= most), f"from 1 to {most}"
        rules.append((fine, f"{ids} must have rows of a length of {rule}.", length))
    if "segment_ids" in inputs:
        in_range("segment_ids", model.config.segment_vocabulary_size)
        like("segment_ids", next(iter(pairs)))
    same_batch = same_rows(**{ids: inputs[ids] for ids in pairs})
    return checked(inputs | same_batch, *rules)


def rounded(inputs, max_length):
    """Inputs (batch, length) with padding to few widths, since kernels are made ready for each, and kept.

    Args:
        inputs: dict of ids and masks, int32.
        max_length: int, the widest; what is wider stays as it is.
    """
    sizes = tf.constant(sorted({rounded_length(i, max_length) for i in range(1, max_length + 1)}))

    def padded(x):
        length = tf.shape(x)[1]
        width = tf.reduce_min(tf.where(sizes >= length, sizes, max_length))
        return tf.pad(x, ((0, 0), (0, tf.maximum(width - length, 0))))

    return {name: padded(x) for name, x in inputs.items()}


def cut(ids, room):
    """The first `room` ids of each row, and whether there were more."""
    return ids[:, :room], ids.row_lengths() > room
