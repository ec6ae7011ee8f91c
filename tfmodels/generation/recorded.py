"""What a call adds to a graph, to be added again without the call."""

import tensorflow as tf


class RecordedCall:
    """A block's call, with its ops, of which it makes copies.

    To call a block of Keras layers takes several times as long as to copy its ops.

    Args:
        weights: `StepWeights`, from which the block reads.
        made: dict, the step's `layers.steps.Step.made`.
        block: Keras layer.
        call: function of `tensors`.
        tensors: tuple, nested structures of tensors.

    Attributes:
        asked: list of what the block has read of its variables, as `places_of` has it.
        results: nested structure of what `call` has returned.
        can_be_copied: bool, whether its ops make results of their inputs, and do nothing else.
    """

    def __init__(self, weights, made, block, call, tensors):
        self._weights, self._graph = weights, tf.compat.v1.get_default_graph()
        start, known = len(self._graph.get_operations()), set(made)
        with weights.noted() as asked:
            self.results = call(*tensors)
        self.asked = places_of(asked, block.variables)
        leaves, flat = tf.nest.flatten(tensors), tf.nest.flatten(self.results)
        self._inputs = self.inputs_of(block, leaves)
        given = {id(leaf): i for i, leaf in enumerate(leaves)}
        self._given = [given.get(id(x)) for x in flat]
        self._made = [x for x in flat if id(x) not in given]
        # A placeholder stands for what is captured from outside, a weight or what does not change.
        ops = [op for op in self._graph.get_operations()[start:] if op.type != "Placeholder"]
        self._ops = {op.name: op for op in ops}
        self.can_be_copied = not any(
            op.control_inputs or (op.op_def.is_stateful and op.type != "ReadVariableOp") for op in ops
        )
        # `layers.steps.once` says of what these are made, whichever block's tensors they are made of.
        self._made_of = {
            x.name: {part.name for part in key if tf.is_tensor(part)}
            for name, (values, key) in made.items()
            for x in tf.nest.flatten(values)
            if name not in known and tf.is_tensor(x)
        }
        self._parts = {}

    def inputs_of(self, block, leaves):
        """What an equal block reads: its arguments, then its weights, as `asked`; tensors of the graph."""
        variables = block.variables
        weights = [
            self._weights.get(tuple(variables[i] for i in places), *form) for places, *form in self.asked
        ]
        return [self._graph.capture(x) for x in (*leaves, *weights)]

    def copied(self, inputs):
        """The results for other inputs but for what it hands through, a list of tensors.

        Args:
            inputs: list of tensors, as `inputs_of` has them, of the graph that the ops are copied to.
        """
        graph = tf.compat.v1.get_default_graph()
        stands = dict(zip((own.name for own in self._inputs), inputs, strict=True))
        changed = set(stands)
        if graph is self._graph:  # what is the same for both blocks is there
            changed = {name for name, new in stands.items() if new.name != name}
        else:
            changed |= {x.name for op in self._ops.values() if not op.inputs for x in op.outputs}
        key = frozenset(changed)
        if key not in self._parts:
            self._parts[key] = self._part(changed)
        graph_def, read, made = self._parts[key]
        read = {name: stands[name] if name in stands else graph.capture(x) for name, x in read.items()}
        copies = tf.graph_util.import_graph_def(graph_def, read, list(made), name="block")
        for x, copy in zip(made.values(), copies, strict=True):
            copy.set_shape(x.shape)
        stands |= zip(made, copies, strict=True)
        return [stands[x.name] if x.name in stands else graph.capture(x) for x in self._made]

    def packed(self, made, leaves):
        """`results` for what `copied` has returned and a block's arguments, which it may hand through."""
        made = iter(made)
        flat = [next(made) if place is None else leaves[place] for place in self._given]
        return tf.nest.pack_sequence_as(self.results, flat)

    def _part(self, changed):
        """The ops that make other results if other tensors, of these names, are read.

        Returns:
            A GraphDef, and dicts of name -> tensor, of what it reads and of the results that it makes.
        """
        changed, ops = set(changed), self._ops
        for op in ops.values():
            own = {x.name for x in op.inputs}
            changed |= {x.name for x in op.outputs if changed & self._made_of.get(x.name, own)}

        # A weight may have been read, and cast, within the block.
        changed -= {x.name for x in self._inputs}

        def to_copy(tensors):
            return {x.name: x for x in tensors if x.name in changed and x.op.name in ops}

        made = to_copy(self._made)
        chosen, waiting = set(), list(made.values())
        while waiting:
            op = waiting.pop().op
            if op.name not in chosen:
                chosen.add(op.name)
                waiting += to_copy(op.inputs).values()
        graph_def = tf.compat.v1.GraphDef(versions=self._graph.graph_def_versions)
        graph_def.node.extend(op.node_def for name, op in ops.items() if name in chosen)
        for node in graph_def.node:
            node.attr.pop("_class", None)
        read = {x.name: x for name in chosen for x in ops[name].inputs if x.name not in to_copy([x])}
        return graph_def, read, made


def places_of(asked, variables):
    """What `StepWeights.noted` has of these variables: tuples of their places in the list, form and dtype."""
    places = {id(variable): i for i, variable in enumerate(variables)}
    own = [(tuple(map(places.get, names)), *form) for names, *form in dict.fromkeys(asked)]
    return [(part, *form) for part, *form in own if None not in part]
