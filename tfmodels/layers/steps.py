"""What layers do otherwise in a loop that writes a token a step.

As `record`: no layer between the loop and them needs an argument for it.

Shape letters: r rows, i inputs, o outputs.
"""

import contextlib
import contextvars
import dataclasses
from typing import Any

import keras
from keras import ops

from tfmodels.layers.record import is_recording

_step = contextvars.ContextVar("step", default=None)


@dataclasses.dataclass(frozen=True)
class Step:
    """How the layers of a step work.

    Attributes:
        multiply: function of x (..., i), a tuple of matrices, variables of (i, o), and if they stand
            turned, as (o, i), that returns a list of x times each, (..., o). None: layers make their own.
        until: int tensor, (batch,), or None. Given, positions of a cache that are written have not been
            written before, and those from here on stay as they are, so that a cache can be written in place.
        later: list, or None. Given, caches stay as they are, and `layers.cache.write` appends to it what
            is to be written: tuples of a cache, its new keys and values, and their positions.
        share: function of a block, `call`, the tuple of its arguments, nested structures of tensors, and a
            hashable key, that returns what `call(*arguments)` does. It may take it from an equal block that
            was called with the same key. None: each block is called.
        places: int tensor, (batch, length), where in a cache each token is written; None: at its position.
            With places of their own several texts of a row share a cache.
        seen: boolean tensor, (batch, length, cache_length), of which places each token may see any, its own
            among them; None: of all.
        positions: int tensor, (batch, cache_length), of what stands in each place; None: the place's number.
    """

    multiply: Any = None
    until: Any = None
    later: list | None = None
    share: Any = None
    places: Any = None
    seen: Any = None
    positions: Any = None
    made: dict = dataclasses.field(default_factory=dict)  # by `once`

    @property
    def writes_in_place(self):
        """Whether caches are written in place: only TensorFlow's own ops on a CPU do."""
        return self.until is not None


@contextlib.contextmanager
def stepping(*arguments, **options):
    """Within it, layers work as a `Step` of these arguments says."""
    token = _step.set(Step(*arguments, **options))
    try:
        yield
    finally:
        _step.reset(token)


def is_stepping():
    """Whether this is a step."""
    return _step.get() is not None


def of_step(name):
    """An attribute of the `Step`; None outside a step."""
    return None if _step.get() is None else getattr(_step.get(), name)


def once(make, *key):
    """What `make` returns, which in a step is called by the first layer only for the same key.

    Args:
        make: function without arguments.
        *key: tensors, the same objects, and other values, what the result is made of.
    """
    if _step.get() is None:
        return make()
    made = _step.get().made
    name = tuple(x if isinstance(x, str | int | type(None)) else id(x) for x in key)
    if name not in made:
        made[name] = make(), key  # tensors of the key must live as long as their ids stand for them
    return made[name][0]


def shared(block, call, *tensors, same):
    """call(*tensors), which in a step equal blocks may share.

    Args:
        block: Keras layer.
        call: function of nested structures of tensors.
        *tensors: its arguments.
        same: tuple of what else it reads, which must be the same objects for all blocks that share it.
    """
    step = _step.get()
    if step is None or step.share is None or is_recording():
        return call(*tensors)

    later = [] if step.later is None else step.later

    def call_and_take(*tensors):
        start = len(later)
        results = call(*tensors)
        written = later[start:]
        del later[start:]
        return results, written

    results, written = step.share(block, call_and_take, tensors, tuple(map(id, same)))
    later.extend(written)
    return results


def leading(x):
    """All sizes of a tensor but the last, for `ops.reshape`: -1 for one that is unknown."""
    sizes = tuple(x.shape)[:-1]
    if sizes.count(None) > 1:
        return once(lambda: tuple(ops.shape(x))[:-1], "leading", x)
    return tuple(-1 if size is None else size for size in sizes)


def side_by_side(x, *layers):
    """[layer(x) for layer in layers], which a step may make as one product.

    Args:
        x: float tensor, (rows, inputs).
        *layers: built; those that are no `Dense` as they stand here are called.
    """

    def is_plain(layer):
        if type(layer) is not Dense or "call" in vars(layer):  # a user's, or for rows that are no tokens
            return False
        return _is_the_steps(layer) and layer.compute_dtype == x.dtype

    if not all(map(is_plain, layers)) or len({layer.kernel.dtype for layer in layers}) > 1:
        return [layer(x) for layer in layers]
    products = _step.get().multiply(x, tuple(layer.kernel for layer in layers), False)
    return [layer.finish(product) for layer, product in zip(layers, products, strict=True)]


def _is_the_steps(layer):
    """Whether the step makes a layer's products."""
    if _step.get() is None or _step.get().multiply is None:
        return False
    # With LoRA a matrix is a sum, and no variable.
    return not layer.lora_enabled and layer.quantization_mode in (None, "int8")


def _rounded_back(product, layer, scale):
    """A product with a matrix that may be rounded: by `scale`, the name of a variable, (o,)."""
    if layer.quantization_mode is None:
        return product
    return product / ops.cast(getattr(layer, scale), product.dtype)


class _WeightsOnly:
    """A Keras layer of which "int8" and "int4" round the weights and not what they are multiplied with.

    Keras rounds both, for a product of integers that TensorFlow has no fast kernel for, and of an embedding
    in "int4" only once the model was saved and loaded.
    """

    def quantize(self, mode=None, type_check=True, config=None):
        super().quantize(mode, type_check=False, config=config)  # which refuses subclasses otherwise

    def quantized_build(self, shape, mode, config=None):
        super().quantized_build(shape, mode, config)
        if mode in ("int8", "int4"):
            self.inputs_quantizer = None


@keras.saving.register_keras_serializable("tfmodels")
class PlainDense(_WeightsOnly, keras.layers.Dense):
    """Keras's; for rows that are no tokens of the step, such as codes of positions."""


@keras.saving.register_keras_serializable("tfmodels")
class Dense(PlainDense):
    """Keras's; in a step, which gives it a row a token, its product is the step's."""

    def call(self, inputs, training=None):
        return self._in_a_step(inputs) if _is_the_steps(self) else super().call(inputs, training=training)

    def quantized_call(self, inputs, **options):
        return self._in_a_step(inputs) if _is_the_steps(self) else super().quantized_call(inputs, **options)

    def _in_a_step(self, inputs):
        (product,) = _step.get().multiply(inputs, (self.kernel,), False)
        return self.finish(product)

    def finish(self, product):
        """What the layer makes of its inputs times its matrix as it is stored, (..., units)."""
        x = _rounded_back(product, self, "kernel_scale")
        x = x if self.bias is None else ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)

    def output_kernel(self):
        """The turned matrix, (units, inputs), of a layer without activation; rounded, as its numbers mean."""
        if self.quantization_mode is None:
            return ops.transpose(self.kernel)
        outputs = self(ops.eye(self.input_spec.axes[-1], dtype=self.compute_dtype))
        return ops.transpose(outputs if self.bias is None else outputs - self.bias)


@keras.saving.register_keras_serializable("tfmodels")
class ReversibleEmbedding(_WeightsOnly, keras.layers.ReversibleEmbedding):
    """Keras's; in a step the product of its logits is the step's."""

    def call(self, inputs, reverse=False):
        logits = self._in_a_step(inputs, reverse)
        return super().call(inputs, reverse=reverse) if logits is None else logits

    def quantized_call(self, inputs, reverse=False):
        logits = self._in_a_step(inputs, reverse)
        return super().quantized_call(inputs, reverse=reverse) if logits is None else logits

    def output_kernel(self):
        """The matrix of the logits, (vocabulary, dim); rounded, as its numbers mean."""
        if self.quantization_mode is not None:
            return ops.transpose(self(ops.eye(self.output_dim, dtype=self.compute_dtype), reverse=True))
        return self.embeddings if self.tie_weights else ops.transpose(self.reverse_embeddings)

    def _in_a_step(self, x, reverse):
        plain = self.reverse_dtype is None and self.logit_soft_cap is None
        if not (reverse and plain and _is_the_steps(self)):
            return None
        name = "embeddings" if self.tie_weights else "reverse_embeddings"
        (product,) = _step.get().multiply(x, (getattr(self, name),), self.tie_weights)
        return _rounded_back(product, self, f"{name}_scale")
