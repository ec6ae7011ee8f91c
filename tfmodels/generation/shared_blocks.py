"""Equal blocks of a model: the first is called, and for the others its ops are copied.

To call a block takes tens of milliseconds, TensorFlow's work on its ops as long again, and XLA's a tenth of a
second: a model of many blocks would spend most of its first text on it.
"""

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
        self._copies_first = False
        self._recorded = {}  # of each kind of block

    def __call__(self, block, call, tensors, key):
        """What `call(*tensors)` returns, as an equal block with the same key has it."""
        leaves = tf.nest.flatten(tensors)
        kind = _kind(block, leaves, key, self._weights)
        is_first = kind not in self._recorded
        if is_first:
            self._recorded[kind] = RecordedCall(self._weights, self._made, block, call, tensors)
        recorded = self._recorded[kind]
        if is_first and not (self._copies_first and recorded.can_be_copied):
            return recorded.results
        if not recorded.can_be_copied:
            return call(*tensors)
        return recorded.packed(self._copy(recorded, recorded.inputs_of(block, leaves)), leaves)

    def _copy(self, recorded, inputs):
        return recorded.copied(inputs)


class SharedBlocks(CopiedBlocks):
    """Runs equal blocks as one function of their weights, but for the first.

    Args:
        compiled: bool, whether XLA compiles the function; it then stands for the first block too.
    """

    def __init__(self, weights, made, compiled=False):
        super().__init__(weights, made)
        self._compiled = compiled
        # What XLA shall compile need not run: TensorFlow drops ops of results that nothing reads.
        self._copies_first = compiled
        self._functions = {}  # of each recorded call

    def _copy(self, recorded, inputs):
        if recorded not in self._functions:
            # Inlined, its ops would be worked on again for each block.
            self._functions[recorded] = tf.function(
                recorded.copied,
                autograph=False,
                jit_compile=self._compiled or None,
                experimental_attributes={"_noinline": True},
            )
        return self._functions[recorded](inputs)


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
