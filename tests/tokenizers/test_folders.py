"""Hugging Face folders in and out."""

import json

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from tfmodels import tokenizers
from tfmodels.tokenizers import MarianTokenizer, SentencePieceTokenizer

TEXTS = ["", "Jesus wept.", "  two  blanks ", "¿Qué? ñandú 日本 🙂", "a" * 90]


@pytest.fixture(scope="module")
def spm(bible, tmp_path_factory):
    """A model without start and padding, as T5's: bytes of it, and the library's processor."""
    path = tmp_path_factory.mktemp("spm")
    models = []
    for number in (0, 1):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([pair[number] for pair in bible]), model_prefix=str(path / "m"),
            vocab_size=300, bos_id=-1, pad_id=-1, eos_id=1, unk_id=2 if number else 0, minloglevel=2,
        )  # fmt: skip
        model = (path / "m.model").read_bytes()
        models.append((model, sentencepiece.SentencePieceProcessor(model_proto=model)))
    return models


def test_t5_has_its_sentinels(spm, tmp_path):
    model, library = spm[0]
    (tmp_path / "spiece.model").write_bytes(model)
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "pad_token": "<pad>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = tokenizers.from_pretrained(tmp_path)
    assert tokenizer.tokenize(TEXTS).to_list() == library.encode(TEXTS)
    assert tokenizer.vocabulary_size == 401  # and the padding, which this model lacks
    ids = tokenizer.tokenize("<extra_id_0> wept.<extra_id_99></s>").numpy().tolist()
    assert ids == [399, *library.encode("wept."), 300, library.eos_id()]
    assert tokenizer.detokenize(ids).numpy() == b"wept."
    text = tokenizer.detokenize(ids, skip_special_tokens=False).numpy()
    assert text == b"<extra_id_0> wept.<extra_id_99></s>"
    first, second = library.encode("Jesus"), library.encode("wept")
    got = tokenizer.encode(["Jesus"], ["wept"])["token_ids"].numpy().tolist()
    assert got == [[*first, library.eos_id(), *second, library.eos_id()]]
    assert (tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id) == (400, 400, library.eos_id())
    tokenizer.save_pretrained(tmp_path / "new")
    again = tokenizers.from_pretrained(tmp_path / "new")
    assert again.tokenize(TEXTS).to_list() == library.encode(TEXTS) and again.pad_id == 400


def test_llama_and_roberta_with_sentencepiece(tokenizer, tmp_path):
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer._model)
    tokenizer.save(tmp_path / "tokenizer.model")
    llama = tokenizers.from_pretrained(tmp_path)
    rows = llama.encode(TEXTS, max_length=9)["token_ids"].numpy().tolist()
    start = library.bos_id()
    assert [row[:1] for row in rows] == [[start]] * 5
    assert rows[1][1:] == (library.encode(TEXTS[1]) + [0] * 9)[:8]
    (tmp_path / "tokenizer.model").rename(tmp_path / "sentencepiece.bpe.model")
    with pytest.raises(ValueError, match="known for the classes T5Tokenizer, Llama"):
        tokenizers.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    roberta = tokenizers.from_pretrained(tmp_path)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(library.id_to_piece(i) for i in range(3, 700)), "<mask>"]
    expected = [[pieces.index(piece) for piece in library.encode(text, out_type=str)] for text in TEXTS]
    assert roberta.tokenize(TEXTS).to_list() == expected
    ids = [roberta.start_id, roberta.pad_id, roberta.unknown_id, roberta.mask_id]
    assert ids == [0, 1, 3, 701]


def test_sentencepiece_ids_of_tokenizer_json(tokenizer, tmp_path):
    """A Unigram tokenizer.json says the ids and the template; its model does the work."""
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer._model)
    pieces = ["<new>", *(library.id_to_piece(i) for i in range(700))]
    sequence = [{"SpecialToken": {"id": "<new>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    content = {
        "added_tokens": [{"id": 0, "content": "<new>", "special": True, "lstrip": False}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled"}]},
        "post_processor": {"type": "TemplateProcessing", "single": sequence, "pair": sequence},
        "model": {"type": "Unigram", "vocab": [[piece, 0.0] for piece in pieces]},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'Unigram'.*Received: a folder without spiece.model"):
        tokenizers.from_pretrained(tmp_path)
    tokenizer.save(tmp_path / "spiece.model")
    loaded = tokenizers.from_pretrained(tmp_path)
    expected = [[0, *(i + 1 for i in library.encode(text))] for text in TEXTS]
    got = loaded.encode(TEXTS)
    ids = [
        row[:n]
        for row, n in zip(got["token_ids"].numpy().tolist(), got["padding_mask"].numpy().sum(1), strict=True)
    ]
    assert ids == expected
    assert [x.decode() for x in loaded.detokenize(got["token_ids"]).numpy()] == [
        library.decode(row) for row in library.encode(TEXTS)
    ]
    content["normalizer"]["normalizers"] += [{"type": "Lowercase"}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="normalizer is the model's own. Received: Lowercase"):
        tokenizers.from_pretrained(tmp_path)


def marian_folder(spm, folder):
    pieces = [library.id_to_piece(i) for _, library in spm for i in range(300)]
    names = dict.fromkeys(
        ["</s>", "<unk>", ">>spa<<", *pieces[:500], "<pad>"]
    )  # without some of the target's
    vocabulary = {piece: i for i, piece in enumerate(names)}
    folder.mkdir(exist_ok=True)
    (folder / "source.spm").write_bytes(spm[0][0])
    (folder / "target.spm").write_bytes(spm[1][0])
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return vocabulary


def test_marian_has_two_models_and_one_vocabulary(spm, tmp_path):
    vocabulary = marian_folder(spm, tmp_path)
    tokenizer = tokenizers.from_pretrained(tmp_path)
    assert isinstance(tokenizer, MarianTokenizer)
    for number, side in ((0, tokenizer), (1, tokenizer.target)):
        rows = spm[number][1].encode(TEXTS, out_type=str)
        expected = [[vocabulary.get(piece, vocabulary["<unk>"]) for piece in row] for row in rows]
        assert side.tokenize(TEXTS).to_list() == expected
    ids = tokenizer.encode([">>spa<< Jesus wept."])["token_ids"].numpy()[0].tolist()
    rows = spm[0][1].encode("Jesus wept.", out_type=str)
    assert ids == [vocabulary[">>spa<<"], *(vocabulary[piece] for piece in rows), vocabulary["</s>"]]
    known = [p for p in spm[1][1].encode("Jesús lloró y oró.", out_type=str) if p in vocabulary]
    assert len(known) > 5
    assert tokenizer.detokenize([vocabulary[piece] for piece in known]).numpy().decode() == spm[1][
        1
    ].decode_pieces(known)
    assert tokenizer.pad_id == tokenizer.start_id == vocabulary["<pad>"]
    tokenizer.save_pretrained(tmp_path / "new")
    again = tokenizers.from_pretrained(tmp_path / "new")
    assert again.tokenize(TEXTS).to_list() == tokenizer.tokenize(TEXTS).to_list()


def test_marian_in_a_saved_model(spm, tmp_path):
    marian_folder(spm, tmp_path / "folder")
    tokenizer = tokenizers.from_pretrained(tmp_path / "folder")
    module = tf.Module()
    module.tokenizer = tokenizer
    signature = [tf.TensorSpec((None,), tf.string)]
    module.run = tf.function(lambda x: tokenizer.encode(x)["token_ids"], input_signature=signature)
    tf.saved_model.save(module, str(tmp_path / "saved"))
    got = tf.saved_model.load(str(tmp_path / "saved")).run(TEXTS)
    np.testing.assert_array_equal(got, tokenizer.encode(TEXTS)["token_ids"])


def test_bad_marian_folders(spm, tmp_path):
    vocabulary = marian_folder(spm, tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({k: v for k, v in vocabulary.items() if k != "<pad>"}))
    with pytest.raises(ValueError, match="vocab.json: .*pad_token. Received: none '<pad>'"):
        tokenizers.from_pretrained(tmp_path)
    (tmp_path / "target.spm").unlink()
    with pytest.raises(FileNotFoundError, match="target.spm"):
        tokenizers.from_pretrained(tmp_path)


def test_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match="must have tokenizer.json, vocab.txt"):
        tokenizers.from_pretrained(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="Not a SentencePiece model"):
        SentencePieceTokenizer.from_pretrained(tmp_path)


def test_the_class_follows_the_files(bible, tmp_path):
    texts = [side for pair in bible[:50] for side in pair]
    for kind, size in ((tokenizers.BytePairTokenizer, 300), (tokenizers.WordPieceTokenizer, 200)):
        folder = tmp_path / kind.__name__
        made = kind.train(texts, size)
        made.save_pretrained(folder)
        loaded = tokenizers.from_pretrained(folder)
        assert type(loaded) is kind and loaded.template == made.template
        assert loaded._config.vocabulary == made._config.vocabulary
        roles = ("pad_id", "unknown_id", "start_id", "end_id", "mask_id", "vocabulary_size", "has_segments")
        assert [getattr(loaded, role) for role in roles] == [getattr(made, role) for role in roles]
