"""A model as a loop runs it, token by token."""

import contextlib

import keras
import tensorflow as tf

# So many tokens of a row are a step of a loop and no prompt.
_STEP_TOKENS = 8
# On a CPU a product of so few rows is faster with a matrix that has an output a row: each is read in one
# piece. Turning them all takes as long as some ten steps gain, and their memory once more.
_FEW_ROWS, _MANY_STEPS, _MOST_BYTES = 16, 16, 2**31


def turns_kernels(model, rows, steps):
    """Whether a loop of so many rows and steps gains by kernels that are turned before it."""
    if rows > _FEW_ROWS or steps < _MANY_STEPS or tf.config.list_physical_devices("GPU"):
        return False
    kernels = [variable for variable in getattr(model, "variables", ()) if _is_kernel(variable)]
    return sum(4 * variable.shape[0] * variable.shape[1] for variable in kernels) <= _MOST_BYTES


class StepModel:
    """A model whose matrices are made ready once, before the loop that reads them at every step.

    A mixed policy casts its weights wherever it reads them, which takes longer than a step itself.

    Args:
        model: keeps the protocol of `GenerativeModel`, as this does.
        turn_kernels: bool, whether kernels are held as (outputs, inputs).
        ready: what `ready` of another such model of the same model returned, by steps of which it was
            made, to be read again; None: all is made here.
    """

    def __init__(self, model, turn_kernels, ready=None):
        self._model = model
        self._weights = _ReadyWeights(turn_kernels, ready)

    def ready(self):
        """The matrices that the steps so far have read: dict of str -> tensor."""
        return dict(self._weights.ready)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def decode_step(self, token_ids, *arguments, **options):
        length = token_ids.shape[1]
        if length is None or length > _STEP_TOKENS:
            return self._model.decode_step(token_ids, *arguments, **options)
        with self._weights:
            return self._model.decode_step(token_ids, *arguments, **options)


class _ReadyWeights(keras.StatelessScope):
    """Gives layers their matrices as tensors of the graph in which this was made, or eager ones."""

    def __init__(self, turn_kernels, ready):
        super().__init__()
        self._turn_kernels = turn_kernels
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        self.ready = dict(ready or {})
        self._reads = False

    def get_current_value(self, variable):
        # Whole numbers are a quantised layer's, which scales them itself.
        if self._reads or len(variable.shape) != 2 or not tf.as_dtype(variable.dtype).is_floating:
            return None  # the variable's own
        turned = self._turn_kernels and _is_kernel(variable)
        name = str(id(variable))
        if name not in self.ready:
            self._reads = True
            with self._graph.as_default() if self._graph else contextlib.nullcontext():
                value = tf.convert_to_tensor(variable.value)  # cast as the layer that reads it asks
                self.ready[name] = tf.transpose(value) if turned else value
            self._reads = False
        value = self.ready[name]
        return tf.transpose(value) if turned else value


def _is_kernel(variable):
    return len(variable.shape) == 2 and variable.path.endswith("/kernel")
