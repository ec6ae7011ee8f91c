"""A model as a loop runs it, token by token."""

import contextlib

import keras
import tensorflow as tf

# How a loop's kernels are held: as they stand, (inputs, outputs); turned, (outputs, inputs), of which a CPU
# reads each in one piece; or turned and the first factor of their product (docs/benchmarks.md).
OWN, TURNED, SWAPPED = "own", "turned", "swapped"
# So many tokens of a row are a step of a loop and no prompt.
_STEP_TOKENS = 8
# Up to so many rows turned kernels are faster. Turning them all takes as long as some ten steps gain, and
# their memory once more.
_FEW_ROWS = {"float32": 48, "bfloat16": 128}
_MANY_STEPS, _MOST_BYTES = 16, 2**31


def choose_layout(model, rows, steps):
    """How a loop of so many rows and steps best holds its kernels."""
    dtype = getattr(model, "compute_dtype", None)
    if rows > _FEW_ROWS.get(dtype, 0) or steps < _MANY_STEPS or has_gpu():
        return OWN
    kernels = [variable for variable in getattr(model, "variables", ()) if _is_kernel(variable)]
    if sum(4 * variable.shape[0] * variable.shape[1] for variable in kernels) > _MOST_BYTES:
        return OWN
    return SWAPPED if dtype == "float32" and rows > 2 else TURNED


def has_gpu():
    return bool(tf.config.list_physical_devices("GPU"))


class StepModel:
    """A model whose matrices are made ready once, before the loop that reads them at every step.

    A mixed policy casts its weights wherever it reads them, which takes longer than a step itself.

    Args:
        model: keeps the protocol of `GenerativeModel`, as this does.
        layout: how kernels are held: "own", "turned" or "swapped".
        ready: what `ready` of another such model of the same model returned, by steps of which it was
            made, to be read again; None: all is made here.
        in_place: bool, whether caches may be written in their own memory: as no op of XLA, and on a CPU.
    """

    def __init__(self, model, layout=OWN, ready=None, in_place=False):
        self._model = model
        self._layout = layout
        self._in_place = in_place and not has_gpu()
        self._weights = _ReadyWeights(ready)

    def ready(self):
        """The matrices that the steps so far have read: dict of str -> tensor."""
        return dict(self._weights.ready)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def decode_step(self, token_ids, cache, index, until=None, **options):
        """As the model's.

        Args:
            until: int tensor, (batch,): what is written has not been written to this cache before, and
                what stands in a row from here on is not written; None: anything may be written.
        """
        length = token_ids.shape[1]
        is_step = length is not None and length <= _STEP_TOKENS
        with contextlib.ExitStack() as scopes:
            if is_step:
                scopes.enter_context(self._weights)
            if hasattr(self._model, "stepping"):
                turned = self._turned if is_step and self._layout != OWN else lambda kernel: None
                swap_factors = is_step and self._layout == SWAPPED
                scopes.enter_context(
                    self._model.stepping(turned, swap_factors, until if self._in_place else None)
                )
            return self._model.decode_step(token_ids, cache, index, **options)

    def _turned(self, kernel):
        return self._weights.turned(kernel) if _is_kernel(kernel) else None


class _ReadyWeights(keras.StatelessScope):
    """Gives layers their matrices as tensors of the graph in which this was made, or eager ones."""

    def __init__(self, ready):
        super().__init__()
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        self.ready = dict(ready or {})
        self._reads = False

    def get_current_value(self, variable):
        # Whole numbers are a quantised layer's, which scales them itself.
        if self._reads or not _is_matrix(variable):
            return None  # the variable's own
        return self._ready(str(id(variable)), lambda: tf.convert_to_tensor(variable.value))

    def turned(self, kernel):
        """A kernel as (outputs, inputs)."""
        return self._ready(f"turned {id(kernel)}", lambda: tf.transpose(tf.convert_to_tensor(kernel.value)))

    def _ready(self, name, make):
        if name not in self.ready:
            self._reads = True
            with self._graph.as_default() if self._graph else contextlib.nullcontext():
                self.ready[name] = make()  # cast as the layer that reads it asks
            self._reads = False
        return self.ready[name]


def _is_matrix(variable):
    return len(variable.shape) == 2 and tf.as_dtype(variable.dtype).is_floating


def _is_kernel(variable):
    return _is_matrix(variable) and variable.path.endswith(("/kernel", "/reverse_embeddings"))
