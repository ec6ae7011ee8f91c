"""WordPiece in graph against the tokenizers library."""

import json
import random
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import keras
import pytest
import tensorflow as tf
import tokenizers

from tfmodels.tokenizers import WordPieceTokenizer

TEXTS = [
    "",
    "  ",
    "Jesus wept. UNSEENWORD don't, Señor!",
    "Ünïcödé ñandú Straße İstanbul ΣΑΣ ǅ",
    "日本語と中文 한국어 𠀀 豈",
    "tab\tnul\x00byte\u200bzero\u00adsoft\ufffd\x85\u3000wide",
    "one[MASK]two [CLS]  [SEP][sep] [MAS",
    "a" * 100 + " " + "a" * 101 + " " + "e\u0301" * 101,
    "e\u1dfb\u0316x \u0ccb \u0958",
    "🙂👍🏽 $5.00 ¿qué? ‘quoted’ a–b",
]
FORMS = [
    {},
    {"lowercase": False},
    {"strip_accents": False},
    {"lowercase": False, "strip_accents": True, "split_chinese": False},
]


@pytest.fixture(scope="module")
def vocabulary(bible):
    texts = [side for pair in bible for side in pair] + TEXTS
    return WordPieceTokenizer.train(texts, 800)._config.vocabulary


@pytest.fixture(scope="module", params=FORMS, ids=["uncased", "cased", "accents", "odd"])
def both(request, vocabulary, tmp_path_factory):
    """Our tokenizer, and the library's of the file that ours writes."""
    tokenizer = WordPieceTokenizer(vocabulary, **request.param)
    path = tmp_path_factory.mktemp("wordpiece") / "tokenizer.json"
    tokenizer.save(path)
    return tokenizer, tokenizers.Tokenizer.from_file(str(path))


@pytest.fixture(scope="module")
def wordpiece(vocabulary):
    return WordPieceTokenizer(vocabulary)


def check_equal(both, texts):
    tokenizer, library = both
    ids = tokenizer.tokenize(texts)
    expected = [library.encode(text, add_special_tokens=False).ids for text in texts]
    assert ids.to_list() == expected
    for skip in (True, False):
        back = [text.decode() for text in tokenizer.detokenize(ids, skip).numpy()]
        assert back == [library.decode(row, skip_special_tokens=skip) for row in expected]


def test_equals_the_library(both, bible):
    check_equal(both, [side for pair in bible[:200] for side in pair] + TEXTS)
    assert both[0].tokenize(TEXTS).dtype == tf.int32


# Characters that a step of the normalisation turns on, more often than others.
telling = st.sampled_from(
    list("aeİßΣ .,'#[]-\x00\t\u0301\u0316\u1dfb\u302e\u0345éô日豈한\u0ccb\u0344\U0001d15e\U0001e944")
    + ["[MASK]", "##", "ing"]
)
characters = st.characters(exclude_categories=["Cs"])


@hypothesis.settings(max_examples=60, deadline=None, database=None, derandomize=True)
@hypothesis.given(texts=st.lists(st.lists(telling | characters, max_size=20).map("".join), max_size=8))
def test_equals_the_library_on_any_unicode(both, texts):
    check_equal(both, texts)


def test_every_character_that_ends_a_range(both):
    """All neighbours of a change in what a character becomes, among marks and letters."""
    tokenizer = both[0]
    values = tokenizer._words._values.numpy()
    deltas = values - 4 * tf.range(len(values)).numpy()
    edges = [i for i in range(1, len(values)) if deltas[i] != deltas[i - 1]]
    points = sorted({p for edge in edges for p in (edge - 1, edge) if not 0xD800 <= p < 0xE000})
    texts = [f"a{chr(p)}\u1dfb\u0316{chr(p)}.{chr(p)}" for p in points]
    assert len(texts) > 600
    normalizer, cutter = both[1].normalizer, both[1].pre_tokenizer
    words, splits = tokenizer._words.split(tf.constant(texts))
    words, splits = tf.strings.unicode_encode(words, "UTF-8").numpy(), splits.numpy()
    got = [[word.decode() for word in words[a:b]] for a, b in zip(splits, splits[1:], strict=False)]
    expected = [[w for w, _ in cutter.pre_tokenize_str(normalizer.normalize_str(t))] for t in texts]
    assert got == expected


@hypothesis.settings(max_examples=60, deadline=None, database=None, derandomize=True)
@hypothesis.given(text=st.binary(max_size=20))
def test_invalid_bytes_are_replaced_as_python_does(wordpiece, text):
    replaced = text.decode("utf-8", "replace")
    assert wordpiece.tokenize([text]).to_list() == wordpiece.tokenize([replaced]).to_list()


def test_long_and_unknown_words(both, vocabulary):
    letters = [token.removeprefix("##") for token in vocabulary if token.isascii()]
    generator = random.Random(3)
    check_equal(both, ["".join(generator.choices(letters, k=n)) for n in range(60)])
    check_equal(both, ["☃", "a☃", "☃a " * 50, "x" * 99 + "☃", "x" * 5000])


def test_vocabulary_file_with_its_options(vocabulary, tmp_path):
    tokens = sorted(vocabulary, key=vocabulary.get)
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*tokens, ""]).encode())
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "strip_accents": true}')
    tokenizer = WordPieceTokenizer.from_pretrained(tmp_path)
    expected = WordPieceTokenizer(vocabulary, lowercase=False, strip_accents=True)
    assert tokenizer.tokenize(TEXTS).to_list() == expected.tokenize(TEXTS).to_list()
    ids = [tokenizer.pad_id, tokenizer.unknown_id, tokenizer.start_id, tokenizer.end_id, tokenizer.mask_id]
    assert ids == [0, 1, 2, 3, 4] and tokenizer.vocabulary_size == len(tokens)
    tokenizer.save_pretrained(tmp_path / "new")
    assert (tmp_path / "new" / "vocab.txt").read_text() == "\n".join([*tokens, ""])
    again = WordPieceTokenizer.from_pretrained(tmp_path / "new")
    assert again.tokenize(TEXTS).to_list() == expected.tokenize(TEXTS).to_list()
    config = json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())
    assert config["do_lower_case"] is False and config["cls_token"] == "[CLS]"


def test_settings_of_the_class_come_before_tokenizer_json(vocabulary, tmp_path):
    """As in transformers, but for the class that takes tokenizer.json as it is."""
    WordPieceTokenizer(vocabulary).save(tmp_path / "tokenizer.json")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": True}
    config["tokenize_chinese_chars"] = False
    for kind, options in (
        ("BertTokenizer", {"lowercase": False, "strip_accents": True, "split_chinese": False}),
        ("PreTrainedTokenizerFast", {}),
    ):
        config["tokenizer_class"] = kind
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        expected = WordPieceTokenizer(vocabulary, **options).tokenize(TEXTS).to_list()
        assert WordPieceTokenizer.from_pretrained(tmp_path).tokenize(TEXTS).to_list() == expected


def test_added_tokens_of_a_folder_without_tokenizer_json(vocabulary, tmp_path):
    size = len(vocabulary)
    tokens = sorted(vocabulary, key=vocabulary.get)
    (tmp_path / "vocab.txt").write_text("\n".join([*tokens, ""]))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<user>": size}))
    config = {"additional_special_tokens": ["<user>", "<new>"]}
    config["added_tokens_decoder"] = {str(size + 3): {"content": "<Bot>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = WordPieceTokenizer.from_pretrained(tmp_path)
    ids = tokenizer.tokenize("<user> jesus <Bot><new>").numpy().tolist()
    assert ids == [size, vocabulary["jesus"], size + 3, size + 4]
    assert tokenizer.detokenize(ids).numpy().strip() == b"jesus"
    config["additional_special_tokens"] = []
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="special of the added token '<user>' = True. Received: False. Set"):
        WordPieceTokenizer.from_pretrained(tmp_path)


def test_added_token_that_is_found_in_normalized_text(vocabulary, tmp_path):
    """In lower case it would stand for [ent], too."""
    WordPieceTokenizer(vocabulary).save(tmp_path / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.add_special_tokens([tokenizers.AddedToken("[ENT]", normalized=True)])
    assert library.encode("[ent]", add_special_tokens=False).ids == [len(vocabulary)]
    library.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        ValueError, match=r"normalized of the added token '\[ENT\]' = False. Received: True. Set"
    ):
        WordPieceTokenizer.load(tmp_path / "tokenizer.json")


def test_works_in_tf_data_after_the_seed_is_set_and_in_a_saved_model(wordpiece, tmp_path):
    data = tf.data.Dataset.from_tensor_slices(TEXTS).batch(3).map(wordpiece.tokenize)
    before = [x.to_list() for x in data]
    keras.utils.set_random_seed(5)
    assert [x.to_list() for x in data] == before
    module = tf.Module()
    module.tokenizer = wordpiece
    module.run = tf.function(
        lambda x: wordpiece.tokenize(x).to_tensor(-1), input_signature=[tf.TensorSpec((None,), tf.string)]
    )
    tf.saved_model.save(module, str(tmp_path))
    code = (
        "import sys, json, tensorflow as tf; module = tf.saved_model.load(sys.argv[1]);"
        "assert 'tensorflow_text' not in sys.modules and 'tfmodels' not in sys.modules;"
        "print(json.dumps(module.run(json.load(sys.stdin)).numpy().tolist()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        input=json.dumps(TEXTS), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == wordpiece.tokenize(TEXTS).to_tensor(-1).numpy().tolist()


@pytest.mark.parametrize(
    "texts, size, message",
    [([], 300, "no text"), (["", " "], 300, "no text"), (["a b"], 5, "above 5")],
)
def test_bad_training_text(texts, size, message):
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer.train(texts, size)


def test_bad_files(wordpiece, tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json or vocab.txt"):
        WordPieceTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"vocab.txt: .* line '\[UNK\]'.*2 tokens"):
        WordPieceTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"[UNK]\n\xff\n")
    with pytest.raises(ValueError, match=r"vocab.txt:2: a line must be UTF-8"):
        WordPieceTokenizer.from_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    wordpiece.save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"normalizer": {"type": "NFC"}}))
    with pytest.raises(ValueError, match="normalizer.type = 'BertNormalizer'. Received: 'NFC'"):
        WordPieceTokenizer.load(path)
    with pytest.raises(ValueError, match=r"unknown_token='\[UNK\]'"):
        WordPieceTokenizer({"a": 0})
    with pytest.raises(ValueError, match="one id twice"):
        WordPieceTokenizer({"[UNK]": 0, "a": 0})
