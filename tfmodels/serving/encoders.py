"""The signatures of models with a head: text to labels, spans, entities, choices or vectors.

Shape letters: b batch, l length, n labels, c choices, e entities, d hidden_dim.
"""

import tensorflow as tf

from tfmodels.serving.entities import Entities
from tfmodels.serving.signatures import TEXT, Signature, checked_ids, rounded, same_rows
from tfmodels.serving.spans import Spans
from tfmodels.serving.text_generation import text_signatures

_TRUNCATED = "whether the text was too long and cut"
_DEFAULT_MAX_LENGTH = 512  # BERT's


def head_signatures(model, tokenizer, max_length=None):
    """Signatures of a model by what its head answers: its `answers`.

    Returns:
        Dict of name -> `Signature`, and the tokens of a row that are read.
    """
    kind = getattr(model, "answers", None)
    if kind not in _KINDS:
        raise ValueError(
            f"An export needs a model that writes text, or a head out of {', '.join(_KINDS)}. Received: "
            f"{type(model).__name__}. Put a head on it, such as SentenceEmbedder for vectors."
        )
    own = getattr(model.backbone.config, "max_sequence_length", None)
    if max_length is not None and not 4 <= max_length <= (own or max_length):
        raise ValueError(
            f"max_length must be at least 4 and at most the model's {own}. Received: {max_length}."
        )
    head = Head(model, tokenizer, max_length or own or _DEFAULT_MAX_LENGTH)
    return {**_KINDS[kind](head), **text_signatures(tokenizer)}, head.max_length


class Head:
    """A model with a head, its tokenizer, and what the kinds of heads share."""

    def __init__(self, model, tokenizer, max_length):
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length
        labels = getattr(model.config, "labels", None)
        count = getattr(model.config, "num_labels", 0)
        self.labels = list(labels or (f"LABEL_{i}" for i in range(count)))

    def encode(self, text, pair=None):
        """The model's inputs for texts, and which of them were cut."""
        if pair is not None:
            text, pair = same_rows(text=text, pair=pair).values()
        inputs = self.tokenizer.encode(text, pair, max_length=self.max_length)
        ids = [self.tokenizer.tokenize(each).row_lengths() for each in (text, pair) if each is not None]
        kept = tf.reduce_sum(inputs["padding_mask"], axis=1)
        special = self.specials(pair is not None)
        return self.named(rounded(inputs, self.max_length)), tf.cast(tf.add_n(ids), tf.int32) + special > kept

    def specials(self, pair):
        template = self.tokenizer.template
        items = template.pair if pair else template.single
        return sum(token not in ("$A", "$B") for token, _ in items)

    def named(self, inputs):
        """A tokenizer's ids, mask and segments under the model's names; those it lacks are left out."""
        (ids, (mask, _)), *decoder = self.model.input_pairs.items()
        found = {ids: inputs["token_ids"], mask: inputs["padding_mask"]}
        for decoder_ids, (decoder_mask, _) in decoder:  # BART's heads read the text with both halves
            found |= {decoder_ids: inputs["token_ids"], decoder_mask: inputs["padding_mask"]}
        found |= {name: x for name, x in inputs.items() if name in self.model.input}
        return {name: x for name, x in found.items() if name in self.model.input}

    def __call__(self, inputs):
        outputs = self.model(inputs, training=False)
        return tf.nest.map_structure(lambda x: tf.cast(x, tf.float32), outputs)

    def names(self, like):
        """The labels in each row, (b, n): outputs of a batching server need the batch first."""
        return tf.repeat(tf.constant([self.labels]), tf.shape(like)[0], axis=0)

    def logits(self):
        """Ids to the head's raw outputs."""
        inputs = {name: tf.TensorSpec(spec.shape, tf.int32) for name, spec in self.model.input.items()}

        def call(**given):
            outputs = self(checked_ids(given, self.model.backbone))
            return outputs if isinstance(outputs, dict) else {"logits": outputs}

        return Signature(call, inputs, "Ids to the head's own outputs.", {"logits": "as the model's"})


def _labels(head):
    problem = head.model.config.problem
    outputs = {
        "labels": "all labels, (batch, labels)",
        "probabilities": "of each label",
        "label": "the most probable one",
        "probability": "its own",
        "truncated": _TRUNCATED,
    }
    if problem == "multi_label":
        outputs |= {"chosen": "whether a label's probability is above a half"}
    if problem == "regression":
        outputs = {"values": "numbers, (batch, labels)", "labels": "their names", "truncated": _TRUNCATED}

    def answer(text, pair=None):
        inputs, truncated = head.encode(text, pair)
        logits = head(inputs)  # (b, n)
        shared = {"labels": head.names(logits), "truncated": truncated}
        if problem == "regression":
            return shared | {"values": logits}
        single = problem == "single_label"
        probabilities = tf.nn.softmax(logits) if single else tf.sigmoid(logits)
        best = tf.argmax(logits, axis=1)
        found = shared | {
            "probabilities": probabilities,
            "label": tf.gather(tf.constant(head.labels), best),
            "probability": tf.reduce_max(probabilities, axis=1),
        }
        return found if single else found | {"chosen": probabilities > 0.5}

    return {
        "serving_default": Signature(answer, {"text": TEXT}, "A label of each text.", outputs),
        "pair": Signature(answer, {"text": TEXT, "pair": TEXT}, "A label of each pair of texts.", outputs),
        "logits": head.logits(),
    }


def _follows(head):
    def answer(text, pair):
        inputs, truncated = head.encode(text, pair)
        return {"probability": tf.nn.softmax(head(inputs))[:, 0], "truncated": truncated}

    outputs = {"probability": "that the pair follows the text", "truncated": _TRUNCATED}
    inputs = {"text": TEXT, "pair": TEXT}
    about = "Whether the second text follows the first."
    return {"serving_default": Signature(answer, inputs, about, outputs), "logits": head.logits()}


def _choice(head):
    def answer(text, choices):
        text, choices = same_rows(text=text, choices=choices).values()
        rows, count = tf.unstack(tf.shape(choices))
        pairs = tf.reshape(choices, (-1,))
        inputs, truncated = head.encode(tf.repeat(text, count), pairs)
        inputs = {n: tf.reshape(x, (rows, count, tf.shape(x)[1])) for n, x in inputs.items()}
        probabilities = tf.nn.softmax(head(inputs))  # (b, c)
        return {
            "choice": tf.argmax(probabilities, axis=1, output_type=tf.int32),
            "probabilities": probabilities,
            "truncated": tf.reduce_any(tf.reshape(truncated, (rows, count)), axis=1),
        }

    outputs = {
        "choice": "the number of the best choice, from 0",
        "probabilities": "of each choice",
        "truncated": _TRUNCATED,
    }
    inputs = {"text": TEXT, "choices": tf.TensorSpec((None, None), tf.string)}
    about = "Which of a row's choices goes with its text."
    return {"serving_default": Signature(answer, inputs, about, outputs), "logits": head.logits()}


def _vectors(head):
    def answer(text):
        inputs, truncated = head.encode(text)
        return {"embedding": head(inputs), "truncated": truncated}

    outputs = {"embedding": "(batch, hidden_dim)", "truncated": _TRUNCATED}
    about = "A vector of each text."
    return {"serving_default": Signature(answer, {"text": TEXT}, about, outputs), "logits": head.logits()}


def _words(head):
    def answer(text):
        inputs, truncated = head.encode(text)
        return _masked_words(head, inputs, head(inputs)) | {"truncated": truncated}

    return {
        "serving_default": Signature(answer, {"text": TEXT}, _WORDS, _WORD_OUTPUTS),
        "logits": head.logits(),
    }


def _words_and_follows(head):
    """Of BERT's two heads of pre-training: a text as `_words` has it, a pair as both have."""

    def answer(text, pair=None):
        inputs, truncated = head.encode(text, pair)
        outputs = head(inputs)
        found = _masked_words(head, inputs, outputs["token_logits"]) | {"truncated": truncated}
        if pair is not None:
            found["follows_probability"] = tf.nn.softmax(outputs["next_sentence_logits"])[:, 0]
        return found

    about = "Words for each mask token in two texts, and whether the second follows the first."
    outputs = _WORD_OUTPUTS | {"follows_probability": "that the pair follows the text"}
    return {
        "serving_default": Signature(answer, {"text": TEXT}, _WORDS, _WORD_OUTPUTS),
        "pair": Signature(answer, {"text": TEXT, "pair": TEXT}, about, outputs),
        "logits": head.logits(),
    }


_WORDS = "Words for each mask token in a text."
_WORD_COUNT = 5
_WORD_OUTPUTS = {
    "words": f"the {_WORD_COUNT} most probable words of each mask, (batch, masks, {_WORD_COUNT})",
    "probabilities": "their own",
    "truncated": _TRUNCATED,
}


def _masked_words(head, inputs, logits):
    """The most probable words at each mask token, and their probabilities, by logits (b, l, v)."""
    ids, (mask, _) = list(head.model.input_pairs.items())[0]
    masked = tf.RaggedTensor.from_tensor((inputs[ids] == head.tokenizer.mask_id) & (inputs[mask] != 0))
    logits = tf.ragged.boolean_mask(tf.RaggedTensor.from_tensor(logits, ragged_rank=1), masked)
    probabilities, found = tf.math.top_k(tf.nn.softmax(logits.flat_values), _WORD_COUNT)
    words = head.tokenizer.detokenize(tf.reshape(found, (-1, 1)), skip_special_tokens=False)
    words = logits.with_flat_values(tf.reshape(words, (-1, _WORD_COUNT)))
    shape = (None, None, _WORD_COUNT)
    return {
        "words": words.to_tensor("", shape=shape),
        "probabilities": logits.with_flat_values(probabilities).to_tensor(shape=shape),
    }


_KINDS = {
    "labels": _labels,
    "follows": _follows,
    "choice": _choice,
    "vectors": _vectors,
    "words": _words,
    "words_and_follows": _words_and_follows,
    "spans": lambda head: {"serving_default": Spans(head).signature(), "logits": head.logits()},
    "entities": lambda head: {"serving_default": Entities(head).signature(), "logits": head.logits()},
}
