"""Models whose variables are filled from a checkpoint are built without drawing random numbers."""

import contextlib

import tensorflow as tf


@contextlib.contextmanager
def unfilled_variables():
    """Inside, new float variables hold anything, and their initial values wait.

    Random numbers for billions of weights, drawn only to be overwritten, take longer than reading the
    checkpoint does, and memory that was never written takes no room beside the weights.

    Yields:
        A function that gives each of these variables its initial value, but for those in its
        argument, a collection of Keras variables.
    """
    pending = []
    graph = tf.Graph()

    def create(next_creator, **options):
        initial = options["initial_value"]
        # What is given as a value is there already, and whole numbers are seeds and counters.
        if not callable(initial) or not tf.as_dtype(options["dtype"]).is_floating:
            return next_creator(**options)
        with graph.as_default():  # as a symbol, for its shape only
            shape = initial().shape
        empty = tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(options["dtype"]))
        variable = next_creator(**options | {"initial_value": empty})
        pending.append((variable, initial))
        return variable

    def fill_others(variables):
        filled = {id(variable.value) for variable in variables}
        for variable, initial in pending:
            if id(variable) not in filled:
                variable.assign(initial())

    with tf.variable_creator_scope(create):
        yield fill_others
