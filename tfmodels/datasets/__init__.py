"""Small public-domain corpora that ship inside the package, with fixed splits."""

import lzma
from importlib import resources

_SUFFIXES = {"mt_enes_bible": ".tsv", "lm_novels": ".txt"}
_SPLITS = ("train", "valid", "test")


def load(name, split="train"):
    """A packaged corpus.

    Args:
        name: "mt_enes_bible", English and Spanish bible verses, or "lm_novels", paragraphs of
            seven novels.
        split: "train", "valid" or "test".

    Returns:
        For pairs, a list of (source, target) tuples of strings; for running text, a list of
        paragraphs in their order, with an empty string between chapters.

    Raises:
        ValueError: an unknown name or split.

    Example:
        >>> pairs = tfmodels.datasets.load("mt_enes_bible", "test")
    """
    if name not in _SUFFIXES:
        raise ValueError(f"Unknown data set. Received: name={name!r}. Choose one of: {', '.join(_SUFFIXES)}.")
    if split not in _SPLITS:
        raise ValueError(f"Unknown split. Received: split={split!r}. Choose one of: {', '.join(_SPLITS)}.")
    file = resources.files(__name__) / f"{name}.{split}{_SUFFIXES[name]}.xz"
    with file.open("rb") as compressed, lzma.open(compressed, "rt", encoding="utf-8") as text:
        lines = text.read().split("\n")[:-1]
    if _SUFFIXES[name] == ".tsv":
        return [tuple(line.split("\t")) for line in lines]
    return lines


__all__ = ["load"]
