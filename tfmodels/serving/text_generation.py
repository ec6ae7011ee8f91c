"""The signatures of models that write text: from strings to strings, to scores, to explicit caches.

Shape letters: b batch, s num_return_sequences, n new tokens, l length, v vocabulary.
"""

import dataclasses

import tensorflow as tf

from tfmodels.generation.config import Options
from tfmodels.generation.generate import detokenize, generate_ids
from tfmodels.generation.products import choose_layout
from tfmodels.generation.prompts import frame_prompts, ids_before_scored, source_ids
from tfmodels.generation.protocol import is_encoder_decoder, prompt_names
from tfmodels.generation.rules import token_rules
from tfmodels.generation.score import token_log_probabilities
from tfmodels.serving.caches import cache_signatures
from tfmodels.serving.numbers import Numbers
from tfmodels.serving.signatures import (
    IDS,
    ROW_IDS,
    TEXT,
    Signature,
    checked,
    checked_ids,
    cut,
    rounded,
    same_rows,
)

# Of prompts where the model has no limit: T5's training length. A text of any length costs any memory.
_DEFAULT_MAX_LENGTH = 512
_TRUNCATED = "whether the text was too long and cut"


class TextGeneration:
    """A model, its tokenizer and a `GenerationConfig` as signatures.

    Args:
        model: keeps the protocol of `GenerativeModel`.
        tokenizer: in graph ops.
        config: a `GenerationConfig`.
        max_length: int, tokens of a prompt that are read; None: as many as the model reads.
        jit_compile: bool, whether XLA compiles the loop of `serving_default`.
    """

    def __init__(self, model, tokenizer, config, max_length=None, jit_compile=False):
        self.model, self.tokenizer, self.config = model, tokenizer, config
        own = model.config.max_sequence_length
        if max_length is not None and not 2 <= max_length <= (own or max_length):
            raise ValueError(
                f"max_length must be at least 2 and at most the model's {own}. Received: {max_length}."
            )
        self.max_length = max_length or own or _DEFAULT_MAX_LENGTH
        self.numbers = Numbers(config, max(own or 2 * _DEFAULT_MAX_LENGTH, config.max_new_tokens))
        self.rules = token_rules(model, tokenizer, config)
        if jit_compile and config.stop_strings:
            raise ValueError(
                "XLA has no strings. Received: jit_compile=True with stop strings, "
                f"{', '.join(map(repr, config.stop_strings))}. Leave out one of them."
            )
        self.jit_compile = jit_compile
        before, after = source_ids(tokenizer)
        self._specials = len(before) + (len(after) if is_encoder_decoder(model) else 0)

    def signatures(self, names=None):
        """Dict of name -> `Signature`, of all or at least of some names."""
        found = {
            "serving_default": self._default(),
            "generate": self._generate(),
            "score": self._score(),
            "logits": self._logits(),
            **text_signatures(self.tokenizer),
        }
        if names is None or {"prefill", "decode"} & set(names):  # to make these the model is traced
            found |= cache_signatures(self.model, self.rules.start_id, self.config.cache_dtype)
        return found

    def _prompts(self, text):
        """The model's inputs for texts, and which of them were cut."""
        ids = self.tokenizer.tokenize(text)
        inputs = frame_prompts(self.model, self.tokenizer, ids, self.max_length)
        return rounded(inputs, self.max_length), ids.row_lengths() > self.max_length - self._specials

    def _ids(self, inputs, options):
        # Servers mostly answer few texts at once, and not all have XLA.
        layout = choose_layout(self.model, 4, self.config.max_new_tokens, compiled=False, here=False)
        # XLA has no op that does it; it writes all of a loop's tensors in place by itself.
        in_place = not self.jit_compile
        return generate_ids(self.model, inputs, options, self.rules, layout=layout, in_place=in_place)

    def _texts(self, result, options):
        ids, lengths = result["token_ids"], result["lengths"]
        return detokenize(self.tokenizer, ids, lengths, self.rules, options.min_new_tokens)

    def _default(self):
        options = Options(self.config, self.config.numbers())

        def loop(inputs):
            return self._ids(inputs, options)

        if self.jit_compile:
            compiled = tf.function(loop, jit_compile=True, autograph=False)

        def serve(text):
            inputs, _ = self._prompts(text)
            result = compiled(self._bucketed(inputs)) if self.jit_compile else loop(inputs)
            texts = self._texts(result, self.config)
            copies = self.config.num_return_sequences
            return {"text": texts if copies == 1 else tf.reshape(texts, (-1, copies))}

        about = "Text to text, by the config of the export."
        return Signature(serve, {"text": TEXT}, about, {"text": "the new text of each"})

    def _bucketed(self, inputs):
        """Inputs padded to the next power of two: XLA compiles once a shape."""
        length = tf.shape(inputs[prompt_names(self.model)[0]])[1]
        powers = tf.constant([2**i for i in range(self.max_length.bit_length() + 1)])
        width = tf.reduce_min(tf.where(powers >= length, powers, self.max_length))
        width = tf.maximum(width, length)
        return {name: tf.pad(x, ((0, 0), (0, width - length))) for name, x in inputs.items()}

    def _generate(self):
        config = dataclasses.replace(self.config, return_scores=True)
        numbers = Numbers(config, self.numbers.most_new_tokens)

        def generate(text, **tensors):
            options = numbers.options(tensors, tf.size(text))
            inputs, truncated = self._prompts(text)
            result = self._ids(inputs, options)
            texts = self._texts(result, options)
            longest = tf.reduce_max(tf.concat([result["lengths"], [1]], 0))
            flat = {
                "text": texts,
                "token_ids": result["token_ids"][:, :longest],
                "lengths": result["lengths"],
                "end_reason": tf.where(result["stopped"], "stop", "length"),
                "log_probabilities": result["log_probabilities"][:, :longest],
                "score": tf.reduce_sum(result["log_probabilities"], axis=1),
            }
            rows, copies = tf.size(text), config.num_return_sequences
            outputs = {
                name: tf.reshape(x, tf.concat([[rows, copies], tf.shape(x)[1:]], 0))
                for name, x in flat.items()
            }
            return outputs | {"truncated": truncated}

        return Signature(
            generate,
            {"text": TEXT} | numbers.inputs,
            "Text to texts with scores; each row of the batch by its own numbers.",
            {
                "text": "new texts, (batch, num_return_sequences), best first in beam search",
                "token_ids": "new tokens, (batch, num_return_sequences, length), 0 after each row's lengths",
                "lengths": "how many tokens are new",
                "end_reason": "stop: a stop token; length: the limit of length",
                "log_probabilities": "of each new token, by the model alone",
                "score": "their sum",
                "truncated": _TRUNCATED,
            },
            numbers.defaults,
            numbers.ranges,
        )

    def _score(self):
        """As `tfmodels.score`, but a text that is too long is cut, not read through a window."""
        ids_name, (mask_name, _) = list(self.model.input_pairs.items())[-1]
        if is_encoder_decoder(self.model):
            before, after = source_ids(self.tokenizer)
            before = [self.rules.start_id, *before]
        else:
            before, after = ids_before_scored(self.tokenizer), []
        room = self.max_length - len(before) - len(after)

        def score(**texts):
            source = same_rows(**texts)
            text = source.pop("text")
            ids, truncated = cut(self.tokenizer.tokenize(text), room)
            inputs = {}
            if source:
                inputs, source_truncated = self._prompts(source["source"])
                truncated |= source_truncated
            column = tf.ones((ids.nrows(), 1), tf.int32)
            ids = tf.concat([*(column * i for i in before), ids, *(column * i for i in after)], 1)
            token_ids = ids.to_tensor()
            inputs |= rounded(
                {ids_name: token_ids, mask_name: tf.ones_like(ids).to_tensor()}, self.max_length
            )
            values = token_log_probabilities(self.model, inputs)
            return {
                "token_ids": token_ids[:, len(before) :],
                "log_probabilities": values[:, len(before) : tf.shape(token_ids)[1]],
                "lengths": tf.cast(ids.row_lengths(), tf.int32) - len(before),
                "score": tf.reduce_sum(values, axis=1),
                "truncated": truncated,
            }

        inputs = {"text": TEXT, "source": TEXT} if is_encoder_decoder(self.model) else {"text": TEXT}
        return Signature(
            score,
            inputs,
            "How probable the text is" + (", given its source." if len(inputs) > 1 else "."),
            {
                "token_ids": "tokens, (batch, length), padding after each row's lengths",
                "log_probabilities": "of each token given those before it",
                "lengths": "how many tokens are scored",
                "score": "the sum of the log-probabilities",
                "truncated": _TRUNCATED,
            },
        )

    def _logits(self):
        names = [name for ids, (mask, _) in self.model.input_pairs.items() for name in (ids, mask)]

        def logits(**inputs):
            checked_inputs = rounded(checked_ids(inputs, self.model), self.max_length)
            outputs = self.model(checked_inputs, training=False)
            return {"logits": tf.cast(outputs[:, : tf.shape(inputs[names[-1]])[1]], tf.float32)}

        about = "Ids to logits; masks are 1 for real tokens and 0 for padding."
        inputs = {name: IDS for name in names}
        return Signature(logits, inputs, about, {"logits": "(batch, length, vocabulary_size)"})


def text_signatures(tokenizer):
    """`tokenize` and `detokenize`, without special tokens around the text."""

    def tokenize(text):
        ids = tokenizer.tokenize(text)
        return {"token_ids": ids.to_tensor(), "lengths": tf.cast(ids.row_lengths(), tf.int32)}

    def back(token_ids, lengths):
        token_ids, lengths = same_rows(token_ids=token_ids, lengths=lengths).values()
        fine = (lengths >= 0) & (lengths <= tf.shape(token_ids)[1])
        lengths = checked(lengths, (fine, "lengths must be from 0 to the width of token_ids.", lengths))
        return {"text": tokenizer.detokenize(tf.RaggedTensor.from_tensor(token_ids, lengths=lengths))}

    return {
        "tokenize": Signature(
            tokenize,
            {"text": TEXT},
            "Text to ids, without special tokens around it.",
            {"token_ids": "(batch, length), 0 after each row's lengths", "lengths": "ids of each row"},
        ),
        "detokenize": Signature(
            back,
            {"token_ids": IDS, "lengths": ROW_IDS},
            "Ids to text; special tokens vanish.",
            {"text": "valid UTF-8"},
        ),
    }
