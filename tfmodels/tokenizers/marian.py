"""Marian's two SentencePiece models with one vocabulary (Tiedemann & Thottingal 2020: OPUS-MT)."""

import os

import tensorflow as tf

from tfmodels.tokenizers import _files, _tensorflow_text
from tfmodels.tokenizers._lookup import WholeWords
from tfmodels.tokenizers._sentencepiece_files import read_model
from tfmodels.tokenizers.sentencepiece import SentencePieceTokenizer

_MODELS = ("source.spm", "target.spm")
# \C is any byte: the text may be no UTF-8.
_CODE = r"^(>>\C*?<<)"
_WITH_CODE = rf"{_CODE}\C*"


class _OneSide(SentencePieceTokenizer):
    """One language: a piece that its model does not know may be one of the vocabulary all the same.

    A code of a language is known where a text begins, or goes on after a special token, and nowhere else.
    """

    def _make_tables(self, pieces):
        super()._make_tables(pieces)
        self._piece_ids = WholeWords({piece.encode(): i for piece, i in self._vocabulary.items()})
        self._piece_tokenizer = _tensorflow_text.sentencepiece(self._model, tf.string)

    def _encode_pieces(self, texts):
        coded = tf.strings.regex_full_match(texts, _WITH_CODE)
        codes = tf.strings.regex_replace(tf.boolean_mask(texts, coded), _WITH_CODE, r"\1")
        codes = tf.RaggedTensor.from_row_lengths(codes, tf.cast(coded, tf.int64), validate=False)
        rest = tf.where(coded, tf.strings.regex_replace(texts, _CODE, "", replace_global=False), texts)
        rows = tf.concat([codes, self._piece_tokenizer.tokenize(rest)], 1)
        ids = tf.cast(self._piece_ids.ids(rows.flat_values), tf.int32)
        return rows.with_flat_values(tf.where(ids < 0, self.unknown_id, ids))


class MarianTokenizer(_OneSide):
    """Tokenizes the source language and detokenizes the target language.

    Ids are those of vocab.json, which both models share. A code of the target language (">>fra<<") before
    a text is one token.

    Args:
        source_model: bytes, the SentencePiece model of the source language.
        target_model: bytes, that of the target language.
        vocabulary: dict from piece to id.
        pad_token, unknown_token, end_token: str.

    Attributes:
        target: a `SentencePieceTokenizer` for texts of the target language, to train with.

    Example:
        >>> data = tfmodels.data.sequence_to_sequence(pairs, tokenizer, tokenizer.target)
    """

    def __init__(
        self,
        source_model,
        target_model,
        vocabulary,
        pad_token="<pad>",
        unknown_token="<unk>",
        end_token="</s>",
        name=None,
    ):
        options = {
            "vocabulary": vocabulary,
            "pad_token": pad_token,
            "unknown_token": unknown_token,
            "start_token": pad_token,
            "end_token": end_token,
            # Two texts have no end between them.
            "template": (f"$A {end_token}", f"$A $B {end_token}"),
        }
        super().__init__(source_model, name=name, **options)
        self.target = _OneSide(target_model, **options)

    def save(self, path):
        raise ValueError(
            "A Marian tokenizer is three files. Received: one path. Use save_pretrained(folder)."
        )

    def save_pretrained(self, folder):
        """Writes source.spm, target.spm, vocab.json and tokenizer_config.json."""
        os.makedirs(folder, exist_ok=True)
        for name, model in zip(_MODELS, (self._model, self.target._model), strict=True):
            _files.write_whole(os.path.join(folder, name), model)
        _files.write_json(os.path.join(folder, "vocab.json"), self._vocabulary)
        roles = {role: self._roles[role] for role in ("pad", "unknown", "end")}
        own = {} if hasattr(self, "_source_config") else {"tokenizer_class": "MarianTokenizer"}
        _files.write_tokenizer_config(folder, self, roles, own)

    @classmethod
    def load(cls, path):
        raise ValueError(
            "A Marian tokenizer is three files. Received: one path. Use from_pretrained(folder)."
        )

    @classmethod
    def train(cls, *arguments, **options):
        raise ValueError("Train two SentencePieceTokenizers. Received: MarianTokenizer.train.")

    @classmethod
    def from_pretrained(cls, folder):
        """Reads source.spm, target.spm and vocab.json.

        Raises:
            FileNotFoundError: one of them is missing.
            ValueError: a file does not hold what its name says; the target has a vocabulary of its own.
        """
        config = _files.read_optional_json(folder, "tokenizer_config.json")
        if config.get("separate_vocabs"):
            raise ValueError(
                f"{os.fspath(folder)}: both languages must share vocab.json. Received: separate_vocabs."
            )
        models = [read_model(os.path.join(folder, name)) for name in _MODELS]
        path = os.path.join(folder, "vocab.json")
        vocabulary, roles = _files.read_json(path), _files.read_roles(folder)
        options = {role: roles[role] for role in ("pad_token", "unknown_token", "end_token") if role in roles}
        for role, token in {"pad_token": "<pad>", "unknown_token": "<unk>", "end_token": "</s>"}.items():
            if options.get(role, token) not in vocabulary:
                raise ValueError(f"{path}: the vocabulary must have the {role}. Received: none {token!r}.")
        return _files.remember_source(cls(*models, vocabulary, **options), folder)
