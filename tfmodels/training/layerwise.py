"""Training layers at different speeds: a rate that falls with depth, and layers that stay as they are."""

import re

import keras

from tfmodels.training._keras_internals import has_weight_decay, variable_index
from tfmodels.training.update import is_bias_or_norm


@keras.saving.register_keras_serializable("tfmodels")
class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW whose learning rate falls from the last block to the embeddings (Clark et al. 2020, ELECTRA,
    section 3.1 and table 6; Howard & Ruder 2018, section 3.2).

    What follows the last block (heads, final norms, a matrix of words out) has the whole rate, and each block
    below `decay` times the rate of the one above it; embeddings have the lowest. Encoder and decoder blocks
    count separately. Weight decay falls with the rate and leaves out biases, norms and what
    `exclude_from_weight_decay` names.

    Args:
        learning_rate: float or schedule, the rate of the last layers.
        decay: float, above 0 and at most 1.
        weight_decay: float, decoupled.
        **kwargs: as `keras.optimizers.AdamW`.

    Example:
        >>> model.compile(tfmodels.training.LayerwiseAdamW(1e-4, decay=0.8))
    """

    def __init__(self, learning_rate=1e-4, decay=0.8, weight_decay=0.01, **kwargs):
        if not 0 < decay <= 1:
            raise ValueError(f"decay must be above 0 and at most 1. Received: {decay!r}.")
        kwargs.setdefault("name", "layerwise_adamw")
        # Keras's own decay knows one rate only; it is done in `update_step`.
        super().__init__(learning_rate, weight_decay=0.0, **kwargs)
        self.decay = decay
        self.decoupled_weight_decay = weight_decay
        self._factors, self._decays = [], []  # of each variable

    def build(self, variables):
        super().build(variables)
        self._factors = rate_factors([variable.path for variable in variables], self.decay)
        self._decays = [has_weight_decay(self, each) and not is_bias_or_norm(each) for each in variables]

    def update_step(self, gradient, variable, learning_rate):
        index = variable_index(self, variable)
        rate = learning_rate * self._factors[index]
        if self.decoupled_weight_decay and self._decays[index]:
            strength = keras.ops.cast(rate * self.decoupled_weight_decay, variable.dtype)
            self.assign_sub(variable, variable * strength)
        super().update_step(gradient, variable, rate)

    def get_config(self):
        config = super().get_config()
        return config | {"decay": self.decay, "weight_decay": self.decoupled_weight_decay}


def rate_factors(paths, decay):
    """The share of the learning rate for each variable, by the blocks in their paths."""
    blocks = [re.search(r"(?:^|/)(\w*?)(?:block|biases)_(\d+)(?:/|$)", path) for path in paths]
    layers = {}
    for found in blocks:
        if found:
            layers[found[1]] = max(layers.get(found[1], 0), int(found[2]) + 1)
    factors = []
    for path, found in zip(paths, blocks, strict=True):
        if found:
            depth = layers[found[1]] - int(found[2])
        else:
            depth = max(layers.values(), default=0) + 1 if _is_first(path) else 0
        factors.append(decay**depth)
    return factors


def _is_first(path):
    """Whether a variable that is in no block stands before the blocks."""
    name = path.split("/")[-1]
    is_output = name.startswith(("reverse_", "output_", "cluster_"))  # words out, beside the words in
    return not is_output and ("embedding" in path or "position" in path)


def freeze(model, pattern):
    """Keeps layers from being trained, by their names. Compile the model afterwards.

    It is saved with the model, and the optimizer of a loaded one has no state for them either.

    Args:
        model: a Keras model.
        pattern: str, a regular expression that is searched in the paths of layers, such as
            "embedding|block_[0-3]$". A layer that is found is frozen with all that is in it.

    Returns:
        List of str, the paths of the frozen layers.

    Raises:
        ValueError: no layer has such a name, or the pattern is none.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern must be a regular expression: {error}. Received: {pattern!r}.") from error
    layers = {layer.path: layer for layer in model._flatten_layers(include_self=False) if layer.weights}
    found = [path for path in layers if compiled.search(path)]
    if not found:
        tops = [path for path in layers if "/" not in path]
        raise ValueError(f"No layer is named so. Received: {pattern!r}. Layers: {', '.join(tops)}.")
    for path in found:
        layers[path].trainable = False
    return found
