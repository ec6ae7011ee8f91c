"""WordPiece (Devlin et al. 2018), in core ops of TensorFlow."""

import json
import os

import tensorflow as tf

from tfmodels.tokenizers import _files, _wordpiece_json
from tfmodels.tokenizers._bert_text import BertWords
from tfmodels.tokenizers._longest_match import LongestMatch
from tfmodels.tokenizers._lookup import WholeWords
from tfmodels.tokenizers._rows import take
from tfmodels.tokenizers._special_tokens import SpecialTokens
from tfmodels.tokenizers._wordpiece_json import PREFIX
from tfmodels.tokenizers.base import Tokenizer, known_ids


class WordPieceTokenizer(Tokenizer):
    """BERT's tokenizer, cased and uncased, and that of DistilBERT, ELECTRA and all others of its kind.

    Runs in TensorFlow's core ops, so that any server of SavedModels has it. The ids equal those of
    Hugging Face's tokenizers. Bytes that are no UTF-8 become U+FFFD first, which BERT's cleaning drops
    with control characters.

    Args:
        vocabulary: dict from token to id; pieces inside a word begin with "##".
        lowercase: bool.
        strip_accents: bool; None: as `lowercase`, like the original.
        split_chinese: bool, whether each Chinese character is a word.
        special_tokens: list of str, tokens that are found in the text before all else; those that the
            vocabulary lacks get the next ids.
        pad_token, unknown_token, start_token, end_token, mask_token: str, special tokens. The start is
            "[CLS]", the end "[SEP]". None: there is none; a word needs the unknown one.
        template: (str, str), where special tokens stand around one text and two.
        segments: bool, whether `encode` gives `segment_ids`; None: if the template has them.
        max_word_characters: int, longer words become the unknown token.

    Attributes:
        vocabulary_size: int.
        pad_id, unknown_id, start_id, end_id, mask_id: int, ids of the special tokens; -1: none.

    Raises:
        ValueError: the vocabulary lacks the unknown token, or has an id twice.

    Example:
        >>> tokenizer = WordPieceTokenizer.train(["a text", "another"], vocabulary_size=60)
        >>> tokenizer.encode(["a text"], ["another"])["segment_ids"]
    """

    def __init__(
        self,
        vocabulary,
        lowercase=True,
        strip_accents=None,
        split_chinese=True,
        special_tokens=(),
        pad_token="[PAD]",
        unknown_token="[UNK]",
        start_token="[CLS]",
        end_token="[SEP]",
        mask_token="[MASK]",
        template=("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        segments=None,
        max_word_characters=100,
        name=None,
    ):
        super().__init__(name=name)
        roles = {
            "pad": pad_token, "unknown": unknown_token, "start": start_token, "end": end_token,
            "mask": mask_token,
        }  # fmt: skip
        self._config = _wordpiece_json.make_config(
            vocabulary=vocabulary,
            lowercase=lowercase,
            strip_accents=strip_accents,
            split_chinese=split_chinese,
            special_tokens=special_tokens,
            roles=roles,
            max_word_characters=max_word_characters,
        )
        vocabulary = self._config.vocabulary
        self.vocabulary_size = max(vocabulary.values()) + 1
        for role, token in roles.items():
            setattr(self, f"{role}_id", -1 if token is None else vocabulary[token])
        self._set_template(template, vocabulary.get, segments)
        self._make_tables()

    def _make_tables(self):
        config = self._config
        special = config.special_tokens
        self._special = SpecialTokens(special)
        self._special_ids = WholeWords({token.encode(): config.vocabulary[token] for token in special})
        strip = config.lowercase if config.strip_accents is None else config.strip_accents
        self._words = BertWords(config.lowercase, strip, config.split_chinese)
        first, further = {}, {}
        for token, i in config.vocabulary.items():
            if token.startswith(PREFIX):
                further[token.removeprefix(PREFIX)] = i
            first[token] = i
        self._match = LongestMatch(first, further, self.unknown_id, config.max_word_characters)
        self._whole_words = WholeWords(
            {token.encode(): i for token, i in first.items() if 0 < len(token) <= config.max_word_characters}
        )
        texts = _wordpiece_json.decoded(config.vocabulary)
        self._first_texts, self._further_texts = (tf.constant(column, tf.string) for column in texts)
        ids = [config.vocabulary[token] for token in special]
        is_special = [i in set(ids) for i in range(self.vocabulary_size + 1)]
        self._is_special = tf.constant(is_special)
        self._tokenize_flat = tf.function(
            self._tokenize_batch, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False
        )

    @classmethod
    def train(cls, texts, vocabulary_size, lowercase=True, special_tokens=(), **options):
        """Learns a vocabulary.

        Args:
            texts: iterable of str.
            vocabulary_size: int, with the special tokens; fewer where the text has no more pieces.
            lowercase: bool.
            special_tokens: list of str, beside BERT's five.
            **options: further arguments of the class.

        Returns:
            A tokenizer.

        Raises:
            ValueError: there is no text, or vocabulary_size is too small.
        """
        vocabulary = _wordpiece_json.train(texts, vocabulary_size, lowercase, special_tokens, options)
        return cls(vocabulary, lowercase=lowercase, special_tokens=special_tokens, **options)

    def _tokenize_batch(self, texts):
        """Strings to ids, (batch,) to int32 ragged (batch, length)."""
        pieces, is_special, splits = self._special.cut(texts)
        words, word_splits = self._words.split(tf.where(is_special, "", pieces))
        tokens, token_splits = self._whole_words.tokens(words, self._match.encode)
        ends = tf.gather(token_splits, word_splits)  # (pieces + 1,)

        def with_special_tokens():
            pool = tf.concat([tokens, self._special_ids.ids(pieces)], 0)
            place = tf.range(tf.size(tokens, tf.int64), tf.size(pool, tf.int64))
            begins = tf.where(is_special, place, ends[:-1])
            return take(pool, begins, tf.where(is_special, tf.constant(1, tf.int64), ends[1:] - ends[:-1]))

        tokens, ends = tf.cond(tf.reduce_any(is_special), with_special_tokens, lambda: (tokens, ends))
        return tf.RaggedTensor.from_row_splits(
            tf.cast(tokens, tf.int32), tf.gather(ends, splits), validate=False
        )

    def _detokenize_ragged(self, token_ids, skip_special_tokens):
        ids = known_ids(token_ids.flat_values, self.vocabulary_size)
        if skip_special_tokens:
            kept = ~tf.gather(self._is_special, ids)
            seen = tf.concat([[0], tf.cumsum(tf.cast(kept, tf.int64))], 0)
            ids, splits = tf.boolean_mask(ids, kept), tf.gather(seen, tf.cast(token_ids.row_splits, tf.int64))
        else:
            splits = tf.cast(token_ids.row_splits, tf.int64)
        begins = tf.boolean_mask(splits[:-1], splits[:-1] < splits[1:])[:, None]
        texts = tf.gather(self._further_texts, ids)
        texts = tf.tensor_scatter_nd_update(
            texts, begins, tf.gather(self._first_texts, tf.gather_nd(ids, begins))
        )
        return tf.strings.reduce_join(tf.RaggedTensor.from_row_splits(texts, splits, validate=False), -1)

    def save(self, path):
        """Writes Hugging Face's tokenizer.json, which its libraries read as well."""
        text = json.dumps(_wordpiece_json.to_json(self), ensure_ascii=False, indent=1)
        _files.write_whole(path, text.encode())

    def save_pretrained(self, folder):
        """Writes the files of a Hugging Face folder: tokenizer.json, vocab.txt, tokenizer_config.json."""
        os.makedirs(folder, exist_ok=True)
        content = _files.without_roles(_wordpiece_json.to_json(self))
        _files.write_json(os.path.join(folder, "tokenizer.json"), content)
        _files.write_vocabulary(os.path.join(folder, "vocab.txt"), self._config.vocabulary)
        own = _wordpiece_json.tokenizer_config(self._config)
        _files.write_tokenizer_config(folder, self, self._config.roles, own, kinds=(1,))

    @classmethod
    def load(cls, path):
        """Reads a tokenizer.json of type WordPiece with BERT's normalisation.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is none, or asks for what this class does not do.
        """
        return cls(**_wordpiece_json.from_json(_files.read_json(path), path))

    @classmethod
    def from_pretrained(cls, folder):
        """Reads a Hugging Face folder: tokenizer.json, or else vocab.txt, and tokenizer_config.json.

        Raises:
            FileNotFoundError: the folder has neither.
            ValueError: a file does not hold what its name says.
        """
        path = os.path.join(folder, "tokenizer.json")
        if os.path.exists(path):
            options = _wordpiece_json.from_json(_files.read_json(path), path)
            options |= _wordpiece_json.settings(_files.read_class_settings(folder))
        elif os.path.exists(os.path.join(folder, "vocab.txt")):
            options = _wordpiece_json.from_vocabulary(folder)
        else:
            raise FileNotFoundError(f"{os.fspath(folder)}: a folder must have tokenizer.json or vocab.txt.")
        options = _wordpiece_json.add_named_tokens(options, folder)
        tokenizer = cls(**(options | _files.read_roles(folder)), segments=_files.read_segments(folder))
        return _files.remember_source(tokenizer, folder)
