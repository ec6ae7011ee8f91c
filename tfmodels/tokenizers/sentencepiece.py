"""SentencePiece (Kudo & Richardson 2018), in graph by tensorflow_text."""

import io

import tensorflow as tf

from tfmodels.tokenizers import _files, _sentencepiece_files, _tensorflow_text
from tfmodels.tokenizers._lookup import WholeWords
from tfmodels.tokenizers._rows import take
from tfmodels.tokenizers._sentencepiece_files import BLANK, piece_text, pieces_of
from tfmodels.tokenizers._special_tokens import SpecialTokens
from tfmodels.tokenizers.base import Tokenizer, known_ids


class SentencePieceTokenizer(Tokenizer):
    """T5's tokenizer, and that of Llama 2, XLM-RoBERTa and all others with a SentencePiece model.

    Args:
        model: bytes, a serialised SentencePiece model, as `train` makes and `load` reads.
        vocabulary: dict from piece to id, where ids are not the model's own; pieces that it lacks become
            the unknown one. None: the model's own.
        special_tokens: list of str, tokens that are found in the text before all else; those that the
            vocabulary lacks get the next ids.
        pad_token, unknown_token, start_token, end_token, mask_token: str; None: the model's own, if any.
            A vocabulary without padding, like Llama 2's, is padded with its end token, which the padding
            mask hides.
        template: (str, str), where special tokens stand around one text and two; None: the end token
            after each text.
        kept_tokens: list of str, special tokens that `detokenize` keeps, whatever skip_special_tokens.
        prepend_scheme: where a blank is put before what does not begin with one: "always": the text, and
            what follows a special token; "first": the text; "never"; None: the model's own way, and the
            only one of models that remove extra blanks.

    Attributes:
        vocabulary_size: int.
        pad_id, unknown_id, start_id, end_id, mask_id: int, ids of the special tokens; -1: there is none.
            A vocabulary without a start token, like T5's, begins to write with the padding token.

    Example:
        >>> tokenizer = SentencePieceTokenizer.train(["a text", "another"], vocabulary_size=270)
        >>> tokenizer.detokenize(tokenizer.tokenize(["a text"]))
        <tf.Tensor: shape=(1,), dtype=string, numpy=array([b'a text'], dtype=object)>
    """

    def __init__(
        self,
        model,
        vocabulary=None,
        special_tokens=(),
        pad_token=None,
        unknown_token=None,
        start_token=None,
        end_token=None,
        mask_token=None,
        template=None,
        kept_tokens=(),
        prepend_scheme=None,
        name=None,
    ):
        super().__init__(name=name)
        pieces, roles = pieces_of(model)
        given = {
            "pad": pad_token, "unknown": unknown_token, "start": start_token, "end": end_token,
            "mask": mask_token,
        }  # fmt: skip
        self._model = model
        self._roles = {role: roles.get(role) if token is None else token for role, token in given.items()}
        own = {piece: i for i, piece in enumerate(pieces)}
        special = list(dict.fromkeys([*special_tokens, *kept_tokens, *filter(None, given.values())]))
        self._special_tokens = special
        self._kept_tokens = list(kept_tokens)
        self._prepend_scheme = prepend_scheme
        way = _sentencepiece_files.own_way(model)
        _check_prepend_scheme(prepend_scheme, way)
        self._blank_first = any(way) if prepend_scheme is None else prepend_scheme != "never"
        self._vocabulary = _files.with_special_tokens(own if vocabulary is None else vocabulary, special)
        self.vocabulary_size = max(self._vocabulary.values()) + 1
        for role, token in self._roles.items():
            setattr(self, f"{role}_id", self._vocabulary.get(token, -1))
        if self.start_id < 0:
            self.start_id = self.pad_id
        if self.pad_id < 0:
            self.pad_id = self.end_id
        if template is None:
            end = self._roles["end"] if self.end_id >= 0 else ""
            template = (f"$A {end}", f"$A {end} $B {end}")
        self._set_template(template, self._vocabulary.get, segments=False)
        plain = model if prepend_scheme is None else _sentencepiece_files.without_prefix(model)
        self._tokenizer = _tensorflow_text.sentencepiece(plain)
        # The model's own decoding is the measure, but it knows only its own ids.
        self._own_ids = self._vocabulary == own and not special and prepend_scheme is None
        self._make_tables(pieces)

    def _make_tables(self, pieces):
        vocabulary, special = self._vocabulary, self._special_tokens
        self._ids = tf.constant([vocabulary.get(piece, self.unknown_id) for piece in pieces], tf.int32)
        self._special = SpecialTokens(special)
        self._special_ids = WholeWords({token.encode(): vocabulary[token] for token in special or [BLANK]})
        texts = [b""] * (self.vocabulary_size + 1)
        for piece, i in vocabulary.items():
            texts[i] = piece_text(piece)
        hidden = {vocabulary[token] for token in special}
        for i in hidden:
            texts[i] = b""
        for token in self._kept_tokens:
            texts[vocabulary[token]] = token.encode()
        self._texts_without_special = tf.constant(texts, tf.string)
        for token in special:
            texts[vocabulary[token]] = token.encode()
        self._texts = tf.constant(texts, tf.string)

    @classmethod
    def train(cls, texts, vocabulary_size, model_type="unigram", normalization="nmt_nfkc", seed_size=200_000):
        """Learns a vocabulary.

        Args:
            texts: iterable of str.
            vocabulary_size: int; pieces include 4 special ones and the 256 bytes, by which any
                character has ids.
            model_type: "unigram" or "bpe".
            normalization: SentencePiece's rule; "identity" also keeps runs of blanks, so that
                `detokenize(tokenize(text)) == text` for text without leading blanks.
            seed_size: int, pieces that unigram training begins with.

        Returns:
            A tokenizer.

        Raises:
            ValueError: there is no text, or too little for so large a vocabulary.
        """
        import sentencepiece

        texts = iter(texts)
        first = next((text for text in texts if text.strip()), None)
        if first is None:
            raise ValueError("A vocabulary needs text to learn from. Received: no text at all.")

        def all_texts():
            yield first
            yield from texts

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=all_texts(),
                model_writer=model,
                vocab_size=vocabulary_size,
                model_type=model_type,
                normalization_rule_name=normalization,
                remove_extra_whitespaces=normalization != "identity",
                character_coverage=1.0,
                byte_fallback=True,
                seed_sentencepiece_size=seed_size,
                pad_id=0,
                unk_id=1,
                bos_id=2,
                eos_id=3,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"SentencePiece cannot learn vocabulary_size={vocabulary_size} from this text: "
                f"{str(error).strip().splitlines()[-1]} Give more text or another size."
            ) from error
        return cls(model.getvalue())

    def _tokenize_flat(self, texts):
        """Strings to ids, (batch,) to int32 ragged (batch, length)."""
        if self._own_ids:
            return self._tokenizer.tokenize(texts)
        pieces, is_special, splits = self._special.cut(texts)
        rows = self._encode_pieces(self._with_blanks(tf.where(is_special, "", pieces), splits))
        tokens, ends = rows.flat_values, tf.cast(rows.row_splits, tf.int64)
        pool = tf.concat([tokens, tf.cast(self._special_ids.ids(pieces), tf.int32)], 0)
        place = tf.range(tf.size(tokens, tf.int64), tf.size(pool, tf.int64))
        lengths = tf.where(is_special, tf.constant(1, tf.int64), ends[1:] - ends[:-1])
        tokens, ends = take(pool, tf.where(is_special, place, ends[:-1]), lengths)
        return tf.RaggedTensor.from_row_splits(tokens, tf.gather(ends, splits), validate=False)

    def _with_blanks(self, pieces, splits):
        """The pieces of texts, (pieces,), with the blanks of prepend_scheme before them."""
        if self._prepend_scheme not in ("always", "first"):
            return pieces
        bare = (tf.strings.length(pieces) > 0) & (tf.strings.substr(pieces, 0, 1) != " ")
        bare &= tf.strings.substr(pieces, 0, len(BLANK.encode())) != BLANK
        if self._prepend_scheme == "first":
            begins = tf.ones_like(splits[:-1])
            bare &= tf.scatter_nd(splits[:-1, None], begins, [tf.size(pieces, tf.int64)]) > 0
        return tf.where(bare, tf.strings.join([" ", pieces]), pieces)

    def _encode_pieces(self, texts):
        """Texts without special tokens to ids, int32 ragged."""
        rows = self._tokenizer.tokenize(texts)
        return rows.with_flat_values(tf.gather(self._ids, rows.flat_values))

    def _detokenize_ragged(self, token_ids, skip_special_tokens):
        if self._own_ids:
            known = (token_ids.flat_values >= 0) & (token_ids.flat_values < self.vocabulary_size)
            return self._tokenizer.detokenize(tf.ragged.boolean_mask(token_ids, token_ids.with_values(known)))
        ids = known_ids(token_ids.flat_values, self.vocabulary_size)
        table = self._texts_without_special if skip_special_tokens else self._texts
        texts = tf.strings.reduce_join(token_ids.with_flat_values(tf.gather(table, ids)), -1)
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
        return tf.strings.regex_replace(texts, "^ ", "") if self._blank_first else texts

    def save(self, path):
        """Writes the SentencePiece model file, aside first, so that no half-written file stays."""
        _files.write_whole(path, self._model)

    def save_pretrained(self, folder):
        """Writes a Hugging Face folder: the model, tokenizer_config.json, tokenizer.json if it was read."""
        _sentencepiece_files.write(self, folder)

    @classmethod
    def load(cls, path):
        """Reads a SentencePiece model file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no SentencePiece model.
        """
        return cls(_sentencepiece_files.read_model(path))

    @classmethod
    def from_pretrained(cls, folder):
        """Reads a Hugging Face folder with spiece.model, sentencepiece.bpe.model or tokenizer.model.

        Ids and template are tokenizer.json's, where there is one, else those of the class that
        tokenizer_config.json names: T5, Llama or XLM-RoBERTa.

        Raises:
            FileNotFoundError: the folder has no such model.
            ValueError: the files ask for what this class does not do.
        """
        options, kept = _sentencepiece_files.read(folder)
        tokenizer = _files.remember_source(cls(**options), folder)
        tokenizer._source_files = kept
        return tokenizer


def _check_prepend_scheme(scheme, way):
    if scheme not in (None, "always", "first", "never"):
        raise ValueError(
            f'prepend_scheme must be "always", "first", "never" or None. Received: prepend_scheme={scheme!r}.'
        )
    if scheme is not None and way.removes_extra:
        raise ValueError(
            "A model that removes extra blanks needs prepend_scheme=None, its own way. Received: "
            f"prepend_scheme={scheme!r}."
        )
