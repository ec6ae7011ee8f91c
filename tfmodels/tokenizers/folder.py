"""The tokenizer of a Hugging Face folder."""

import os

from tfmodels.tokenizers import _files
from tfmodels.tokenizers._sentencepiece_files import MODEL_FILES
from tfmodels.tokenizers.bpe import BytePairTokenizer
from tfmodels.tokenizers.marian import MarianTokenizer
from tfmodels.tokenizers.sentencepiece import SentencePieceTokenizer
from tfmodels.tokenizers.wordpiece import WordPieceTokenizer


def from_pretrained(folder):
    """Reads the tokenizer of a Hugging Face folder, by the files that are there.

    Args:
        folder: path of a folder with tokenizer.json, vocab.txt, vocab.json and merges.txt, a SentencePiece
            model (spiece.model, sentencepiece.bpe.model, tokenizer.model), or source.spm, target.spm and
            vocab.json.

    Returns:
        A `BytePairTokenizer`, `WordPieceTokenizer`, `SentencePieceTokenizer` or `MarianTokenizer`.

    Raises:
        FileNotFoundError: there is no such folder, or it has no such files.
        ValueError: a file does not hold what its name says, or asks for what no tokenizer here does.

    Example:
        >>> tokenizer = tfmodels.tokenizers.from_pretrained("checkpoints/bert-base-uncased")
        >>> model(tokenizer.encode(["a text"]))
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"There is no folder {os.fspath(folder)!r}. A tokenizer is read from a folder: for an id of the "
            "hub pass what huggingface_hub.snapshot_download(id) returns."
        )

    def has(*names):
        return all(os.path.exists(os.path.join(folder, name)) for name in names)

    if has("source.spm"):
        return MarianTokenizer.from_pretrained(folder)
    model = _files.read_optional_json(folder, "tokenizer.json").get("model") or {}
    if model.get("type") == "WordPiece":
        return WordPieceTokenizer.from_pretrained(folder)
    if model.get("type") == "BPE" and not model.get("byte_fallback"):
        return BytePairTokenizer.from_pretrained(folder)
    if model.get("type", "Unigram") not in ("BPE", "Unigram"):
        raise ValueError(
            f"{os.path.join(folder, 'tokenizer.json')}: model.type must be WordPiece, BPE or Unigram. "
            f"Received: {model['type']!r}."
        )
    if any(has(name) for name in MODEL_FILES):
        return SentencePieceTokenizer.from_pretrained(folder)
    if model:
        raise ValueError(
            f"{os.path.join(folder, 'tokenizer.json')}: a model of type {model.get('type')!r}, "
            f"byte_fallback={model.get('byte_fallback')!r}, is read from its SentencePiece file. Received: a "
            f"folder without {', '.join(MODEL_FILES)}. Copy that file into the folder."
        )
    if has("vocab.json", "merges.txt"):
        return BytePairTokenizer.from_pretrained(folder)
    if has("vocab.txt"):
        return WordPieceTokenizer.from_pretrained(folder)
    raise FileNotFoundError(
        f"{os.fspath(folder)}: a folder must have tokenizer.json, vocab.txt, vocab.json and merges.txt, "
        f"source.spm and target.spm, or one of {', '.join(MODEL_FILES)}."
    )
