"""What models of an encoder and a decoder share: their inputs and the protocol of generation.

Shape letters: b batch, t target length, d hidden_dim, v target vocabulary.
"""

from keras import ops

from tfmodels.models.base import TransformerModel, token_input


class EncoderDecoderModel(TransformerModel):
    """Base of the encoder-decoders.

    A subclass has `encode(inputs, training)`, the encoder's output; `decode(inputs,
    encoder_output, cache, index, training)`, the decoder's one forward pass: hidden states
    (b, t, d) and the blocks' new caches; `logits(hidden)`; and `decoder_blocks`.
    """

    reads_places = True
    input_pairs = {
        "encoder_token_ids": ("encoder_padding_mask", "source_vocabulary_size"),
        "decoder_token_ids": ("decoder_padding_mask", "target_vocabulary_size"),
    }

    def symbolic_inputs(self):
        """Keras inputs of each pair of ids and mask."""
        names = [name for ids, (mask, _) in self.input_pairs.items() for name in (ids, mask)]
        return {name: token_input(name) for name in names}

    def final_hidden(self, x, training=None):
        inputs = self.complete_inputs(x)
        return self.decode(inputs, self.encode(inputs, training), training=training)[0]

    def init_cache(self, inputs, max_length, dtype=None):
        """Encodes the source: its keys, values and mask, and empty decoder caches, batch on axis 0.

        Args:
            inputs: dict of `encoder_token_ids`, int tensor, (batch, source_length), and, unless all
                are real, `encoder_padding_mask`.
            max_length: int, decoder tokens the cache has room for.
            dtype: str, of the keys and values: a float type, or "int8" with a scale for each position and
                head; None: what the layers compute in.

        Returns:
            The cache for `decode_step`.
        """
        inputs = self.complete_inputs(inputs)
        encoder_output = self.encode(inputs)
        batch = ops.shape(encoder_output)[0]
        return {
            "blocks": [
                block.init_cache(batch, max_length, encoder_output, dtype) for block in self.decoder_blocks
            ],
            "encoder_padding_mask": inputs["encoder_padding_mask"],
        }

    def decode_step(self, token_ids, cache, index, return_hidden=False):
        """Logits of new target tokens, given those in the cache.

        Args:
            token_ids: int tensor, (batch, length).
            cache: what `init_cache` or the last step returned.
            index: int tensor, (batch,) or a scalar: where in each row the new tokens begin; or their
                positions, (batch, length).
            return_hidden: bool, whether to return the hidden states too.

        Returns:
            A tuple of logits, (batch, length, target_vocabulary_size), and the new cache; with
            `return_hidden` followed by the hidden states that the logits are made of, (batch, length,
            hidden_dim).
        """
        inputs = {
            "decoder_token_ids": token_ids,
            "encoder_padding_mask": cache["encoder_padding_mask"],
        }
        hidden, blocks = self.decode(inputs, None, cache=cache["blocks"], index=index)
        results = self.logits(hidden), cache | {"blocks": blocks}
        return (*results, hidden) if return_hidden else results
