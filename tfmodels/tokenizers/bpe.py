"""Byte-level byte-pair encoding (GPT-2 section 2.2), in core ops of TensorFlow."""

import json
import os
import re

import tensorflow as tf

from tfmodels.tokenizers import _bpe_json, _files
from tfmodels.tokenizers._merges import Merges
from tfmodels.tokenizers._words import character_classes, split_words
from tfmodels.tokenizers.base import Tokenizer

# White space by Unicode, as RE2's \s is ASCII only.
_SPACES = r"[\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
# No valid UTF-8 has this byte.
_MARK = b"\xff"


class BytePairTokenizer(Tokenizer):
    """GPT-2's tokenizer, and that of RoBERTa, BART and all others with its pre-tokenisation.

    Runs in TensorFlow's core ops, so that any server of SavedModels has it. The ids equal those of
    Hugging Face's tokenizers. Bytes that are no UTF-8 become U+FFFD first, as by Python's
    `bytes.decode("utf-8", "replace")`.

    Args:
        vocabulary: dict from token to id, tokens in GPT-2's printable form of bytes ("Ġthe").
        merges: list of (left, right) tuples of tokens, best first.
        special_tokens: list of str, tokens that are found in the text before all else; those that
            the vocabulary lacks get the next ids.
        strip_before: list of str, special tokens that swallow the white space before them (RoBERTa's
            "<mask>").
        pad_token, unknown_token, start_token, end_token: str, special tokens; None: there is none. A
            vocabulary without padding is padded with its end token, which the padding mask hides.
        add_prefix_space: bool, whether a text that does not begin with a blank gets one.

    Attributes:
        vocabulary_size: int.
        pad_id, unknown_id, start_id, end_id: int, ids of the special tokens; -1 where there is none.

    Raises:
        ValueError: the vocabulary lacks a byte, a merge does not fit it, or a token is unknown.

    Example:
        >>> tokenizer = BytePairTokenizer.train(["a text", "another"], vocabulary_size=270)
        >>> tokenizer.detokenize(tokenizer.tokenize(["a text"]))
        <tf.Tensor: shape=(1,), dtype=string, numpy=array([b'a text'], dtype=object)>
    """

    def __init__(
        self,
        vocabulary,
        merges,
        special_tokens=(),
        strip_before=(),
        pad_token=None,
        unknown_token=None,
        start_token=None,
        end_token=None,
        add_prefix_space=False,
        name=None,
    ):
        super().__init__(name=name)
        roles = {"pad": pad_token, "unknown": unknown_token, "start": start_token, "end": end_token}
        special = list(dict.fromkeys([*special_tokens, *strip_before, *filter(None, roles.values())]))
        self._config = _bpe_json.Config(
            vocabulary=_with_special_tokens(vocabulary, special),
            merges=[tuple(pair) for pair in merges],
            special_tokens=special,
            strip_before=list(strip_before),
            roles={f"{role}_token": token for role, token in roles.items()},
            add_prefix_space=add_prefix_space,
        )
        vocabulary = self._config.vocabulary
        ids = {role: vocabulary[token] if token else -1 for role, token in roles.items()}
        self.vocabulary_size = max(vocabulary.values()) + 1
        self.unknown_id, self.start_id, self.end_id = ids["unknown"], ids["start"], ids["end"]
        self.pad_id = ids["pad"] if pad_token else self.end_id
        self._make_tables(special)

    def _make_tables(self, special):
        vocabulary = self._config.vocabulary
        pieces = _bpe_json.bytes_of_tokens(vocabulary, special)
        byte_ids = {piece: i for i, piece in pieces.items() if len(piece) == 1}
        missing = [byte for byte in range(256) if bytes([byte]) not in byte_ids]
        if missing:
            raise ValueError(
                "The vocabulary must have each of the 256 bytes as a token. Received: none for the bytes "
                f"{missing[:10]}. Train with the whole byte alphabet."
            )
        self._byte_ids = tf.constant([byte_ids[bytes([byte])] for byte in range(256)], tf.int64)
        self._classes = tf.constant(character_classes())
        self._merges = Merges(*_bpe_json.merge_ids(vocabulary, self._config.merges))
        texts = [pieces.get(i, b"") for i in range(self.vocabulary_size)]
        special = {token: vocabulary[token] for token in special}
        kept = dict(enumerate(texts)) | {i: token.encode() for token, i in special.items()}
        self._pieces = tf.constant(list(kept.values()), tf.string)
        self._pieces_without_special = tf.constant(texts, tf.string)
        self._patterns = _special_patterns(self._config)
        # Most words are one token: those need no merging.
        tokens, counts = self._merge(self._pieces_without_special)
        alone = tf.RaggedTensor.from_row_lengths(tokens, counts)[:, :1].to_tensor(-1)[:, 0]
        alone = tf.where(counts == 1, alone, -1).numpy().tolist()
        words = {text: i for i, text in enumerate(texts) if alone[i] == i}
        words |= {token.encode(): i for token, i in special.items()}
        self._words = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(words.keys()), tf.string), tf.constant(list(words.values()), tf.int64)
            ),
            default_value=-1,
        )
        self._tokenize = tf.function(
            self._tokenize_batch, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False
        )

    @classmethod
    def train(cls, texts, vocabulary_size, special_tokens=("<|endoftext|>",), **options):
        """Learns a vocabulary.

        Args:
            texts: iterable of str.
            vocabulary_size: int, with the 256 bytes and the special tokens; fewer where the text has
                no more pairs to merge.
            special_tokens: list of str; the first is start and end, if `options` name no others.
            **options: further arguments of the class.

        Returns:
            A tokenizer.

        Raises:
            ValueError: there is no text, or vocabulary_size is too small.
        """
        special_tokens = list(special_tokens)
        if special_tokens:
            options = {"start_token": special_tokens[0], "end_token": special_tokens[0]} | options
        options.setdefault("add_prefix_space", False)
        vocabulary, merges = _bpe_json.train(
            texts, vocabulary_size, special_tokens, options["add_prefix_space"]
        )
        return cls(vocabulary, merges, special_tokens, **options)

    def _tokenize_flat(self, texts):
        """Strings to ids, (batch,) to int32 ragged (batch, length)."""
        return self._tokenize(texts)

    def _tokenize_batch(self, texts):
        texts, is_special, splits = self._cut_out_special_tokens(texts)
        words, word_splits = split_words(texts, is_special, self._classes)
        ids = self._words.lookup(words)  # (words,)
        unknown = tf.where(ids < 0)[:, 0]
        distinct, number = tf.unique(tf.gather(words, unknown), tf.int64)
        tokens, counts = self._merge(distinct)
        # A pool of the one token of each word, or -1, and then those of the merged words.
        pool = tf.concat([ids, tokens], 0)
        begins = tf.cumsum(counts, exclusive=True) + tf.size(ids, tf.int64)
        begins = tf.tensor_scatter_nd_update(
            tf.range(tf.size(ids, tf.int64)), unknown[:, None], tf.gather(begins, number)
        )
        lengths = tf.tensor_scatter_nd_update(tf.ones_like(ids), unknown[:, None], tf.gather(counts, number))
        ends = tf.concat([[0], tf.cumsum(lengths)], 0)  # (words + 1,)
        at = tf.repeat(begins - ends[:-1], lengths) + tf.range(ends[-1])  # (tokens,)
        return tf.RaggedTensor.from_row_splits(
            tf.cast(tf.gather(pool, at), tf.int32),
            tf.gather(ends, tf.gather(word_splits, splits)),
            validate=False,
        )

    def _cut_out_special_tokens(self, texts):
        """Pieces of texts, whether each is a special token, and the row splits of the texts' pieces."""

        def one_piece():
            count = tf.size(texts, tf.int64)
            return texts, tf.zeros_like(texts, tf.bool), tf.range(count + 1)

        def cut():
            # Valid UTF-8 first, that the mark cannot stand in the text.
            marked = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
            if self._patterns.strip:
                marked = tf.strings.regex_replace(marked, self._patterns.strip, r"\1")
            marked = tf.strings.regex_replace(marked, self._patterns.mark, _MARK + rb"\1" + _MARK)
            # Cut at the marks, every second piece is a special token.
            pieces = tf.strings.split(marked, _MARK)
            odd = tf.RaggedTensor.from_row_splits(
                tf.range(tf.size(pieces.flat_values, tf.int64)), pieces.row_splits, validate=False
            )
            odd = (odd.flat_values - tf.gather(pieces.row_splits, pieces.value_rowids())) % 2 == 1
            return pieces.flat_values, odd, pieces.row_splits

        if self._patterns is None:
            pieces, is_special, splits = one_piece()
        else:
            found = tf.strings.regex_full_match(texts, self._patterns.found)
            pieces, is_special, splits = tf.cond(tf.reduce_any(found), cut, one_piece)
        if self._config.add_prefix_space:
            bare = ~is_special & (tf.strings.length(pieces) > 0)
            bare &= tf.strings.substr(pieces, 0, 1) != " "
            pieces = tf.where(bare, tf.strings.join([" ", pieces]), pieces)
        return pieces, is_special, splits

    def _merge(self, words):
        """Token ids of words: (tokens,), and how many each has, (words,)."""
        data = tf.io.decode_raw(tf.strings.reduce_join(words), tf.uint8)
        lengths = tf.cast(tf.strings.length(words), tf.int64)
        return self._merges.encode(tf.gather(self._byte_ids, tf.cast(data, tf.int32)), lengths)

    def _detokenize_ragged(self, token_ids, skip_special_tokens):
        pieces = self._pieces_without_special if skip_special_tokens else self._pieces
        texts = tf.strings.reduce_join(tf.gather(pieces, token_ids), -1)
        return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")

    def save(self, path):
        """Writes Hugging Face's tokenizer.json, which its libraries read as well."""
        text = json.dumps(_bpe_json.to_json(self._config), ensure_ascii=False, indent=1)
        _files.write_whole(path, text.encode())

    @classmethod
    def load(cls, path):
        """Reads a tokenizer.json of type BPE with GPT-2's pre-tokenisation.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is none, or asks for what this class does not do.
        """
        return cls(**_bpe_json.from_json(_files.read_json(path), path))

    @classmethod
    def from_pretrained(cls, folder):
        """Reads a Hugging Face folder: tokenizer.json, or else vocab.json and merges.txt.

        The roles of tokens come from special_tokens_map.json and tokenizer_config.json; without
        those "<|endoftext|>" is start, end and unknown, or RoBERTa's "<s>" and "</s>" are.

        Raises:
            FileNotFoundError: the folder has neither.
            ValueError: a file does not hold what its name says.
        """
        path = os.path.join(folder, "tokenizer.json")
        if os.path.exists(path):
            options = _bpe_json.from_json(_files.read_json(path), path)
        elif os.path.exists(os.path.join(folder, "vocab.json")):
            options = {
                "vocabulary": _files.read_json(os.path.join(folder, "vocab.json")),
                "merges": _files.read_merges(os.path.join(folder, "merges.txt")),
            }
            _bpe_json.guess_special_tokens(options)
        else:
            raise FileNotFoundError(
                f"{os.fspath(folder)}: a folder must have tokenizer.json, or vocab.json and merges.txt."
            )
        return cls(**(options | _files.read_roles(folder)))


def _with_special_tokens(vocabulary, special):
    vocabulary = dict(vocabulary)
    for token in special:
        if token not in vocabulary:
            vocabulary[token] = max(vocabulary.values(), default=-1) + 1
    return vocabulary


class _Patterns:
    """Regular expressions of RE2 that find special tokens, of several at one place the longest."""

    def __init__(self, special, strip_before):
        def any_of(tokens):
            longest_first = sorted(tokens, key=len, reverse=True)
            return "(" + "|".join(re.escape(token) for token in longest_first) + ")"

        self.mark = any_of(special)
        self.strip = _SPACES + any_of(strip_before) if strip_before else None
        self.found = rf"(?s)\C*{self.mark}\C*"  # \C is any byte: the text may be no UTF-8


def _special_patterns(config):
    return _Patterns(config.special_tokens, config.strip_before) if config.special_tokens else None
