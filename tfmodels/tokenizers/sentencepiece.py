"""SentencePiece (Kudo & Richardson 2018), in graph by tensorflow_text."""

import io
import os

import tensorflow as tf

from tfmodels.tokenizers import _files, _tensorflow_text
from tfmodels.tokenizers.base import as_token_ids


class SentencePieceTokenizer(tf.Module):
    """Text to ids and back in graph ops, so that it works inside tf.data and in a SavedModel.

    Args:
        model: bytes, a serialised SentencePiece model, as `train` makes and `load` reads.

    Attributes:
        vocabulary_size: int.
        pad_id, unknown_id, start_id, end_id: int, ids of the special pieces; -1 where there is none.

    Example:
        >>> tokenizer = SentencePieceTokenizer.train(["a text", "another"], vocabulary_size=270)
        >>> tokenizer.detokenize(tokenizer.tokenize(["a text"]))
        <tf.Tensor: shape=(1,), dtype=string, numpy=array([b'a text'], dtype=object)>
    """

    def __init__(self, model, name=None):
        super().__init__(name=name)
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._model = model
        self.vocabulary_size = processor.vocab_size()
        self.pad_id = processor.pad_id()
        self.unknown_id = processor.unk_id()
        self.start_id = processor.bos_id()
        self.end_id = processor.eos_id()
        self._tokenizer = _tensorflow_text.sentencepiece(model)

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

    def tokenize(self, texts):
        """Strings to ids, without start or end.

        Args:
            texts: str, list of str or string tensor, (batch,) or a scalar.

        Returns:
            int32 ragged tensor, (batch, length); for a scalar a tensor, (length,).
        """
        return self._tokenizer.tokenize(texts)

    def detokenize(self, token_ids):
        """Ids to strings; special pieces vanish.

        Args:
            token_ids: int tensor, ragged tensor or nested list, (batch, length) or (length,).

        Returns:
            String tensor, (batch,) or a scalar.
        """
        return self._tokenizer.detokenize(as_token_ids(token_ids))

    def save(self, path):
        """Writes the SentencePiece model file, aside first, so that no half-written file stays."""
        _files.write_whole(path, self._model)

    @classmethod
    def load(cls, path):
        """Reads a SentencePiece model file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no SentencePiece model.
        """
        with open(path, "rb") as file:
            model = file.read()
        try:
            return cls(model)
        except RuntimeError as error:
            raise ValueError(f"Not a SentencePiece model. Received: path={os.fspath(path)!r}.") from error
