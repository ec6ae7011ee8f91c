"""Other rules than GPT-2's, in graph against the tokenizers library."""

import json
import random
import subprocess
import sys
import unicodedata

import hypothesis
import hypothesis.strategies as st
import pytest
import tensorflow as tf
import tokenizers

from tfmodels.tokenizers import BytePairTokenizer, _utf8, from_pretrained
from tfmodels.tokenizers._bpe_json import byte_of_character
from tfmodels.tokenizers._nfc import Composer, composed_pairs
from tfmodels.tokenizers._unicode import combining_classes, decompositions
from tfmodels.tokenizers._words import split_words

KINDS = {
    "gpt2_digits": {},
    "llama3": {"ignore_merges": True},
    "qwen2": {"normalizer": "NFC"},
}
SPECIAL = ["<|begin|>", "<|end|>"]
TEXTS = [
    "",
    " ",
    "\n",
    "I'M you'Re they'LL we'd it'ſ DON'T 's''s 'll \n're\u00a0'd x'S'sx '\u0301s 5's",
    "  def f(x):\n\treturn x ** 2  \n\n  ",
    "a!\n\n  b !\r\n \n\tc\n \n d. \n\n\n",
    "!x !!x  !x \t!x\t\tx\t5 'x ''x",
    "1 12 123 1234 1234567  89²Ⅷ x86 3.14159 1,000,000",
    "<|begin|>one<|end|>\n<|end|>two \n<|begin|> \n",
    "cafe\u0301 n\u0303andu\u0301 \u1112\u1161\u11ab\u11a8 \u212b \u0958 日本語 🙂👍🏽 \u2028x\u3000end",
]


@pytest.fixture(scope="module", params=KINDS)
def both(request, bible, tmp_path_factory):
    """Our tokenizer, and the library's of its file."""
    texts = [side for pair in bible for side in pair] + TEXTS * 9
    options = {"pre_tokenizer": request.param, **KINDS[request.param]}
    ours = BytePairTokenizer.train(texts, vocabulary_size=900, special_tokens=SPECIAL, **options)
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
    ours.save(path)
    assert BytePairTokenizer.load(path).tokenize(TEXTS).to_list() == ours.tokenize(TEXTS).to_list()
    return ours, tokenizers.Tokenizer.from_file(str(path))


def expected(library, texts):
    return [library.encode(text, add_special_tokens=False).ids for text in texts]


def words(ours, texts):
    """The words of texts, bytes: what no merge crosses may be cut wrongly, with ids as they should be."""
    points, splits = _utf8.decode(tf.constant(texts, tf.string))
    if ours._composer is not None:
        points, splits = ours._composer.compose(points, splits)
    whole = tf.zeros([len(texts)], tf.bool)
    found, splits = split_words(points, splits, whole, ours._classes, ours._config.pre_tokenizer)
    strings = tf.strings.unicode_encode(found, "UTF-8")
    return tf.RaggedTensor.from_row_splits(strings, splits).to_list()


def expected_words(library, texts):
    if library.normalizer is not None:
        texts = [library.normalizer.normalize_str(text) for text in texts]
    table = byte_of_character()
    return [
        [bytes(map(table.get, word)) for word, _ in library.pre_tokenizer.pre_tokenize_str(text)]
        for text in texts
    ]


def test_equals_the_library(both, bible):
    ours, library = both
    texts = [side for pair in bible[:200] for side in pair] + TEXTS
    ids = ours.tokenize(texts)
    assert ids.to_list() == expected(library, texts)
    composed = [unicodedata.normalize("NFC", text) if ours._composer else text for text in texts]
    assert [x.decode() for x in ours.detokenize(ids, skip_special_tokens=False).numpy()] == composed


# Characters on which the rules turn, more often than others.
telling = st.sampled_from(list(" \n\r\t'sStTrRveLldmDſA12²!-é日\u00a0\u3000\u2028🙂\u0301\u0323\u0338\x1c"))
telling |= st.sampled_from(["<|end|>", "\u1100", "\u1161", "\u11a8", "가", "'ll", "e\u0323\u0302", " ", "\n"])
characters = st.characters(exclude_categories=["Cs"])


@hypothesis.settings(max_examples=300, deadline=None, database=None, derandomize=True)
@hypothesis.given(texts=st.lists(st.lists(telling | characters, max_size=24).map("".join), max_size=8))
def test_equals_the_library_on_any_unicode(both, texts):
    ours, library = both
    assert ours.tokenize(texts).to_list() == expected(library, texts)
    assert not texts or words(ours, texts) == expected_words(library, texts)


def test_every_order_of_few_kinds_of_characters(both):
    ours, library = both
    generator = random.Random(5)
    kinds = list(" \n\ta1!'sſL") + ["\r", "\u00a0", "\u0301"]
    texts = ["".join(generator.choices(kinds, k=generator.randrange(1, 12))) for _ in range(20000)]
    assert ours.tokenize(texts).to_list() == expected(library, texts)
    assert words(ours, texts) == expected_words(library, texts)


def compose(texts):
    points = tf.ragged.constant([[ord(x) for x in text] for text in texts], tf.int32)
    splits = tf.cast(points.row_splits, tf.int64)
    values, splits = tf.function(Composer().compose)(points.flat_values, splits)
    rows = tf.RaggedTensor.from_row_splits(values, splits).to_list()
    return ["".join(map(chr, row)) for row in rows]


def test_composed_form_of_each_character():
    library = tokenizers.normalizers.NFC()
    points = [p for p in range(0x30000) if not 0xD800 <= p < 0xE000]
    texts = [text for p in points for text in (chr(p), "a" + chr(p) + "\u0301")]
    assert compose(texts) == [library.normalize_str(text) for text in texts]


@pytest.mark.parametrize("text", ["a\u0316\u0334", "\u212b", "\u0958", "e\u0301", "\u1100\u1161", "가"])
def test_composed_form_of_one_text(text):
    """Each changes for a reason of its own, which no other text of the batch hides."""
    assert compose([text]) == [tokenizers.normalizers.NFC().normalize_str(text)]


def test_composed_form_of_marks_in_any_order():
    library = tokenizers.normalizers.NFC()
    pairs = composed_pairs()
    generator = random.Random(7)
    firsts = [first for first, _ in pairs if not 0xAC00 <= first < 0xD7A4 and not 0x1100 <= first < 0x1113]
    seconds = sorted({second for _, second in pairs} | {0x315, 0x327, 0x334, 0x345})
    choices = [*map(chr, seconds), *(chr(p) for p in generator.sample(firsts, 200)), "x", "\u1100", "\u1161"]
    texts = ["".join(generator.choices(choices, k=generator.randrange(8))) for _ in range(5000)]
    texts += [
        chr(generator.choice(firsts)) + "".join(chr(generator.choice(seconds)) for _ in range(4))
        for _ in range(5000)
    ]
    assert compose(texts) == [library.normalize_str(text) for text in texts]


def test_what_the_rounds_of_composition_rest_on():
    pairs, classes = composed_pairs(), combining_classes()
    sequences, firsts = decompositions(), {first for first, _ in pairs}
    assert len(pairs) > 12000
    assert not [first for first in firsts if classes[first]]
    assert not [second for _, second in pairs if not classes[second] and second in firsts]
    last = {first: classes[sequences.get(first, [first])[-1]] for first in firsts}
    assert not [pair for pair in pairs if 0 < classes[pair[1]] < last[pair[0]]]


def test_qwen_without_tokenizer_json(both, tmp_path):
    ours, library = both
    if ours._config.pre_tokenizer != "qwen2":
        return
    config = ours._config
    vocabulary = {token: i for token, i in config.vocabulary.items() if token not in SPECIAL}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in config.merges) + "\n")
    decoder = {str(config.vocabulary[token]): {"content": token, "special": True} for token in SPECIAL}
    fields = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": decoder, "eos_token": "<|end|>"}
    fields |= {"add_bos_token": False, "pad_token": "<|begin|>", "bos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    tokenizer = from_pretrained(tmp_path)
    assert tokenizer.tokenize(TEXTS).to_list() == expected(library, TEXTS)
    assert (tokenizer.end_id, tokenizer.pad_id, tokenizer.start_id) == (1, 0, -1)
    tokenizer.save_pretrained(tmp_path / "new")
    assert from_pretrained(tmp_path / "new").tokenize(TEXTS).to_list() == expected(library, TEXTS)


def test_saved_model_has_core_ops_only(both, tmp_path):
    ours, library = both
    module = tf.Module()
    module.tokenizer = ours
    signature = [tf.TensorSpec((None,), tf.string)]
    module.run = tf.function(lambda x: ours.tokenize(x).to_tensor(-1), input_signature=signature)
    tf.saved_model.save(module, str(tmp_path))
    code = (
        "import sys, json, tensorflow as tf; texts = json.load(sys.stdin);"
        "rows = tf.saved_model.load(sys.argv[1]).run(texts).numpy().tolist();"
        "assert 'tensorflow_text' not in sys.modules and 'tfmodels' not in sys.modules;"
        "print(json.dumps([[i for i in row if i >= 0] for row in rows]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, input=json.dumps(TEXTS), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == expected(library, TEXTS)


def test_a_word_that_merges_do_not_make(bible):
    """With ignore_merges it is its token; without, what the merges make of it."""
    texts = [side for pair in bible for side in pair]
    learnt = BytePairTokenizer.train(texts, 400, special_tokens=[], pre_tokenizer="llama3")._config
    vocabulary = learnt.vocabulary | {"Ġqzx": len(learnt.vocabulary)}
    for ignore, ids in ((True, [vocabulary["Ġqzx"]]), (False, [vocabulary[x] for x in "Ġqzx"])):
        options = {"pre_tokenizer": "llama3", "ignore_merges": ignore}
        tokenizer = BytePairTokenizer(vocabulary, learnt.merges, **options)
        assert tokenizer.tokenize(["a qzx"]).to_list() == [[vocabulary["a"], *ids]]


def test_what_is_refused(both, tmp_path):
    ours, _ = both
    path = tmp_path / "tokenizer.json"
    ours.save(path)
    content = json.loads(path.read_text())

    def refused(message, **fields):
        path.write_text(json.dumps(content | fields))
        with pytest.raises(ValueError, match=message):
            BytePairTokenizer.load(path)

    refused("reads files with normalizer = None. Received: .*NFKC", normalizer={"type": "NFKC"})
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False}
    parts = {"type": "Sequence", "pretokenizers": [split, level]}
    refused("pre_tokenizer.pattern = .*Received: 'x\\+'", pre_tokenizer=parts)
    parts = {"type": "Sequence", "pretokenizers": [level, level]}
    refused("Received: .*Sequence", pre_tokenizer=parts)
    if len(content["pre_tokenizer"]["pretokenizers"]) == 2:
        first, last = content["pre_tokenizer"]["pretokenizers"]
        parts = {"type": "Sequence", "pretokenizers": [first, last | {"add_prefix_space": True}]}
        refused("add_prefix_space = False. Received: True", pre_tokenizer=parts)
    config = ours._config
    with pytest.raises(ValueError, match="pre_tokenizer must be one of 'gpt2', .*Received: 'gpt4'"):
        BytePairTokenizer(config.vocabulary, config.merges, pre_tokenizer="gpt4")
    with pytest.raises(ValueError, match="normalizer must be one of None, 'NFC'. Received: 'NFD'"):
        BytePairTokenizer(config.vocabulary, config.merges, normalizer="NFD")
    with pytest.raises(ValueError, match="add_prefix_space is for pre_tokenizer='gpt2'. Received: 'qwen2'"):
        BytePairTokenizer(config.vocabulary, config.merges, pre_tokenizer="qwen2", add_prefix_space=True)
    for wrong in ({"pre_tokenizer": "gpt4"}, {"normalizer": "NFD"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be one of"):
            BytePairTokenizer.train(iter(()), 300, **wrong)  # before it asks for a text
    with pytest.raises(ValueError, match="special tokens must be composed"):
        BytePairTokenizer(config.vocabulary, config.merges, ["<e\u0301>"], normalizer="NFC")
