"""The weights of a model as a loop reads them."""

import contextlib
import copy

import keras
import tensorflow as tf


class StepWeights(keras.StatelessScope):
    """Gives layers their weights as tensors of the graph in which this was made, or eager ones.

    A weight is cast once, to what its layer computes in, whatever number of steps read it.

    Args:
        model: whose weights.
        ready: dict of str -> tensor, as `ready` of another of the same model; None: all is made here.
    """

    def __init__(self, model, ready=None):
        super().__init__()
        self._graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        # Asked for within a layer, a variable's value is cast already.
        self._values = {id(variable): variable.value for variable in getattr(model, "variables", ())}
        self._stored = {}
        self._alike = _alike(getattr(model, "variables", ()))
        self._unstacked = {}  # of these in a graph
        self._casts, self._reads = True, False
        self.ready = dict(ready or {})
        self._noted = None

    def as_stored(self):
        """The same for a single call: layers cast what they read themselves, which takes less memory."""
        stored = copy.copy(self)
        stored._casts, stored.ready = False, {}
        return stored

    def get_current_value(self, variable):
        """As Keras asks for a variable's value; None: its own."""
        # In the dtype in which the layer that asks computes.
        return None if self._reads else self.get((variable,), dtype=variable.dtype)

    def get(self, variables, form=None, dtype=None):
        """A variable's value in a dtype; of several matrices side by side.

        Args:
            variables: tuple.
            form: function that returns a matrix as it is wanted, such as `tf.transpose`; None: as it is.
            dtype: str or dtype.
        """
        name = tuple(map(id, variables)), form, dtype if self._casts else None
        if self._noted is not None:
            self._noted.append(name)
        alike = self._alike.get(id(variables[0])) if len(variables) == 1 and form is None else None
        if alike and self._graph and self._casts:
            return self._one_of(alike, dtype)[id(variables[0])]

        def make():
            values = [self._stored_value(variable) for variable in variables]
            x = values[0] if len(values) == 1 else tf.concat(values, axis=-1)
            x = tf.cast(x, dtype) if self._casts else x
            return x if form is None else form(x)

        return self._made_once(str(name), make)

    def _one_of(self, alike, dtype):
        """Vectors of one shape in the graph that is being made: dict of id -> tensor.

        Of each tensor that a loop reads TensorFlow makes five nodes, and works on them at every step. So
        it reads them as one, of which those within it are views.
        """

        def make():
            return tf.stack([tf.cast(self._stored_value(variable), dtype) for variable in alike])

        stacked = self._made_once(str((*map(id, alike), dtype)), make)
        name = id(stacked), tf.compat.v1.get_default_graph()
        if name not in self._unstacked:
            self._unstacked[name] = dict(zip(map(id, alike), tf.unstack(stacked), strict=True))
        return self._unstacked[name]

    def _made_once(self, name, make):
        if name not in self.ready:
            with self._graph.as_default() if self._graph else contextlib.nullcontext():
                self.ready[name] = make()
        return self.ready[name]

    def _stored_value(self, variable):
        name = id(variable)
        if name not in self._stored:
            self._reads = True  # one that the model does not list is asked for its own value
            self._stored[name] = tf.convert_to_tensor(self._values.get(name, variable))
            self._reads = False
        return self._stored[name]

    def lists(self, variables):
        """Whether the model lists all of these variables."""
        return all(id(variable) in self._values for variable in variables)

    @contextlib.contextmanager
    def noted(self):
        """Yields a list to which is added what is asked for: (ids of variables, form, dtype)."""
        self._noted = []
        try:
            yield self._noted
        finally:
            self._noted = None


def _alike(variables):
    """Of each float vector that is not the only one of its shape, all of that shape: dict of id -> list."""
    shapes = {}
    for variable in variables:
        if len(variable.shape) == 1 and keras.backend.is_float_dtype(variable.dtype):
            shapes.setdefault(tuple(variable.shape), []).append(variable)
    return {id(vector): alike for alike in shapes.values() if len(alike) > 1 for vector in alike}
