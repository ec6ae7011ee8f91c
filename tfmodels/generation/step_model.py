"""A model as a loop runs it, token by token."""

import contextlib

import tensorflow as tf

from tfmodels.generation import products
from tfmodels.generation.products import (
    APART,
    BLOCKS,
    COMPILED,
    COMPILED_AS_STORED,
    COMPILED_ROWS,
    OWN,
    WIDE,
)
from tfmodels.generation.shared_blocks import CopiedBlocks, SharedBlocks, is_as_its_config_says, is_known
from tfmodels.generation.step_weights import StepWeights

# So many tokens of a row are a step of a loop and no prompt.
_STEP_TOKENS = 8
# The lengths of a cache: few, since kernels are made ready for each size anew, and XLA compiles for each.
_ROUND = 16
_COMPILED_PROMPTS = [4**i for i in range(3, 15)]
_COMPILED_LENGTHS = [128, 256, 512, *(part * 2**i for i in range(9, 29) for part in (2, 3))]


class StepModel:
    """A model whose weights are made ready once, before the loop that reads them at every step.

    A mixed policy casts its weights wherever it reads them, which takes longer than a step itself.

    Args:
        model: keeps the protocol of `GenerativeModel`, as this does.
        layout: how products are made: "own", "turned" and so on (`generation.products`).
        ready: what `ready` of another such model of the same model returned, by steps of which it was
            made, to be read again; None: all is made here.
        in_place: bool, whether caches may be written in their own memory: as no op of XLA, and on a CPU.
    """

    def __init__(self, model, layout=OWN, ready=None, in_place=False):
        self._model = model
        self._layout = layout
        self._on_xla = layout in (COMPILED, COMPILED_AS_STORED, COMPILED_ROWS)
        self._in_place = in_place and not products.has_gpu()
        self._weights = StepWeights(model, ready)
        self._times = products.times
        if self._on_xla:  # a product outside a block is a program of its own
            self._times = tf.function(products.times, autograph=False, jit_compile=True)

    def ready(self):
        """The weights that the steps so far have read: dict of str -> tensor."""
        return dict(self._weights.ready)

    @property
    def reads_places(self):
        """Whether several texts of a row can share its cache, by `tree` of `decode_step`."""
        # What a user's class or layer makes of an index and a cache, nobody knows.
        if not (getattr(self._model, "reads_places", False) and is_known(type(self._model))):
            return False
        return all(is_as_its_config_says(layer) for layer in self._model._flatten_layers(include_self=False))

    def __getattr__(self, name):
        return getattr(self._model, name)

    def init_cache(self, inputs, max_length, dtype=None):
        """As the model's."""
        with self._stepping():
            return self._model.init_cache(inputs, max_length, dtype)

    def decode_step(self, token_ids, cache, index, until=None, tree=None, **options):
        """As the model's.

        Args:
            until: int tensor, (batch,): what is written has not been written to this cache before, and
                what stands in a row from here on is not written; None: anything may be written.
            tree: dict of `places`, `seen` and `positions` of `layers.steps.Step`, by which several texts
                of a row share the cache, each with a token of this step; None: a row is one text.
        """
        length = token_ids.shape[1]
        until = until if self._in_place else None
        if self._on_xla and (length == 1 or tree):
            return self._compiled_step(token_ids, cache, index, until, tree or {}, options)
        is_step = tree or (length is not None and length <= _STEP_TOKENS)
        if is_step:
            weights, blocks = self._weights, CopiedBlocks
            multiply = None if self._layout == OWN or self._on_xla else self._multiply
        else:
            weights, blocks, multiply = self._weights.as_stored(), SharedBlocks, None
        share = self._shared(blocks, weights)
        with weights, self._stepping(until=until, multiply=multiply, **share, **(tree or {})):
            return self._model.decode_step(token_ids, cache, index, **options)

    def room(self, length, more=None):
        """The length of a cache, int32 scalar.

        Args:
            length: int scalar, so many tokens.
            more: int scalar, so many besides, as many for all prompts; of a cache that several texts share.
        """
        if self._on_xla:
            sizes = tf.constant(_COMPILED_LENGTHS if more is None else _COMPILED_PROMPTS)
            length = tf.reduce_min(tf.where(sizes >= length, sizes, sizes[-1]))
        length = length if more is None else length + more
        return (length + _ROUND - 1) // _ROUND * _ROUND

    def _compiled_step(self, token_ids, cache, index, until, tree, options):
        """A step with blocks that XLA compiles, which read their caches: they would copy them to write them.

        One program for all equal blocks, and not one for the whole step, takes a fraction of its time to
        compile, and hardly longer to run.
        """
        later, share = [], self._shared(SharedBlocks, self._weights, compiled=True)
        with self._weights, self._stepping(multiply=self._multiply, later=later, **share, **tree):
            logits, cache, *hidden = self._model.decode_step(token_ids, cache, index, **options)
        # What an XLA program returns has no rank for TensorFlow's optimisers, which say so on standard error.
        logits = tf.ensure_shape(logits, logits.shape)
        new = {id(before[name]): x for before, update, _ in later for name, x in update.items()}
        places = tree.get("places", tf.reshape(index, (-1, 1)))

        def written(leaf):
            return self._model.put_in_cache(leaf, new[id(leaf)], places) if id(leaf) in new else leaf

        with self._model.stepping(until=until):
            return logits, tf.nest.map_structure(written, cache), *hidden

    def _stepping(self, **options):
        """The model's `stepping`, if it has it."""
        has_it = hasattr(self._model, "stepping")
        return self._model.stepping(**options) if has_it else contextlib.nullcontext()

    def _shared(self, blocks, weights, **options):
        """The options of `_stepping` by which equal blocks of a graph are shared."""
        made = {}
        return {"made": made, "share": blocks(weights, made, **options) if tf.inside_function() else None}

    def _multiply(self, x, matrices, turned):
        """`layers.steps.Step.multiply`."""
        stands, dtype, stored = True, x.dtype, matrices[0].dtype
        if self._layout == COMPILED_ROWS:  # for XLA too a turned matrix takes twice as long
            stands = False
        elif self._layout in (APART, COMPILED_AS_STORED):
            stands = turned
        elif self._layout == COMPILED and stored == "int8":  # XLA reads it as it multiplies one row
            dtype = "int8"
        form = tf.transpose if turned != stands else None
        if self._layout == BLOCKS:
            form = products.turned_in_blocks if turned else products.in_blocks
        elif self._layout == WIDE:
            form = products.turned_and_widened if turned else products.widened

        def times(*matrices):
            return self._times(x, self._weights.get(matrices, form, dtype), stands, self._layout)

        if self._layout in (APART, COMPILED_AS_STORED, COMPILED_ROWS):  # side by side they would be copies
            return [times(matrix) for matrix in matrices]
        product, sizes = times(*matrices), [matrix.shape[0 if turned else 1] for matrix in matrices]
        if filled := product.shape[-1] - sum(sizes):  # of the last block
            sizes.append(filled)
        return [product] if len(sizes) == 1 else tf.split(product, sizes, axis=-1)[: len(matrices)]
