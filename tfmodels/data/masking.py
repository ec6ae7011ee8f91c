"""Words hidden anew each epoch (Devlin et al. 2019, section 3.1), from seeds without a state."""

import numpy as np

from tfmodels.data.examples import Examples, Field

# Of the chosen tokens, section 3.1: 80% become the mask, 10% a random word, 10% stay.
_MASKED, _RANDOM = 0.8, 0.9
_UNIT = "unit"


class MaskedExamples(Examples):
    """Examples whose `x/token_ids` have words hidden, with the words themselves as targets.

    What is hidden follows from seed, epoch and the example's number alone.

    Args:
        examples: an `Examples` with a part "unit", int32 along the tokens: those of one number are hidden
            together, those of -1, the special tokens, never.
        target: the name of the targets, "y" or "y/...".
        rate: float, the share of units that are chosen, each drawn on its own.
        mask_id: int.
        vocabulary_size: int, of which random words are drawn.
        seed: int.
    """

    def __init__(self, examples, target, rate, mask_id, vocabulary_size, seed):
        if not 0 < rate < 1:
            raise ValueError(f"mask_rate must be above 0 and below 1. Received: {rate}.")
        super().__init__(examples.fields, examples._values, examples._begins, examples.lengths)
        unit = self.fields.pop(_UNIT)
        self.fields[target] = Field(unit.axis, pad=self.fields["x/token_ids"].pad)
        self._target, self._weight = target, target.replace("y", "sample_weight", 1)
        self.fields[self._weight] = Field(unit.axis, "float32")
        self._axis = unit.axis
        self._rate, self._mask_id, self._vocabulary_size, self._seed = rate, mask_id, vocabulary_size, seed

    def fetch(self, numbers, epoch=0):
        fetched = self._stored(numbers)
        unit, ids = fetched.pop(_UNIT), fetched["x/token_ids"]
        lengths = self.lengths[self._axis][numbers]
        example = np.repeat(numbers, lengths)
        place = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)

        def draw(kind, item):
            return uniform(self._seed, epoch, kind, example, item)

        chosen = (unit >= 0) & (draw(0, unit) < self._rate)
        action = draw(1, place)
        words = (draw(2, place) * self._vocabulary_size).astype(np.int32)
        hidden = np.where(action < _MASKED, self._mask_id, np.where(action < _RANDOM, words, ids))
        fetched["x/token_ids"] = np.where(chosen, hidden, ids)
        fetched[self._target], fetched[self._weight] = ids, chosen
        return fetched


def uniform(*keys):
    """Numbers in [0, 1) that follow from their keys alone: SplitMix64 (Steele et al. 2014), a key a round.

    Args:
        *keys: ints or int arrays that broadcast.

    Returns:
        float64 array.
    """
    state = np.zeros(1, np.uint64)
    for key in keys:
        state = state ^ np.asarray(key).astype(np.int64).view(np.uint64)
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)) * 2.0**-53
