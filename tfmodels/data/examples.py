"""A data set's examples, by number: what the tasks make and a `Reader` reads.

Letters: n examples, t tokens.
"""

import dataclasses

import numpy as np

from tfmodels.data.ragged import positions


@dataclasses.dataclass(frozen=True)
class Field:
    """What one part of x, y or sample_weight is like.

    Attributes:
        axis: the padding mask of the tokens that the part runs along, such as "padding_mask"; None: one
            value an example.
        dtype: NumPy's name of the dtype.
        shape: tuple of int, the shape of an example's value where axis is None.
        pad: what stands where there is no token.
    """

    axis: str | None
    dtype: str = "int32"
    shape: tuple = ()
    pad: int = 0


class Examples:
    """Examples in memory, any of them at once by their numbers.

    A part is named by its place: "x/token_ids", "y", "y/start", "sample_weight". Padding masks are not
    stored, nor are weights that are all 1: `Reader` makes them.

    Args:
        fields: dict of name to `Field`.
        values: dict of name to an array: (total tokens,) along an axis, else (examples, ...).
        begins: dict of axis to an int array, (examples,): where each example begins in the values.
        lengths: dict of axis to an int array, (examples,): its tokens.
        context: int array, (examples,), tokens at an example's beginning whose targets weigh nothing; None:
            all weigh 1, or what "sample_weight" says.
        left_out: int, examples that were too long and are not among these.

    Attributes:
        labels: list of the classes' names, of tasks that have them; the place in it is the id.
    """

    labels = None

    def __init__(self, fields, values, begins, lengths, context=None, left_out=0):
        self.fields = dict(fields)
        if context is not None:
            self.fields["sample_weight"] = Field(fields["y"].axis, "float32")
        self.lengths = lengths
        self.left_out = left_out
        self._values = values
        self._axis_of = {name: fields[name].axis for name in values}
        self._begins = begins
        self._context = context

    @classmethod
    def from_ragged(cls, parts, pad=None, left_out=0, **dense):
        """From rows that are stored end to end.

        Args:
            parts: dict of axis to dict of name to `Ragged`, all of an axis cut alike.
            pad: dict of name to the id that pads it.
            left_out: int, as the class has it.
            **dense: `y=array`, one value an example.
        """
        fields, values, begins, lengths = {}, {}, {}, {}
        for axis, columns in parts.items():
            for name, ragged in columns.items():
                dtype = "float32" if name.startswith("sample_weight") else ragged.values.dtype.name
                fields[name] = Field(axis, dtype, pad=(pad or {}).get(name, 0))
                values[name] = ragged.values
                begins[axis], lengths[axis] = ragged.begins, ragged.lengths
        for name, array in dense.items():
            fields[name] = Field(None, array.dtype.name, array.shape[1:])
            values[name] = array
        return cls(fields, values, begins, lengths, left_out=left_out)

    def __len__(self):
        return len(next(iter(self.lengths.values())))

    @property
    def axes(self):
        """Names of the padding masks."""
        return list(self.lengths)

    def fetch(self, numbers, epoch=0):
        """Values of some examples.

        Args:
            numbers: int array, (n,).
            epoch: int, for values that are drawn anew each epoch.

        Returns:
            Dict of name to an array: (tokens of all n,) along an axis, else (n, ...).
        """
        return self._stored(numbers)

    def _stored(self, numbers):
        at = {axis: positions(self._begins[axis][numbers], self.lengths[axis][numbers]) for axis in self.axes}
        fetched = {}
        for name, values in self._values.items():
            axis = self._axis_of[name]
            fetched[name] = values[numbers if axis is None else at[axis]]
        if self._context is not None:
            lengths = self.lengths[self.fields["y"].axis][numbers]
            inside = positions(np.zeros_like(lengths), lengths)
            fetched["sample_weight"] = inside >= np.repeat(self._context[numbers], lengths)
        return fetched

    def __iter__(self):
        """(x, y, sample_weight) of each example, unpadded, as NumPy arrays."""
        from tfmodels.data.assembly import assemble, nested

        for i in range(len(self)):
            yield nested(assemble(self, np.array([i]), np.zeros(1, np.int64), rows=1), row=0)
