"""Equal blocks of a step as copies of the first one's ops.

To call a block of Keras layers takes several times as long as to copy the ops that it adds to a graph; and
what all blocks have in common, such as sizes and constants, is not made again for each.
"""

import tensorflow as tf

from tfmodels.generation.shared_blocks import kind_of, places_of


class CopiedBlocks:
    """Calls the first of equal blocks, and for the others copies its ops (`layers.steps.Step.share`).

    They stay ops of the step, which a call of a function for each block would slow. For graphs only.

    Args:
        weights: `StepWeights`, from which the blocks read.
        made: dict, the step's `layers.steps.Step.made`.
    """

    def __init__(self, weights, made):
        self._weights = weights
        self._made = made
        self._called = {}  # of each kind of block the first

    def __call__(self, block, call, tensors, key):
        """What `call(*tensors)` returns."""
        leaves = tf.nest.flatten(tensors)
        kind = kind_of(block, leaves, key, self._weights)
        if kind not in self._called:
            self._called[kind] = _Called(self._weights, self._made, block, call, tensors)
            return self._called[kind].results
        results = self._called[kind].copied(block, leaves)
        return call(*tensors) if results is None else results


class _Called:
    """A block that has been called, and the ops that it has added to the graph.

    Attributes:
        results: of its call.
    """

    def __init__(self, weights, made, block, call, tensors):
        self._weights, self._graph = weights, tf.compat.v1.get_default_graph()
        start, known = len(self._graph.get_operations()), set(made)
        with weights.noted() as asked:
            self.results = call(*tensors)
        self._asked = places_of(asked, block.variables)
        self._leaves = tf.nest.flatten(tensors)
        self._inputs = self._inputs_of(block, self._leaves)
        # A placeholder stands for what is captured from outside, a weight or what does not change.
        self._ops = [op for op in self._graph.get_operations()[start:] if op.type != "Placeholder"]
        self._once = [made[name] for name in made if name not in known]
        self._copies = {}

    def _inputs_of(self, block, leaves):
        """The tensors of the graph that a block reads: its arguments, then its weights."""
        variables = block.variables
        weights = [
            self._weights.get(tuple(variables[i] for i in places), *form) for places, *form in self._asked
        ]
        return [self._graph.capture(x) for x in (*leaves, *weights)]

    def copied(self, block, leaves):
        """The results of an equal block, or None if it must be called."""
        stands = {}  # name of a tensor of this block -> what takes its place
        for own, new in zip(self._inputs, self._inputs_of(block, leaves), strict=True):
            if stands.setdefault(own.name, new) is not new:
                return None
        changed = frozenset(name for name, new in stands.items() if new.name != name)
        if changed not in self._copies:
            self._copies[changed] = self._part(changed)
        if self._copies[changed] is None:
            return None
        graph_def, inputs, outputs = self._copies[changed]
        inputs = {name: stands.get(name, x) for name, x in inputs.items()}
        copies = tf.graph_util.import_graph_def(graph_def, inputs, list(outputs), name="block")
        for (name, own), copy in zip(outputs.items(), copies, strict=True):
            copy.set_shape(own.shape)
            stands[name] = copy
        # What is handed through stays the tensor that it is, also one from outside the graph.
        given = {id(own): new for own, new in zip(self._leaves, leaves, strict=True)}
        return tf.nest.map_structure(lambda x: given.get(id(x), stands.get(x.name, x)), self.results)

    def _part(self, changed):
        """The ops that make other results of other tensors.

        Args:
            changed: set of the names of these tensors.

        Returns:
            A GraphDef, and dicts of name -> tensor, of what it reads and of its results. None if an op
            does more than to make a result of its inputs.
        """
        if any(op.op_def.is_stateful or op.control_inputs for op in self._ops):
            return None
        changed = set(changed)
        # `layers.steps.once` says of what these are made, although they may be made of any block's tensors.
        made_of = {
            x.name: {part.name for part in key if tf.is_tensor(part)}
            for results, key in self._once
            for x in tf.nest.flatten(results)
            if tf.is_tensor(x)
        }
        for op in self._ops:
            own = {x.name for x in op.inputs}
            changed |= {x.name for x in op.outputs if changed & made_of.get(x.name, own)}
        ops = {op.name: op for op in self._ops}
        outputs = {x.name: x for x in tf.nest.flatten(self.results) if x.name in changed and x.op.name in ops}
        chosen, waiting = set(), [x.op.name for x in outputs.values()]
        while waiting:
            name = waiting.pop()
            if name not in chosen:
                chosen.add(name)
                waiting += [x.op.name for x in ops[name].inputs if x.name in changed and x.op.name in ops]
        graph_def = tf.compat.v1.GraphDef(versions=self._graph.graph_def_versions)
        graph_def.node.extend(op.node_def for op in self._ops if op.name in chosen)
        for node in graph_def.node:
            node.attr.pop("_class", None)
        read = [x for name in chosen for x in ops[name].inputs if x.op.name not in chosen]
        return graph_def, {x.name: x for x in read}, outputs
