"""Encoder-decoders, or their encoders, that read one text and write none: backbones of heads.

Shape letters: b batch, l length, d hidden_dim.
"""

import keras

from tfmodels.layers import ShiftRight
from tfmodels.models.bart import BartStacks
from tfmodels.models.base import TransformerModel, token_input
from tfmodels.models.t5 import T5Stacks


class OneTextModel(TransformerModel):
    """Base of the readers on both sides (Lewis et al. 2020, section 3.1).

    The encoder reads the text, and the decoder the same text behind `start_id`: its output at the
    last token, the end token as a rule, sums the whole text up. A
    subclass has `make_stacks`, `encode` and `decode`, and names its vocabulary in `input_pairs`.
    """

    def __init__(self, config, dtype=None, **kwargs):
        if config.start_id is None:
            raise ValueError(f"{type(self).__name__} needs a start_id. Received: start_id=None.")
        self.config = config
        dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        self.make_stacks(config, dtype)
        self.shift = ShiftRight(config.start_id, dtype=dtype, name="shift")
        inputs = {name: token_input(name) for name in ("token_ids", "padding_mask")}
        super().__init__(inputs=inputs, outputs={"sequence_output": self.final_hidden(inputs)}, **kwargs)
        self.dtype_policy = dtype  # a functional model does not take it as an argument

    def final_hidden(self, x, training=None):
        inputs = self.complete_inputs(x)
        ids, mask = inputs["token_ids"], inputs["padding_mask"]
        both = {
            "encoder_token_ids": ids,
            "encoder_padding_mask": mask,
            "decoder_token_ids": self.shift(ids, padding_mask=mask),
            "decoder_padding_mask": mask,
        }
        return self.decode(both, self.encode(both, training), training=training)[0]  # (b, l, d)

    def task_loss(self, x, y, sample_weight, training):
        raise ValueError(
            "A bare reader has no task to train on. Received: compile without loss=. Put a head "
            "on, or pass loss=."
        )


@keras.saving.register_keras_serializable("tfmodels")
class BartReader(BartStacks, OneTextModel):
    """BART as a backbone of heads: one text through the encoder and the decoder, vectors out.

    Args:
        config: a `BartConfig`.
        **kwargs: `name`, `trainable`, `dtype` of the Keras model.

    Call arguments:
        inputs: dict of `token_ids`, int tensor, (batch, length), and, unless all are real,
            `padding_mask`, int tensor, (batch, length), 0 = padding, k >= 1 = the k-th sequence
            packed in the row.

    Returns:
        Dict of `sequence_output`, (batch, length, hidden_dim).

    Raises:
        ValueError: the config has no `start_id`.

    Example:
        >>> model = SequenceClassifier(BartReader(BartConfig(num_layers=2)))
        >>> model({"token_ids": [[0, 5, 9, 2]]}).shape
        TensorShape([1, 2])
    """

    input_pairs = {"token_ids": ("padding_mask", "source_vocabulary_size")}


@keras.saving.register_keras_serializable("tfmodels")
class T5Reader(T5Stacks, OneTextModel):
    """T5 as a backbone of heads: one text through the encoder and the decoder, vectors out.

    Args:
        config: a `T5Config`.
        **kwargs: `name`, `trainable`, `dtype` of the Keras model.

    Call arguments:
        inputs: as of a `BartReader`.

    Returns:
        Dict of `sequence_output`, (batch, length, hidden_dim).

    Raises:
        ValueError: the config has no `start_id`.

    Example:
        >>> model = SequenceClassifier(T5Reader(T5Config(num_layers=2)))
        >>> model({"token_ids": [[5, 9, 1]]}).shape
        TensorShape([1, 2])
    """

    input_pairs = {"token_ids": ("padding_mask", "vocabulary_size")}


@keras.saving.register_keras_serializable("tfmodels")
class T5Encoder(T5Stacks, TransformerModel):
    """The encoder of a T5 alone: ids in, vectors out.

    Args:
        config: a `T5Config`; what it says of the decoder is kept and not used.
        **kwargs: `name`, `trainable`, `dtype` of the Keras model.

    Call arguments:
        inputs: dict of `token_ids`, int tensor, (batch, length), and, unless all are real,
            `padding_mask`, int tensor, (batch, length), 0 = padding, k >= 1 = the k-th sequence
            packed in the row.

    Returns:
        Dict of `sequence_output`, (batch, length, hidden_dim).

    Example:
        >>> model = T5Encoder(T5Config(num_layers=2))
        >>> model({"token_ids": [[5, 2, 9]]})["sequence_output"].shape
        TensorShape([1, 3, 512])
    """

    input_pairs = {"token_ids": ("padding_mask", "vocabulary_size")}

    def __init__(self, config, dtype=None, **kwargs):
        self.config = config
        dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        self.make_encoder(config, dtype)
        inputs = {name: token_input(name) for name in ("token_ids", "padding_mask")}
        super().__init__(inputs=inputs, outputs={"sequence_output": self.final_hidden(inputs)}, **kwargs)
        self.dtype_policy = dtype  # a functional model does not take it as an argument

    def final_hidden(self, x, training=None):
        inputs = self.complete_inputs(x)
        sources = {f"encoder_{name}": value for name, value in inputs.items()}
        return self.encode(sources, training=training)  # (b, l, d)

    def task_loss(self, x, y, sample_weight, training):
        raise ValueError(
            "A bare encoder has no task to train on. Received: compile without loss=. Put a head "
            "on, or pass loss=."
        )
