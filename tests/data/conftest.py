"""Vocabularies for the tests of this folder."""

import pytest

import tfmodels


@pytest.fixture(scope="session")
def wordpiece(bible):
    return tfmodels.tokenizers.WordPieceTokenizer.train([p[0] for p in bible], vocabulary_size=400)


@pytest.fixture(scope="session")
def byte_pair(bible):
    return tfmodels.tokenizers.BytePairTokenizer.train([p[0] for p in bible], vocabulary_size=400)
