"""A small decoder and its export with all signatures, which several files only read."""

import pytest

import tfmodels
from tests.checks import randomise


@pytest.fixture(scope="session")
def words():
    text = ["In the beginning God created the heaven and the earth."] * 3
    return tfmodels.tokenizers.BytePairTokenizer.train(text, vocabulary_size=290)


@pytest.fixture(scope="session")
def decoder(words):
    model = tfmodels.models.gpt2(
        "tiny",
        vocabulary_size=words.vocabulary_size,
        num_layers=1,
        num_heads=2,
        hidden_dim=12,
        intermediate_dim=8,
        max_sequence_length=24,
    )
    randomise(model, seed=2, scale=0.3)
    return model


@pytest.fixture(scope="session")
def greedy_export(words, decoder, tmp_path_factory):
    """The folder of version 1; `max_new_tokens` is 5."""
    return tfmodels.export(decoder, words, tmp_path_factory.mktemp("exports") / "words", max_new_tokens=5)
