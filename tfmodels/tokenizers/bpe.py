"""Byte-level byte-pair encoding (GPT-2 section 2.2), in core ops of TensorFlow."""

import json
import os
import unicodedata

import tensorflow as tf

from tfmodels.tokenizers import _bpe_json, _files, _utf8
from tfmodels.tokenizers._lookup import WholeWords
from tfmodels.tokenizers._merges import Merges
from tfmodels.tokenizers._nfc import Composer
from tfmodels.tokenizers._special_tokens import SpecialTokens
from tfmodels.tokenizers._words import character_classes, split_words
from tfmodels.tokenizers.base import Tokenizer, known_ids


class BytePairTokenizer(Tokenizer):
    """GPT-2's tokenizer, and that of RoBERTa, BART, Llama 3, Qwen2, Qwen3 and others of their rules.

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
        pad_token, unknown_token, start_token, end_token, mask_token: str, special tokens; None: there is
            none. A vocabulary without padding is padded with its end token, which the padding mask hides.
        add_prefix_space: bool, whether a text that does not begin with a blank gets one, by GPT-2's rules.
        template: (str, str), where special tokens stand around one text and two, like RoBERTa's
            `("<s> $A </s>", "<s> $A </s> </s> $B </s>")`; None: nowhere.
        kept_tokens: list of str, special tokens that `detokenize` keeps, whatever skip_special_tokens.
        pre_tokenizer: str, the rules by which a text is cut into words: "gpt2"; "gpt2_digits", with each
            digit a word (StarCoder, SmolLM); "llama3", with digits by threes; "qwen2", as Llama 3's with
            each digit a word.
        normalizer: str, "NFC": texts get Unicode's composed form first (Qwen2); None: they stay.
        ignore_merges: bool, whether a word that is a token is that one, whatever merges make of it
            (Llama 3).

    Attributes:
        vocabulary_size: int.
        pad_id, unknown_id, start_id, end_id, mask_id: int, ids of the special tokens; -1: there is none.

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
        mask_token=None,
        add_prefix_space=False,
        template=None,
        kept_tokens=(),
        pre_tokenizer="gpt2",
        normalizer=None,
        ignore_merges=False,
        name=None,
    ):
        super().__init__(name=name)
        _bpe_json.check_rules(pre_tokenizer, normalizer, add_prefix_space)
        roles = {
            "pad": pad_token, "unknown": unknown_token, "start": start_token, "end": end_token,
            "mask": mask_token,
        }  # fmt: skip
        special = list(
            dict.fromkeys([*special_tokens, *strip_before, *kept_tokens, *filter(None, roles.values())])
        )
        self._config = _bpe_json.Config(
            vocabulary=_files.with_special_tokens(vocabulary, special),
            merges=[tuple(pair) for pair in merges],
            special_tokens=special,
            strip_before=list(strip_before),
            kept_tokens=list(kept_tokens),
            roles=roles,
            add_prefix_space=add_prefix_space,
            pre_tokenizer=pre_tokenizer,
            normalizer=normalizer,
            ignore_merges=ignore_merges,
        )
        for token in special if normalizer else ():
            if unicodedata.normalize(normalizer, token) != token:
                raise ValueError(
                    f"With normalizer='NFC' special tokens must be composed. Received: {token!a}."
                )
        self._composer = Composer() if normalizer else None
        vocabulary = self._config.vocabulary
        self.vocabulary_size = max(vocabulary.values()) + 1
        for role, token in roles.items():
            setattr(self, f"{role}_id", -1 if token is None else vocabulary[token])
        self.pad_id = self.end_id if pad_token is None else self.pad_id
        self._set_template(template, vocabulary.get, segments=False)
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

        def with_special(tokens):
            all_texts = dict(enumerate(texts)) | {special[token]: token.encode() for token in tokens}
            # The last one is for ids that the vocabulary lacks.
            return tf.constant([*all_texts.values(), b""], tf.string)

        self._pieces = with_special(special)
        self._pieces_without_special = with_special(self._config.kept_tokens)
        self._special = SpecialTokens(list(special), self._config.strip_before)
        # Most words are one token: those need no merging.
        if self._config.ignore_merges:
            words = {piece: i for i, piece in pieces.items()}
        else:
            tokens, counts = self._merge(tf.constant(texts, tf.string))
            alone = tf.RaggedTensor.from_row_lengths(tokens, counts)[:, :1].to_tensor(-1)[:, 0]
            alone = tf.where(counts == 1, alone, -1).numpy().tolist()
            words = {text: i for i, text in enumerate(texts) if alone[i] == i}
        self._whole_words = WholeWords(words | {token.encode(): i for token, i in special.items()})
        self._tokenize_flat = tf.function(
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
            texts,
            vocabulary_size,
            special_tokens,
            options["add_prefix_space"],
            options.get("pre_tokenizer", "gpt2"),
            options.get("normalizer"),
        )
        return cls(vocabulary, merges, special_tokens, **options)

    def _tokenize_batch(self, texts):
        """Strings to ids, (batch,) to int32 ragged (batch, length)."""
        pieces, is_special, splits = self._special.cut(texts)
        if self._config.add_prefix_space:
            bare = ~is_special & (tf.strings.length(pieces) > 0)
            bare &= tf.strings.substr(pieces, 0, 1) != " "
            pieces = tf.where(bare, tf.strings.join([" ", pieces]), pieces)
        points, point_splits = _utf8.decode(pieces)  # (characters,), (pieces + 1,)
        if self._composer is not None:
            points, point_splits = self._composer.compose(points, point_splits)
        rules = self._config.pre_tokenizer
        words, word_splits = split_words(points, point_splits, is_special, self._classes, rules)
        tokens, ends = self._whole_words.tokens(words, self._merge)
        return tf.RaggedTensor.from_row_splits(
            tf.cast(tokens, tf.int32), tf.gather(ends, tf.gather(word_splits, splits)), validate=False
        )

    def _merge(self, words):
        """Token ids of words: (tokens,), and how many each has, (words,)."""
        data = tf.io.decode_raw(tf.strings.reduce_join(words), tf.uint8)
        lengths = tf.cast(tf.strings.length(words), tf.int64)
        return self._merges.encode(tf.gather(self._byte_ids, tf.cast(data, tf.int32)), lengths)

    def _detokenize_ragged(self, token_ids, skip_special_tokens):
        pieces = self._pieces_without_special if skip_special_tokens else self._pieces
        ids = known_ids(token_ids.flat_values, self.vocabulary_size)
        texts = tf.strings.reduce_join(token_ids.with_flat_values(tf.gather(pieces, ids)), -1)
        return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")

    def save(self, path):
        """Writes Hugging Face's tokenizer.json, which its libraries read as well."""
        text = json.dumps(_bpe_json.to_json(self._config, self.template), ensure_ascii=False, indent=1)
        _files.write_whole(path, text.encode())

    def save_pretrained(self, folder):
        """Writes the files of a Hugging Face folder: tokenizer.json and tokenizer_config.json."""
        os.makedirs(folder, exist_ok=True)
        content = _files.without_roles(_bpe_json.to_json(self._config, self.template))
        _files.write_json(os.path.join(folder, "tokenizer.json"), content)
        own = {"add_prefix_space": self._config.add_prefix_space}
        kinds = (0, 1) if self.template.tokens else (0,)
        _files.write_tokenizer_config(folder, self, self._config.roles, own, kinds)

    @classmethod
    def load(cls, path):
        """Reads a tokenizer.json of type BPE with a pre-tokenisation that is known here.

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
            options = _bpe_json.add_named_tokens(options, folder)
            prefix = _files.read_class_settings(folder).get("add_prefix_space")
            options |= {} if prefix is None else {"add_prefix_space": prefix}
        elif os.path.exists(os.path.join(folder, "vocab.json")):
            options = _bpe_json.from_folder(folder)
        else:
            raise FileNotFoundError(
                f"{os.fspath(folder)}: a folder must have tokenizer.json, or vocab.json and merges.txt."
            )
        return _files.remember_source(cls(**(options | _files.read_roles(folder))), folder)
