"""`encode`: templates, truncation and padding, against the tokenizers library."""

import pytest
import tensorflow as tf
import tokenizers

from tfmodels.tokenizers import BytePairTokenizer, WordPieceTokenizer

ROBERTA = ("<s> $A </s>", "<s> $A </s> </s> $B </s>")
LLAMA = ("<s> $A", "<s> $A <s> $B")


@pytest.fixture(scope="module")
def texts(bible):
    firsts = ["", "Jesus wept.", *(pair[0] for pair in bible[:40])]
    return firsts, [*(pair[1] for pair in bible[3:43]), "", "x"]


def bert(bible):
    return WordPieceTokenizer.train([side for pair in bible for side in pair], 500)


def byte_pair(bible, template):
    special = ["<s>", "</s>", "<pad>"]
    return BytePairTokenizer.train(
        [side for pair in bible for side in pair], 400, special, start_token="<s>", end_token="</s>",
        pad_token="<pad>", template=template,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["bert", "roberta", "llama", "plain"])
def both(request, bible, tmp_path_factory):
    """Our tokenizer, and the library's of the file that ours writes."""
    make = {
        "bert": lambda: bert(bible),
        "roberta": lambda: byte_pair(bible, ROBERTA),
        "llama": lambda: byte_pair(bible, LLAMA),
        "plain": lambda: byte_pair(bible, None),
    }
    tokenizer = make[request.param]()
    path = tmp_path_factory.mktemp("encode") / "tokenizer.json"
    tokenizer.save(path)
    library = tokenizers.Tokenizer.from_file(str(path))
    assert type(tokenizer).load(path).template == tokenizer.template
    return tokenizer, library


@pytest.mark.parametrize("max_length", [None, 6, 13, 14, 41])
@pytest.mark.parametrize("two", [False, True])
def test_equals_the_library(both, texts, max_length, two):
    tokenizer, library = both
    library.no_truncation()
    if max_length is not None:
        library.enable_truncation(max_length, strategy="longest_first")
    library.enable_padding(pad_id=tokenizer.pad_id)
    batch = list(zip(*texts, strict=True)) if two else texts[0]
    expected = library.encode_batch(batch)
    got = tokenizer.encode(texts[0], texts[1] if two else None, max_length=max_length)
    assert got["token_ids"].numpy().tolist() == [row.ids for row in expected]
    assert got["padding_mask"].numpy().tolist() == [row.attention_mask for row in expected]
    assert all(value.dtype == tf.int32 for value in got.values())
    assert ("segment_ids" in got) == tokenizer.has_segments == isinstance(tokenizer, WordPieceTokenizer)
    if tokenizer.has_segments:
        assert got["segment_ids"].numpy().tolist() == [row.type_ids for row in expected]


def test_no_special_tokens_fixed_length_and_scalars(both):
    tokenizer, library = both
    library.no_truncation()
    library.no_padding()
    text = "Jesus wept."
    ids = library.encode(text, add_special_tokens=False).ids
    got = tokenizer.encode([text], max_length=20, padding="max_length", add_special_tokens=False)
    assert got["token_ids"].numpy().tolist() == [ids + [tokenizer.pad_id] * (20 - len(ids))]
    whole = tokenizer.encode(text)
    assert whole["token_ids"].numpy().tolist() == library.encode(text).ids
    data = tf.data.Dataset.from_tensors((text, "He")).map(lambda a, b: tokenizer.encode(a, b, max_length=9))
    (row,) = data
    library.enable_truncation(9, strategy="longest_first")
    assert row["token_ids"].numpy().tolist() == library.encode(text, "He").ids


def test_bad_arguments(both, bible):
    tokenizer, _ = both
    if tokenizer.template.tokens:
        with pytest.raises(ValueError, match=r"room for the template's \d special.*max_length=0"):
            tokenizer.encode(["a"], max_length=0)
    with pytest.raises(ValueError, match="padding='left'"):
        tokenizer.encode(["a"], padding="left")
    with pytest.raises(ValueError, match="needs a max_length"):
        tokenizer.encode(["a"], padding="max_length")
    with pytest.raises(ValueError, match="Give it a pad_token"):
        BytePairTokenizer.train(["a b"], 257, special_tokens=()).encode(["a"])
    with pytest.raises(ValueError, match=r"template's tokens.*\['\[BOS\]'\]"):
        WordPieceTokenizer(tokenizer._config.vocabulary | {"[UNK]": 9000}, template="[BOS] $A")
    with pytest.raises(ValueError, match="template must have"):
        WordPieceTokenizer({"[UNK]": 0}, template="[CLS] [SEP]")
