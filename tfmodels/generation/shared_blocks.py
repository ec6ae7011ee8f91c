"""Equal blocks of a model as one traced function of their weights.

Tracing a block takes tens of milliseconds, and TensorFlow's and XLA's work on its ops as long again: a model
of many blocks would spend most of its first text on it.
"""

import tensorflow as tf


class SharedBlocks:
    """Runs the first of equal blocks as it is, and all others as one function (`layers.steps.Step.share`).

    Args:
        weights: `StepWeights`, from which the blocks read: the first shows what they ask for.
    """

    def __init__(self, weights):
        self._weights = weights
        self._asked = {}  # of a kind of block: [(places in its variables, turned, dtype)]
        self._functions = {}

    def __call__(self, block, call, tensors, key):
        """What `call(*tensors)` returns, as an equal block with the same key has it."""
        leaves = tf.nest.flatten(tensors)
        kind = _kind(block) if self._weights.lists(block.variables) else id(block)
        kind = (kind, tuple((leaf.dtype, str(leaf.shape)) for leaf in leaves), key)
        variables = block.variables
        if kind not in self._asked:
            with self._weights.noted() as asked:
                results = call(*tensors)
            places = {id(variable): i for i, variable in enumerate(variables)}
            asked = [(tuple(places.get(name) for name in names), *form) for names, *form in asked]
            self._asked[kind] = [each for each in dict.fromkeys(asked) if None not in each[0]]
            return results
        asked = [(tuple(variables[i] for i in matrices), *form) for matrices, *form in self._asked[kind]]
        weights = [self._weights.get(*each) for each in asked]
        if kind not in self._functions:
            names = [(tuple(map(id, matrices)), *form) for matrices, *form in asked]
            self._functions[kind] = self._traced(call, tensors, variables, names)
        return self._functions[kind](weights, leaves)

    def _traced(self, call, tensors, variables, names):
        """The function of weights and leaves that stands for `call` of every equal block."""
        known = {}

        # Inlined, its ops would be worked on again for each block.
        @tf.function(autograph=False, experimental_attributes={"_noinline": True})
        def function(weights, leaves):
            with self._weights.replaced(variables, dict(zip(names, weights, strict=True))):
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


def _kind(block):
    """What equal blocks have in common, hashable: all but names and the values of weights."""
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
