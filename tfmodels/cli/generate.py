"""`tfmodels generate`: prompts from the command line, a file or standard input."""

import sys

from tfmodels.cli.lines import read_lines, split_lines
from tfmodels.generation import generate, stream


def read_prompts(prompts, path):
    """The prompts given, or the lines of the file, or those of standard input."""
    if prompts and path:
        raise ValueError(
            f"Give prompts or --file, not both. Received: {len(prompts)} prompts, --file {path}."
        )
    if path:
        return read_lines(path)
    prompts = prompts or split_lines(sys.stdin.buffer.read())
    if not prompts:
        raise ValueError("There must be at least one prompt. Received: none.")
    return prompts


def print_texts(model, prompts, tokenizer, config, batch_size):
    """Prints a text a prompt: piece by piece on a terminal, where a person waits, else in batches."""
    if batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1. Received: {batch_size}.")
    one_text = config.method in ("greedy", "sample") and config.num_return_sequences == 1
    if one_text and sys.stdout.isatty():
        for prompt in prompts:
            for piece in stream(model, prompt, tokenizer, config):
                print(piece, end="", flush=True)
            print()
        return
    for i in range(0, len(prompts), batch_size):
        for texts in generate(model, prompts[i : i + batch_size], tokenizer, config).text:
            print(*([texts] if isinstance(texts, str) else texts), sep="\n", flush=True)
