"""Equal blocks of a model: the first is called, and for the others its ops are copied.

To call a block takes tens of milliseconds, TensorFlow's work on its ops as long again, and XLA's a tenth of a
second: a model of many blocks would spend most of its first text on it.
"""

import math

import tensorflow as tf

from tfmodels.generation.recorded import RecordedCall


class CopiedBlocks:
    """Runs equal blocks as ops of the step, which a call of a function for each would slow.

    `layers.steps.Step.share`, for graphs only.

    Args:
        weights: `StepWeights`, from which the blocks read.
        made: dict, the step's `layers.steps.Step.made`.
    """

    def __init__(self, weights, made):
        self._weights = weights
        self._made = made
        self._recorded = {}  # of each kind of block

    def __call__(self, block, call, tensors, key):
        """What `call(*tensors)` returns, as an equal block with the same key has it."""
        leaves = tf.nest.flatten(tensors)
        kind = _kind(block, leaves, key, self._weights)
        if kind not in self._recorded:
            self._recorded[kind] = RecordedCall(self._weights, self._made, block, call, tensors)
            return self._as_first(self._recorded[kind], block, leaves)
        if not self._recorded[kind].can_be_copied:
            return call(*tensors)
        return self._as_another(self._recorded[kind], block, leaves)

    def _as_first(self, recorded, block, leaves):
        return recorded.results

    def _as_another(self, recorded, block, leaves):
        return recorded.packed(recorded.copied(recorded.inputs_of(block, leaves)), leaves)


class SharedBlocks(CopiedBlocks):
    """Runs equal blocks as one function of their weights, but for the first.

    Args:
        compiled: bool, whether XLA compiles the function; it then stands for the first block too.
    """

    def __init__(self, weights, made, compiled=False):
        super().__init__(weights, made)
        self._compiled = compiled
        self._functions = {}  # of each recorded call

    def _as_first(self, recorded, block, leaves):
        # What XLA shall compile need not run: TensorFlow drops ops of results that nothing reads.
        shares = self._compiled and recorded.can_be_copied
        return self._as_another(recorded, block, leaves) if shares else recorded.results

    def _as_another(self, recorded, block, leaves):
        variables = block.variables
        together = self._together(recorded.asked, variables)
        weights = [
            self._weights.get(tuple(variables[i] for part in parts for i in part), *form)
            for parts, *form in together
        ]
        if recorded not in self._functions:
            self._functions[recorded] = self._function(recorded, variables, together)
        return recorded.packed(self._functions[recorded](weights, leaves), leaves)

    def _together(self, asked, variables):
        """What was asked for: a list of what is to be given as one tensor.

        Each is a tuple of a list of its parts, as places in the variables, form and dtype. All vectors are
        one for XLA, which reads parts where they stand: each tensor costs a loop time at each step.
        """
        together = {}
        for own, form, dtype in asked:
            shape, stored = variables[own[0]].shape, variables[own[0]].dtype
            alone = not self._compiled or len(shape) != 1
            together.setdefault((form, dtype, stored, own if alone else None), []).append(own)
        return [(parts, form, dtype) for (form, dtype, *_), parts in together.items()]

    def _function(self, recorded, variables, together):
        """The function of weights, as `together`, and leaves that makes the results of any equal block."""

        # Inlined, its ops would be worked on again for each block.
        @tf.function(
            autograph=False,
            jit_compile=self._compiled or None,
            experimental_attributes={"_noinline": True},
        )
        def function(weights, leaves):
            read = {}
            for weight, (parts, *form) in zip(weights, together, strict=True):
                sizes = [sum(math.prod(variables[i].shape) for i in part) for part in parts]
                values = [weight] if len(parts) == 1 else tf.split(weight, sizes)
                read |= {(part, *form): value for part, value in zip(parts, values, strict=True)}
            return recorded.copied([*leaves, *(read[part] for part in recorded.asked)])

        return function


def _kind(block, leaves, key, weights):
    """What equal blocks, called with the same key and like tensors, have in common; hashable."""
    kind = _structure(block) if weights.lists(block.variables) else id(block)
    names = [id(leaf) for leaf in leaves]  # one tensor may stand in several places
    return kind, tuple((leaf.dtype, str(leaf.shape), names.index(id(leaf))) for leaf in leaves), key


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
