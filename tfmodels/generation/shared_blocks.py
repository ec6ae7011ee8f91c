"""Equal blocks of a model as one traced function of their weights.

Tracing a block takes tens of milliseconds, TensorFlow's work on its ops as long again, and XLA's a tenth of a
second: a model of many blocks would spend most of its first text on it.
"""

import math

import tensorflow as tf


class SharedBlocks:
    """Runs equal blocks as one function (`layers.steps.Step.share`).

    Args:
        weights: `StepWeights`, from which the blocks read: the first shows what they ask for.
        compiled: bool, whether XLA compiles the function; else the first block runs as it is.
    """

    def __init__(self, weights, compiled=False):
        self._weights = weights
        self._compiled = compiled
        self._asked = {}  # of a kind of block: what `_together` returns
        self._functions = {}

    def __call__(self, block, call, tensors, key):
        """What `call(*tensors)` returns, as an equal block with the same key has it."""
        leaves = tf.nest.flatten(tensors)
        kind, variables = kind_of(block, leaves, key, self._weights), block.variables
        if kind not in self._asked:
            with self._weights.noted() as asked:
                results = call(*tensors)
            self._asked[kind] = self._together(asked, variables)
            if not self._compiled:  # else TensorFlow drops these results, which nothing reads
                return results
        asked = [
            ([tuple(variables[i] for i in places) for places in parts], *form)
            for parts, *form in self._asked[kind]
        ]
        weights = [self._weights.get(sum(parts, ()), *form) for parts, *form in asked]
        if kind not in self._functions:
            self._functions[kind] = self._traced(call, tensors, variables, asked)
        return self._functions[kind](weights, leaves)

    def _together(self, asked, variables):
        """What was asked for, as `noted` has it: a list of what is to be given as one tensor.

        Each is a tuple of a list of its parts, as places in the variables, form and dtype. All vectors are
        one for XLA, which reads parts where they stand: each tensor costs a loop time at each step.
        """
        together = {}
        for own, form, dtype in places_of(asked, variables):
            shape, stored = variables[own[0]].shape, variables[own[0]].dtype
            alone = not self._compiled or len(shape) != 1
            together.setdefault((form, dtype, stored, own if alone else None), []).append(own)
        return [(parts, form, dtype) for (form, dtype, *_), parts in together.items()]

    def _traced(self, call, tensors, variables, asked):
        """The function of weights and leaves that stands for `call` of every equal block."""
        known = {}
        names = [[(tuple(map(id, part)), *form) for part in parts] for parts, *form in asked]
        sizes = [[sum(math.prod(x.shape) for x in part) for part in parts] for parts, *_ in asked]

        # Inlined, its ops would be worked on again for each block.
        @tf.function(
            autograph=False,
            jit_compile=self._compiled or None,
            experimental_attributes={"_noinline": True},
        )
        def function(weights, leaves):
            values = {}
            for name, size, weight in zip(names, sizes, weights, strict=True):
                values |= zip(name, [weight] if len(name) == 1 else tf.split(weight, size), strict=True)
            with self._weights.replaced(variables, values):
                results = call(*tf.nest.pack_sequence_as(tensors, leaves))
            given, flat = {id(leaf): i for i, leaf in enumerate(leaves)}, tf.nest.flatten(results)
            known["structure"] = tf.nest.pack_sequence_as(results, range(len(flat)))
            known["places"] = [given.get(id(x)) for x in flat]
            return [x for x in flat if id(x) not in given]

        def run(weights, leaves):
            made = iter(function(weights, leaves))
            # What is handed through stays the tensor that it is.
            flat = [next(made) if place is None else leaves[place] for place in known["places"]]
            return tf.nest.pack_sequence_as(known["structure"], flat)

        return run


def kind_of(block, leaves, key, weights):
    """What equal blocks, called with the same key and like tensors, have in common; hashable."""
    kind = _structure(block) if weights.lists(block.variables) else id(block)
    return kind, tuple((leaf.dtype, str(leaf.shape)) for leaf in leaves), key


def places_of(asked, variables):
    """What `StepWeights.noted` has of these variables: tuples of their places in the list, form and dtype."""
    places = {id(variable): i for i, variable in enumerate(variables)}
    own = [(tuple(map(places.get, names)), *form) for names, *form in dict.fromkeys(asked)]
    return [(part, *form) for part, *form in own if None not in part]


def _structure(block):
    """All of a block but names and the values of its weights."""
    layers = block._flatten_layers()
    if not all(is_as_its_config_says(layer) for layer in layers):
        return id(block)
    configs = [layer.get_config() | {"name": type(layer)} for layer in layers]
    weights = [(str(variable.shape), variable.dtype) for variable in block.variables]
    return str(configs), tuple(weights)


def is_known(part):
    """Whether a class, or a function, is Keras's or the project's."""
    return part.__module__.split(".")[0] in ("keras", "tfmodels")


def is_as_its_config_says(layer):
    """Whether it is no layer of a user's, has no function of theirs, and no method has been replaced."""
    replaced = {name for name in vars(layer) if callable(getattr(type(layer), name, None))}
    parts = type(layer), type(layer).call, *filter(callable, vars(layer).values())
    return all(map(is_known, parts)) and replaced <= {"build", "quantize"}  # which Keras wraps
