"""Byte-pair encoding in graph against the tokenizers library."""

import json
import random
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import pytest
import tensorflow as tf
import tokenizers

import tfmodels
from tfmodels.tokenizers import BytePairTokenizer

END = "<|endoftext|>"
TEXTS = [
    "",
    " ",
    "I'm you're they'll we'd it's I've DON'T 's''s 'll \n're\u00a0'd x'",
    "  def f(x):\n\treturn x ** 2  \n\n  ",
    "café Straße ñandú 日本語 🙂👍🏽 \u200b\u2028\u3000end",
    "3.14159 1,000,000 ²Ⅷ x86",
    f"one{END}two {END}{END} <|endof{END}",
    "nul\x00byte\x1f\x85",
    "a" * 300,
]


@pytest.fixture(scope="module")
def bpe(bible):
    return BytePairTokenizer.train([side for pair in bible for side in pair], vocabulary_size=900)


@pytest.fixture(scope="module")
def library(bpe, tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    bpe.save(path)
    return tokenizers.Tokenizer.from_file(str(path))


def expected(library, texts):
    return [library.encode(text, add_special_tokens=False).ids for text in texts]


def test_equals_the_library(bpe, library, bible):
    texts = [side for pair in bible[:200] for side in pair] + TEXTS
    ids = bpe.tokenize(texts)
    assert ids.dtype == tf.int32
    assert ids.to_list() == expected(library, texts)
    assert bpe.vocabulary_size == library.get_vocab_size() == 900
    assert [x.decode() for x in bpe.detokenize(ids, skip_special_tokens=False).numpy()] == texts
    assert [x.decode() for x in bpe.detokenize(ids).numpy()] == [x.replace(END, "") for x in texts]


# Characters on which the rules of the pre-tokenisation turn, more often than others.
telling = st.sampled_from(list(" \n\t'strevldmaA1²!-é日\u00a0\u3000\u2028🙂\u0301\x00\x1c") + [END])
characters = st.characters(exclude_categories=["Cs"])


@hypothesis.settings(max_examples=150, deadline=None, database=None, derandomize=True)
@hypothesis.given(st.lists(st.lists(telling | characters, max_size=20).map("".join), max_size=8))
def test_equals_the_library_on_any_unicode(bpe, library, texts):
    ids = bpe.tokenize(texts)
    assert ids.to_list() == expected(library, texts)
    assert [x.decode() for x in bpe.detokenize(ids, skip_special_tokens=False).numpy()] == texts


@hypothesis.settings(max_examples=150, deadline=None, database=None, derandomize=True)
@hypothesis.given(
    st.binary(max_size=20)
    | st.lists(
        st.sampled_from(
            [b"a", b" ", b"\xe2\x82", b"\xf0\x9f\x99", b"\xed\xa0\x80", b"\xff", b"\xc0", b"\xac"]
        )
    ).map(b"".join)
)
def test_invalid_bytes_are_replaced_as_python_does(bpe, library, text):
    replaced = text.decode("utf-8", "replace")
    assert bpe.tokenize([text]).to_list() == expected(library, [replaced])


def test_every_character_that_ends_a_range_of_its_class(bpe, library):
    """All neighbours of a change of class, each within letters, numbers and signs."""
    from tfmodels.tokenizers._words import character_classes

    classes = character_classes()
    edges = [i for i in range(1, len(classes)) if classes[i] != classes[i - 1]]
    points = sorted({p for edge in edges for p in (edge - 1, edge) if not 0xD800 <= p < 0xE000})
    texts = [f"a{chr(p)}1{chr(p)}!{chr(p)} {chr(p)}" for p in points]
    assert len(texts) > 1500
    assert bpe.tokenize(texts).to_list() == expected(library, texts)


def test_long_words_are_stitched_exactly(bpe, library, bible):
    generator = random.Random(3)
    letters = "".join(c for pair in bible for side in pair for c in side if c.isalpha())
    sizes = (127, 128, 129, 191, 192, 193, 256, 257, 1000, 5000)
    texts = [letters[n : n + n] for n in sizes] + ["".join(generator.choices("etao", k=n)) for n in sizes]
    # Runs of one period: the chunks never agree, up to the whole word.
    texts += ["a" * 701, "the" * 300 + "a" * 401 + letters[:200], "=" * 333, "日本" * 150]
    assert bpe.tokenize(texts).to_list() == expected(library, texts)


def test_merges_that_make_a_token_twice():
    """An odd file, in which a merge may make a pair of a lower rank: one merge a round and word."""
    bytes_ = sorted(tfmodels.tokenizers._bpe_json.byte_of_character())
    merges = [("b", "c"), ("abc", "a"), ("a", "b"), ("a", "bc"), ("ab", "c"), ("bc", "a"), ("bc", "b")]
    names = dict.fromkeys([*bytes_, *(left + right for left, right in merges)])
    vocabulary = {token: i for i, token in enumerate(names)}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = ["".join(random.Random(n).choices("abc", k=n)) for n in range(40)] + ["abcabcabc" * 40]
    assert BytePairTokenizer(vocabulary, merges).tokenize(texts).to_list() == expected(library, texts)


def test_roberta_like_special_tokens_and_prefix(bpe, tmp_path):
    config = bpe._config
    special = ["<s>", "</s>", "<mask>", "<mask>x"]
    tokenizer = BytePairTokenizer(
        config.vocabulary, config.merges, special, strip_before=["<mask>"], start_token="<s>",
        end_token="</s>", add_prefix_space=True,
    )  # fmt: skip
    tokenizer.save(tmp_path / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = ["", " a", "a", "a \n <mask> b<mask>x </s>", "b \t <mask>x \t <mask> x"]
    texts += ["<s><mask>", "\u3000<mask>\tc", "a<s>b"]
    assert tokenizer.tokenize(texts).to_list() == expected(library, texts)
    loaded = BytePairTokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.tokenize(texts).to_list() == expected(library, texts)
    assert (loaded.start_id, loaded.end_id, loaded.pad_id, loaded.unknown_id) == (900, 901, 901, -1)


def test_folder_of_vocabulary_and_merges(bpe, tmp_path):
    config = bpe._config
    (tmp_path / "vocab.json").write_text(json.dumps(config.vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in config.merges)]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n")
    tokenizer = BytePairTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize(TEXTS).to_list() == bpe.tokenize(TEXTS).to_list()
    assert tokenizer.start_id == tokenizer.end_id == tokenizer.unknown_id == config.vocabulary[END]
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": {"content": "<pad>"}}')
    assert BytePairTokenizer.from_pretrained(tmp_path).pad_id == 900


def test_folder_of_roberta_without_tokenizer_json(bpe, tmp_path):
    config = bpe._config
    special = ["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(config.vocabulary)])}
    del vocabulary[END]
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in config.merges))
    tokenizer = BytePairTokenizer.from_pretrained(tmp_path)
    word, blank = vocabulary["a"], vocabulary["\u0120"]
    assert tokenizer.encode(["a <mask>"], ["a"])["token_ids"].numpy().tolist() == [
        [0, word, 4, 1, 1, word, 1]
    ]
    (tmp_path / "tokenizer_config.json").write_text('{"mask_token": {"content": "<mask>", "lstrip": false}}')
    tokenizer = BytePairTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode(["a <mask>"])["token_ids"].numpy().tolist() == [[0, word, blank, 4, 1]]


def test_added_tokens_of_a_folder_without_tokenizer_json(bpe, tmp_path):
    """Ids as transformers 5 gives them: those of the files, and then the next ones in its order of roles."""
    config = bpe._config
    (tmp_path / "vocab.json").write_text(json.dumps(config.vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in config.merges))
    (tmp_path / "added_tokens.json").write_text('{"<tool>": 901, "<user>": 900}')
    flags = {"lstrip": True, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    named = {"additional_special_tokens": ["<user>", "<new>"], "cls_token": "<c>", "pad_token": "<pad>"}
    added = {"added_tokens_decoder": {"907": {"content": "<left>", **flags}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named | added))
    tokenizer = BytePairTokenizer.from_pretrained(tmp_path)
    (a,) = bpe.tokenize("a").numpy().tolist()
    ids = tokenizer.tokenize("<user>a<tool>a <left><pad><c><new>").numpy().tolist()
    assert ids == [900, a, 901, a, 907, 908, 909, 910]
    assert (tokenizer.pad_id, tokenizer.start_id) == (908, 909)
    # A token of added_tokens.json that no file calls special stays in the text.
    assert tokenizer.detokenize(ids).numpy() == b"a<tool>a"
    tokenizer.save_pretrained(tmp_path / "new")
    again = BytePairTokenizer.from_pretrained(tmp_path / "new")
    assert again.tokenize("<user>a<tool>a <left><pad><c><new>").numpy().tolist() == ids
    assert again.detokenize(ids).numpy() == b"a<tool>a"
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json"))
    assert library.decode(ids) == "a<tool>a"
    added["added_tokens_decoder"]["907"]["rstrip"] = True
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named | added))
    with pytest.raises(
        ValueError, match="tokenizer_config.json: .*rstrip of the added token '<left>'.*Set rstrip"
    ):
        BytePairTokenizer.from_pretrained(tmp_path)


def test_settings_of_gpt2(bpe, tmp_path):
    """As in transformers: a prefix comes before tokenizer.json, tokens around texts only without it."""
    bpe.save(tmp_path / "tokenizer.json")
    config = bpe._config
    end, plain, blank = config.vocabulary[END], bpe.tokenize("a").numpy()[0], bpe.tokenize(" a").numpy()[0]
    given = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "add_bos_token": True}

    def ids(**more):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(given | more))
        tokenizer = BytePairTokenizer.from_pretrained(tmp_path)
        return tokenizer.encode("a", "a")["token_ids"].numpy().tolist()

    assert ids() == [blank, blank]
    assert ids(tokenizer_class="PreTrainedTokenizerFast") == [plain, plain]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(config.vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in config.merges))
    assert ids() == [end, blank, end, blank]
    assert ids(add_eos_token=True) == [end, blank, end, end, blank, end]
    assert ids(bos_token="<b>", add_bos_token=False) == [blank, blank]


def test_special_tokens_that_tokenizer_json_lacks(bpe, tmp_path):
    bpe.save(tmp_path / "tokenizer.json")
    named = {"additional_special_tokens": ["<user>", "<bot>"], "pad_token": "<pad>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    tokenizer = BytePairTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("<user><bot><pad>").numpy().tolist() == [901, 902, 900]
    assert tokenizer.pad_id == 900


def test_inputs_scalar_list_and_empty(bpe):
    ids = bpe.tokenize("Jesus wept.")
    assert ids.shape.rank == 1 and ids.numpy().tolist() == bpe.tokenize(["Jesus wept."]).to_list()[0]
    assert bpe.detokenize(ids).numpy() == b"Jesus wept."
    assert bpe.detokenize([ids.numpy().tolist(), []]).numpy().tolist() == [b"Jesus wept.", b""]
    assert bpe.tokenize([]).to_list() == [] and bpe.tokenize([""]).to_list() == [[]]
    assert bpe.detokenize(bpe.tokenize("é")[:1]).numpy().decode() in ("é", "\ufffd")
    with pytest.raises(ValueError, match="list of strings. Received"):
        bpe.tokenize([["a"]])


def test_saved_model_has_core_ops_only_and_equals_tf_data(bpe, tmp_path):
    module = tf.Module()
    module.tokenizer = bpe
    signature = [tf.TensorSpec((None,), tf.string)]
    module.run = tf.function(lambda x: bpe.tokenize(x).to_tensor(-1), input_signature=signature)
    module.back = tf.function(lambda x: bpe.detokenize(bpe.tokenize(x), False), input_signature=signature)
    tf.saved_model.save(module, str(tmp_path))
    data = tf.data.Dataset.from_tensor_slices(TEXTS).batch(len(TEXTS)).map(bpe.tokenize)
    (batch,) = data
    code = (
        "import sys, json, tensorflow as tf; texts = json.load(sys.stdin);"
        "module = tf.saved_model.load(sys.argv[1]);"
        "assert 'tensorflow_text' not in sys.modules and 'tfmodels' not in sys.modules;"
        "assert [x.decode() for x in module.back(texts).numpy()] == texts;"
        "print(json.dumps(module.run(texts).numpy().tolist()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        input=json.dumps(TEXTS), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    got = json.loads(result.stdout)
    assert got == batch.to_tensor(-1).numpy().tolist()
    assert got == bpe.tokenize(TEXTS).to_tensor(-1).numpy().tolist()


@pytest.mark.parametrize(
    "texts, size, message",
    [([], 300, "no text"), (["", " "], 300, "no text"), (["a b"], 256, "at least 257")],
)
def test_bad_training_text(texts, size, message):
    with pytest.raises(ValueError, match=message):
        BytePairTokenizer.train(texts, size)


@pytest.mark.parametrize("text, size", [("a", 300), ("hello world", 257)])
def test_training_without_a_merge(text, size):
    tokenizer = BytePairTokenizer.train([text], size)
    assert tokenizer.vocabulary_size == 257
    assert tokenizer.detokenize(tokenizer.tokenize(text)).numpy() == text.encode()
    assert len(tokenizer.tokenize(text)) == len(text)


def test_bad_vocabularies(bpe):
    config = bpe._config
    with pytest.raises(ValueError, match="lacks 'zq'"):
        BytePairTokenizer(config.vocabulary, [("z", "q")])
    with pytest.raises(ValueError, match=r"256 bytes.*\[97\]"):
        BytePairTokenizer({k: v for k, v in config.vocabulary.items() if k != "a"}, [], [END])
    with pytest.raises(ValueError, match="printable form.*'a b'"):
        BytePairTokenizer(config.vocabulary | {"a b": 5000}, [], [END])


def test_bad_files(bpe, tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(FileNotFoundError, match="tokenizer.json, or vocab.json"):
        BytePairTokenizer.from_pretrained(tmp_path)
    path.write_text("no json")
    with pytest.raises(ValueError, match="tokenizer.json: the file must be JSON"):
        BytePairTokenizer.load(path)
    bpe.save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"normalizer": {"type": "NFD"}}))
    with pytest.raises(ValueError, match="normalizer = None. Received.*NFD"):
        BytePairTokenizer.load(path)
    path.unlink()
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(ValueError, match="merges.txt:2: merges must fit vocab.json.*lacks 'a'"):
        BytePairTokenizer.from_pretrained(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nabc\n")
    with pytest.raises(ValueError, match="merges.txt:2: .*Received: 'abc'"):
        BytePairTokenizer.from_pretrained(tmp_path)
