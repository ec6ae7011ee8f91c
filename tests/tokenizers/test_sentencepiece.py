"""SentencePiece in graph against the sentencepiece library."""

import io

import keras
import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from tfmodels.tokenizers import SentencePieceTokenizer

TEXTS = ["Jesus wept.", "", "  two  blanks ", "¿Qué? ñandú 日本 🙂", "tab\tand\nnewline", "a" * 300]


def test_equals_the_library(tokenizer, bible, tmp_path):
    tokenizer.save(tmp_path / "v.model")
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "v.model"))
    texts = [side for pair in bible[:100] for side in pair] + TEXTS
    ids = tokenizer.tokenize(texts)
    assert ids.dtype == tf.int32
    assert ids.to_list() == library.encode(texts)
    assert [t.decode() for t in tokenizer.detokenize(ids).numpy()] == library.decode(ids.to_list())
    assert library.vocab_size() == tokenizer.vocabulary_size == 700
    special = [tokenizer.pad_id, tokenizer.unknown_id, tokenizer.start_id, tokenizer.end_id]
    assert special == [0, 1, 2, 3]


def test_identity_is_lossless():
    tokenizer = SentencePieceTokenizer.train(TEXTS * 20, vocabulary_size=290, normalization="identity")
    unseen = ["é ü  ß", "\u200b zero width", "trailing  "]
    texts = [text.lstrip() for text in TEXTS + unseen if text]  # tensorflow_text drops leading blanks
    got = [t.decode() for t in tokenizer.detokenize(tokenizer.tokenize(texts)).numpy()]
    assert got == texts


def test_special_ids_vanish_and_inputs_may_be_lists(tokenizer):
    ids = tokenizer.tokenize("Jesus wept.").numpy().tolist()
    padded = [[tokenizer.start_id, *ids, tokenizer.end_id, 0, 0]]
    assert tokenizer.detokenize(padded).numpy() == [b"Jesus wept."]
    assert tokenizer.detokenize(np.array(ids)).numpy() == b"Jesus wept."
    assert tokenizer.detokenize([ids, ids[:1]]).shape == (2,)


def test_llamas_special_ids_pad_with_the_end_token():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world"] * 50), model_writer=model, vocab_size=267, byte_fallback=True,
        minloglevel=2,
    )  # fmt: skip
    library = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    tokenizer = SentencePieceTokenizer(model.getvalue())
    assert (library.pad_id(), tokenizer.pad_id, tokenizer.end_id) == (-1, 2, 2)
    batch = tokenizer.encode(["hello", "hello world"])
    rows = [[*library.encode(text), 2] for text in ("hello", "hello world")]
    assert batch["token_ids"].numpy().tolist() == tf.ragged.constant(rows).to_tensor(2).numpy().tolist()
    assert batch["padding_mask"].numpy().sum(1).tolist() == [len(row) for row in rows]


def test_works_in_tf_data_after_the_seed_is_set(tokenizer):
    """set_random_seed clears TensorFlow's kernel caches, and upstream's tokenizer with them."""
    tokenizer = SentencePieceTokenizer(tokenizer._model)  # never used before the pipeline
    data = tf.data.Dataset.from_tensor_slices(TEXTS).batch(2).map(tokenizer.tokenize)
    before = [x.to_list() for x in data]
    keras.utils.set_random_seed(5)
    assert [x.to_list() for x in data] == before


def test_canary_upstream_still_loses_its_model(tokenizer):
    """Fails the day tensorflow_text owns its model itself: then _tensorflow_text.py can shrink."""
    import tensorflow_text

    upstream = tensorflow_text.SentencepieceTokenizer(tokenizer._model)
    upstream.tokenize(["a"])
    keras.utils.set_random_seed(5)
    with pytest.raises(tf.errors.NotFoundError, match="does not exist"):
        upstream.tokenize(["a"])


def test_saved_model(tokenizer, tmp_path):
    module = tf.Module()
    module.tokenizer = tokenizer
    signature = [tf.TensorSpec((None,), tf.string)]
    module.run = tf.function(lambda x: tokenizer.tokenize(x).to_tensor(), input_signature=signature)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.run(TEXTS), tokenizer.tokenize(TEXTS).to_tensor())


@pytest.mark.parametrize("prefixes", [True, False])
@pytest.mark.parametrize("removes", [True, False])
def test_first_blank_as_the_library_has_it(bible, prefixes, removes):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([pair[0] for pair in bible]), model_writer=model, vocab_size=300,
        add_dummy_prefix=prefixes, remove_extra_whitespaces=removes, minloglevel=2,
    )  # fmt: skip
    library = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ours = SentencePieceTokenizer(model.getvalue(), special_tokens=["<x>"])
    texts = [" the end", "the end", "  the  end ", "", " "]
    ids = ours.tokenize(texts)
    assert ids.to_list() == library.encode(texts)
    assert [x.decode() for x in ours.detokenize(ids).numpy()] == library.decode(library.encode(texts))


@pytest.mark.parametrize(
    "texts, size, message",
    [([], 300, "no text"), (["", " "], 300, "no text"), (["a b"], 5000, "vocabulary_size=5000")],
)
def test_bad_training_text(texts, size, message):
    with pytest.raises(ValueError, match=message):
        SentencePieceTokenizer.train(texts, size)


def test_bad_file_and_failed_save(tokenizer, tmp_path):
    (tmp_path / "bad.model").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="Not a SentencePiece model.*bad.model"):
        SentencePieceTokenizer.load(tmp_path / "bad.model")
    with pytest.raises(FileNotFoundError):
        SentencePieceTokenizer.load(tmp_path / "none.model")
    with pytest.raises(OSError):
        tokenizer.save(tmp_path / "no folder" / "v.model")
