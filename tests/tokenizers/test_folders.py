"""Hugging Face folders in and out."""

import io
import json

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
import tokenizers as library

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


@pytest.mark.parametrize("folder", ["org/no-such-folder", "spiece.model"])
def test_a_folder_that_is_none(tmp_path, folder):
    (tmp_path / "spiece.model").touch()
    with pytest.raises(FileNotFoundError, match=f"There is no folder '.*{folder}'.*snapshot_download"):
        tokenizers.from_pretrained(tmp_path / folder)


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
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"},
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
    with pytest.raises(ValueError, match="normalizer is the model's own. Received: {'type': 'Lowercase'"):
        tokenizers.from_pretrained(tmp_path)


BLANK = "\u2581"
KEEPS = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}


def unigram_folder(folder, normalizer, pre_tokenizer, added=(), **options):
    """A model like Llama's and the tokenizers library's twin of it, in a folder with both."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a few words, and a few more words", "words of one  text"] * 20),
        model_writer=model, vocab_size=285, hard_vocab_limit=False, byte_fallback=True, minloglevel=2,
        **options,
    )  # fmt: skip
    model = model.getvalue()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]
    twin = library.Tokenizer(library.models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    if normalizer:
        twin.normalizer = normalizer
    if pre_tokenizer:
        twin.pre_tokenizer = pre_tokenizer
    twin.add_special_tokens(["<unk>", "<s>", "</s>"])
    twin.add_tokens(list(added))
    decode = library.decoders
    last = [] if getattr(pre_tokenizer, "prepend_scheme", "") == "never" else [decode.Strip(" ", 1, 0)]
    parts = [decode.Replace(BLANK, " "), decode.ByteFallback(), decode.Fuse(), *last]
    twin.decoder = decode.Sequence(parts)
    folder.mkdir(exist_ok=True)
    twin.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer.model").write_bytes(model)
    return twin


def metaspace(scheme):
    return library.pre_tokenizers.Metaspace(BLANK, scheme, split=False)


LLAMA_NORMALIZER = library.normalizers.Sequence(
    [library.normalizers.Prepend(BLANK), library.normalizers.Replace(" ", BLANK)]
)


@pytest.mark.parametrize(
    "normalizer, pre_tokenizer",
    [(None, metaspace(scheme)) for scheme in ("always", "first", "never")]
    + [(LLAMA_NORMALIZER, None), (None, None)],
    ids=["always", "first", "never", "prepend", "none"],
)
def test_blanks_of_tokenizer_json(normalizer, pre_tokenizer, tmp_path):
    added = [library.AddedToken("<tool>", normalized=False)]  # one that decoding keeps
    twin = unigram_folder(tmp_path, normalizer, pre_tokenizer, added, **KEEPS)
    tokenizer = tokenizers.from_pretrained(tmp_path)
    texts = ["", " ", "a few", " a few", "  words", "words</s>words</s> and", "<s>words", "</s>", "a</s>"]
    texts += ["a<tool>few<tool> words ", f"{BLANK}words", "é日本 words"]
    if pre_tokenizer is None and normalizer is None:
        texts = [text.replace(" ", BLANK) for text in texts]  # nothing makes it one
    expected = [twin.encode(text).ids for text in texts]
    assert tokenizer.tokenize(texts).to_list() == expected
    assert tokenizer.encode(texts[2])["token_ids"].numpy().tolist() == expected[2]
    if pre_tokenizer is not None or normalizer is not None:
        got = tokenizer.detokenize(tf.ragged.constant(expected)).numpy()
        assert [text.decode() for text in got] == [twin.decode(row) for row in expected]
    tokenizer.save_pretrained(tmp_path / "new")
    assert tokenizers.from_pretrained(tmp_path / "new").tokenize(texts).to_list() == expected


def test_llama_without_tokenizer_json_puts_a_blank_as_transformers_does(tmp_path):
    for config, scheme in (({}, "first"), ({"add_prefix_space": False}, "never"), ({"legacy": True}, None)):
        normalizer = None if scheme else LLAMA_NORMALIZER
        twin = unigram_folder(tmp_path, normalizer, scheme and metaspace(scheme), **KEEPS)
        (tmp_path / "tokenizer.json").unlink()
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        texts = ["a few", "  words", "words</s>words</s> and", "<s>words"]
        got = tokenizers.from_pretrained(tmp_path).tokenize(texts).to_list()
        assert got == [twin.encode(text).ids for text in texts]


@pytest.mark.parametrize(
    "normalizer, pre_tokenizer, added, options, message",
    [
        (library.normalizers.Replace("o", "a"), metaspace("first"), {}, KEEPS, "normalizer.*'o'"),
        (library.normalizers.Strip(), metaspace("first"), {}, KEEPS, "normalizer .*'Strip'"),
        (None, library.pre_tokenizers.Digits(), {}, KEEPS, "pre_tokenizer .*Received: .*'Digits'"),
        (None, metaspace("first"), {}, {}, "pre_tokenizer.prepend_scheme = 'always'. Received: 'first'. The"),
        (None, metaspace("first"), {"rstrip": True}, KEEPS, "rstrip of the added token '<x>' = False"),
        (None, metaspace("always"), {"single_word": True}, {}, "single_word of the added token '<x>'"),
        (LLAMA_NORMALIZER, None, {"normalized": True}, KEEPS, "normalized of the added token '<x>'"),
    ],
)  # fmt: skip
def test_what_tokenizer_json_may_not_ask_for(normalizer, pre_tokenizer, added, options, message, tmp_path):
    added = [library.AddedToken("<x>", **{"normalized": False, **added})]
    unigram_folder(tmp_path, normalizer, pre_tokenizer, added, **options)
    with pytest.raises(ValueError, match=f"tokenizer.json: SentencePieceTokenizer reads files .*{message}"):
        tokenizers.from_pretrained(tmp_path)


def test_a_kind_of_tokenizer_that_there_is_none_of(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordLevel", "vocab": {"a": 0}}}')
    with pytest.raises(ValueError, match="type must be WordPiece, BPE or Unigram. Received: 'WordLevel'"):
        tokenizers.from_pretrained(tmp_path)


def test_prepend_scheme_is_checked(tokenizer):
    with pytest.raises(ValueError, match='"always", "first", "never" or None. Received: .*last'):
        SentencePieceTokenizer(tokenizer._model, prepend_scheme="last")
    with pytest.raises(ValueError, match="removes extra blanks needs prepend_scheme=None"):
        SentencePieceTokenizer(tokenizer._model, prepend_scheme="first")


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
    # Elsewhere a code is text, and one that the vocabulary lacks is unknown, as in transformers.
    text = spm[0][1].encode("Jesus >>spa<< wept.", out_type=str)
    text = [vocabulary.get(piece, vocabulary["<unk>"]) for piece in text]
    texts = ["Jesus >>spa<< wept.", ">>spa<<Jesus >>spa<< wept.", ">>deu<< Jesus >>spa<< wept.", ">>spa<<"]
    expected = [text, [vocabulary[">>spa<<"], *text], [vocabulary["<unk>"], *text], [vocabulary[">>spa<<"]]]
    assert tokenizer.tokenize(texts).to_list() == expected
    assert tokenizer.tokenize([b"\xff >>spa<<", b">>spa<<\xff"]).to_list()[1][0] == vocabulary[">>spa<<"]
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
