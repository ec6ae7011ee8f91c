"""A text moved one token to the right. Shape letters: b batch, l length."""

import keras
from keras import ops

from tfmodels.layers.masks import as_numbers


@keras.saving.register_keras_serializable("tfmodels")
class ShiftRight(keras.layers.Layer):
    """Moves each sequence one token to the right behind a start token; its last token falls out.

    Args:
        start_id: int, the token before each sequence.

    Call arguments:
        inputs: int tensor, (batch, length), ids.
        padding_mask: int tensor, (batch, length), 0 = padding, k >= 1 = the k-th sequence packed in
            the row.

    Returns:
        Int tensor, (batch, length).

    Example:
        >>> ShiftRight(9)(keras.ops.array([[5, 6, 7, 0]]), padding_mask=[[1, 1, 1, 0]])[0, :3].numpy()
        array([9, 5, 6], dtype=int32)
    """

    def __init__(self, start_id, **kwargs):
        super().__init__(**kwargs)
        self.start_id = start_id

    def call(self, inputs, padding_mask):
        ids, mask = ops.convert_to_tensor(inputs), as_numbers(padding_mask)
        before = ops.pad(ids[:, :-1], ((0, 0), (1, 0)))  # (b, l)
        # A token starts a sequence where the token before it is of another one, or padding.
        same = ops.pad(mask[:, :-1], ((0, 0), (1, 0))) == mask
        return ops.where(same, before, ops.cast(self.start_id, ids.dtype))

    def compute_output_spec(self, inputs, padding_mask):
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def get_config(self):
        return super().get_config() | {"start_id": self.start_id}
