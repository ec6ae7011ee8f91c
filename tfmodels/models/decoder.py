"""What decoders share: the cache protocol, once. Shape letters: d hidden_dim, v vocabulary_size."""

from keras import ops

from tfmodels.models.base import TransformerModel


class DecoderModel(TransformerModel):
    """Base of the decoders: a subclass has `token_embedding`, `blocks` and `forward`."""

    reads_places = True

    def final_hidden(self, x, training=None):
        return self.forward(self.complete_inputs(x), training=training)[0]

    def output_kernel(self):
        return self.token_embedding.output_kernel()  # (v, d)

    def init_cache(self, inputs, max_length, dtype=None):
        """An empty cache for `decode_step`: a list with an entry a block, batch on axis 0.

        Args:
            inputs: dict of `token_ids`, int tensor, (batch, length).
            max_length: int, tokens the cache has room for.
            dtype: str, of the keys and values: a float type, or "int8" with a scale for each position and
                head; None: what the layers compute in.
        """
        batch = ops.shape(inputs["token_ids"])[0]
        return [block.init_cache(batch, max_length, dtype=dtype) for block in self.blocks]

    def decode_step(self, token_ids, cache, index, return_hidden=False):
        """Logits of new tokens, given the tokens in the cache.

        Args:
            token_ids: int tensor, (batch, length).
            cache: what `init_cache` or the last step returned.
            index: int tensor, (batch,) or a scalar: where in each row the new tokens begin; or their
                positions, (batch, length).
            return_hidden: bool, whether to return the hidden states too.

        Returns:
            A tuple of logits, (batch, length, vocabulary_size), and the new cache; with
            `return_hidden` followed by the hidden states that the logits are made of, (batch, length,
            hidden_dim).
        """
        hidden, cache = self.forward({"token_ids": token_ids}, cache=cache, index=index)
        results = self.token_embedding(hidden, reverse=True), cache
        return (*results, hidden) if return_hidden else results
