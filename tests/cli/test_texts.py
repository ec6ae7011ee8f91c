"""Texts in and out of the command line: prompts, references, perplexity, pieces on a terminal."""

import io

import numpy as np
import pytest

import tfmodels
from tests.reference.weights import randomise
from tfmodels.cli import main

SIZES = {"num_layers": 1, "hidden_dim": 16, "num_heads": 2, "intermediate_dim": 32}


def test_lines_end_where_files_say(tmp_path, capsys, monkeypatch):
    """A text may hold marks at which `str.splitlines` would end it."""
    from tfmodels.cli.generate import read_prompts

    texts = ["one\u2028two", "three\x0cfour\x85", "", "five\rsix"]
    path = tmp_path / "texts.txt"
    path.write_bytes(("\ufeff" + "\n".join(texts) + "\n").replace("two\n", "two\r\n").encode())
    assert tfmodels.data.read_texts(path) == texts
    assert read_prompts([], str(path)) == texts
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert read_prompts([], None) == texts
    assert main(["evaluate", str(path), "--answers", str(path), "--metrics", "[exact_match]"]) == 0
    assert "100.000" in capsys.readouterr().out
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="texts.txt' must be a text file in UTF-8"):
        read_prompts([], str(path))
    path.write_text("")
    with pytest.raises(ValueError, match="texts.txt' must have at least one line"):  # and reads nothing else
        read_prompts([], str(path))


def test_perplexity_is_of_the_first_reference(tmp_path, capsys, monkeypatch):
    """What a decoder reads before it is no part of the text."""
    text = ["In the beginning God created the heaven and the earth."]
    tokenizer = tfmodels.tokenizers.BytePairTokenizer.train(text * 3, vocabulary_size=290)
    model = tfmodels.models.gpt2("tiny", vocabulary_size=290, **SIZES)
    randomise(model, seed=2, scale=0.3)
    monkeypatch.setattr("tfmodels.cli.run.load_run", lambda folder: (model, tokenizer))
    path = tmp_path / "references.txt"
    path.write_text("In the\tbeginning\tend\nGod\tcreated the heaven\tdid\n")
    nats, tokens = 0.0, 0
    for prompt, reference in (("In the", " beginning"), ("God", " created the heaven")):
        before, after = (tokenizer.tokenize(part).numpy().tolist() for part in (prompt, reference))
        ids = np.array([[tokenizer.end_id, *before, *after]])
        logits = np.asarray(model({"token_ids": ids}), "float64")[0]
        chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nats -= sum(chances[i, ids[0, i + 1]] for i in range(len(before), len(before) + len(after)))
        tokens += len(after)
    arguments = ["--run", "run", "--metrics", "[perplexity, bits_per_byte]"]
    assert main(["evaluate", str(path), *arguments]) == 0
    perplexity, bits = (float(line.split()[1]) for line in capsys.readouterr().out.strip().splitlines())
    assert perplexity == pytest.approx(np.exp(nats / tokens), rel=1e-4)
    assert bits == pytest.approx(nats / np.log(2) / len("beginningcreated the heaven"), abs=1e-3)


@pytest.mark.parametrize("terminal", [False, True])
def test_generate_reads_files_and_streams(tmp_path, capsys, monkeypatch, terminal):
    """On a terminal texts come in pieces, elsewhere in batches: the same texts."""
    from tfmodels.cli import generate as command

    prompts = ["one", "two", "three"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    config = tfmodels.GenerationConfig()
    monkeypatch.setattr(
        command, "generate", lambda m, p, t, c: type("Result", (), {"text": [x.upper() for x in p]})
    )
    monkeypatch.setattr(command, "stream", lambda m, p, t, c: iter(p.upper()))
    monkeypatch.setattr(command.sys.stdout, "isatty", lambda: terminal, raising=False)
    read = command.read_prompts([], str(tmp_path / "prompts.txt"))
    assert read == prompts
    command.print_texts(None, read, None, config, batch_size=2)
    assert capsys.readouterr().out == "ONE\nTWO\nTHREE\n"
