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

_step = contextvars.ContextVar("step", default=None)


@dataclasses.dataclass(frozen=True)
class Step:
    """How the layers of a step work.

    Attributes:
        turned: function of a kernel, a variable (inputs, outputs), that returns it turned, (outputs, inputs),
            or None: it is read as it stands.
        swap_factors: bool, whether a turned kernel stands first in the product: (W x^T)^T instead of x W^T,
            which for 4 to 48 rows of float32 takes two thirds of the time on a CPU.
        until: int tensor, (batch,), or None. Given, positions of a cache that are written have not been
            written before, and those from here on stay as they are, so that a cache can be written in place.
    """

    turned: Any
    swap_factors: bool
    until: Any = None
    shared: dict = dataclasses.field(default_factory=dict)  # what `once` has made


@contextlib.contextmanager
def stepping(*arguments, **options):
    """Within it, layers work as a `Step` of these arguments says."""
    token = _step.set(Step(*arguments, **options))
    try:
        yield
    finally:
        _step.reset(token)


def written_until():
    """`Step.until`; None outside a step."""
    return None if _step.get() is None else _step.get().until


def once(make, *key):
    """What `make` returns, which in a step is called by the first layer only for the same key.

    Args:
        make: function without arguments.
        *key: tensors, the same objects, and other values, what the result is made of.
    """
    if _step.get() is None:
        return make()
    shared = _step.get().shared
    name = tuple(x if isinstance(x, str | int | type(None)) else id(x) for x in key)
    if name not in shared:
        shared[name] = make(), key  # tensors of the key must live as long as their ids stand for them
    return shared[name][0]


def leading(shape):
    """The first sizes of a shape, for `ops.reshape`: -1 instead of the first if it alone may be unknown."""
    return (-1, *shape[1:]) if all(isinstance(size, int) for size in shape[1:]) else tuple(shape)


def _times_turned(x, turned, swap_factors):
    """x (..., i) times the transpose of turned (o, i) -> (..., o)."""
    if not swap_factors:
        return ops.matmul(x, ops.transpose(turned))
    *shape, inputs = ops.shape(x)
    product = ops.matmul(turned, ops.transpose(ops.reshape(x, (-1, inputs))))  # (o, r)
    return ops.reshape(ops.transpose(product), (*leading(shape), turned.shape[0]))


class Dense(keras.layers.Dense):
    """Keras's; in a step it reads its kernel as the step has it."""

    def quantize(self, mode=None, type_check=True, config=None):
        super().quantize(mode, type_check=False, config=config)  # which refuses subclasses otherwise

    def call(self, inputs, training=None):
        step = _step.get()
        # With LoRA the kernel is a sum, and no variable.
        turned = step.turned(self.kernel) if step and not self.lora_enabled else None
        if turned is None:
            return super().call(inputs, training=training)
        x = _times_turned(inputs, turned, step.swap_factors)
        x = x if self.bias is None else ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)


class ReversibleEmbedding(keras.layers.ReversibleEmbedding):
    """Keras's; in a step the kernel of its logits is the step's."""

    def quantize(self, mode=None, type_check=True, config=None):
        super().quantize(mode, type_check=False, config=config)

    def call(self, inputs, reverse=False):
        step = _step.get()
        turned = None
        if reverse and step and self.reverse_dtype is None and self.logit_soft_cap is None:
            matrix = self.embeddings if self.tie_weights else step.turned(self.reverse_embeddings)
            turned = None if matrix is None else ops.convert_to_tensor(matrix)  # (v, d)
        if turned is None:
            return super().call(inputs, reverse=reverse)
        return _times_turned(inputs, turned, step.swap_factors)
