"""`tfmodels evaluate`: scores of texts or of a model on a file of references."""

import dataclasses
import json
import os

import numpy as np

from tfmodels.cli.lines import read_lines

LIKELIHOODS = ("perplexity", "bits_per_byte")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is evaluated.

    Attributes:
        references: a file with a line a text. With `answers`: a reference, or several between tabs. With
            `run`: a source or prompt, a tab, and the references; or running text for perplexity alone.
        answers: a file of answers, a line each, to score; or
        run: a run folder, whose model answers. One of the two is needed.
        metrics: bleu, chrf, rouge1, rouge2, rougeL, exact_match, f1; and of a model perplexity and
            bits_per_byte, of the first reference; a decoder reads it after its prompt and a blank. One, or
            several with commas: bleu,chrf. Left out: those that fit.
        resamples: samples of the bootstrap, for 95% intervals.
        seed: of the bootstrap, and of a run's answers where they are sampled.
        batch_size: texts that are generated at once.
        output: a JSON file for the scores too.
    """

    references: str
    answers: str | None = None
    run: str | None = None
    metrics: list[str] | str | None = None
    resamples: int = 1000
    seed: int = 0
    batch_size: int = 32
    output: str | None = None

    def __post_init__(self):
        from tfmodels.evaluation import TEXT_METRICS

        if (self.answers is None) == (self.run is None):
            raise ValueError(f"Give one of answers and run. Received: {self.answers!r}, {self.run!r}.")
        if isinstance(self.metrics, str):
            object.__setattr__(self, "metrics", [name.strip() for name in self.metrics.split(",")])
        for name in ("resamples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {getattr(self, name)}.")
        for name in self.metrics or ():
            if name not in TEXT_METRICS + LIKELIHOODS:
                raise ValueError(
                    f"metrics must be among {', '.join(TEXT_METRICS + LIKELIHOODS)}. Received: {name!r}."
                )
            if name in LIKELIHOODS and self.run is None:
                raise ValueError(f"{name} needs a model. Received: answers alone. Give run.")


def evaluate(config, generation):
    """Scores answers, or what a run's model answers.

    Args:
        config: an `EvaluateConfig`.
        generation: the `GenerationConfig` of a run's answers.

    Returns:
        Dict of metric -> `tfmodels.evaluation.Estimate`.
    """
    if config.output is not None:
        _check_output(config.output)
    rows = [line.split("\t") for line in read_lines(config.references)]
    if config.answers is None:
        return _evaluate_run(config, rows, generation)
    from tfmodels.evaluation import evaluate_texts

    answers = read_lines(config.answers)
    if len(answers) != len(rows):
        raise ValueError(
            f"{config.answers!r} must have a line for each of {config.references!r}. "
            f"Received: {len(answers)} and {len(rows)} lines."
        )
    return evaluate_texts(answers, rows, config.metrics or ("bleu", "chrf"), config.resamples, config.seed)


def print_estimates(estimates, output):
    """Prints a line a metric, and writes them as JSON where a path is given."""
    for name, estimate in estimates.items():
        print(f"{name:14} {estimate.value:9.3f}   95% interval {estimate.low:.3f} to {estimate.high:.3f}")
    if output is not None:
        with open(output, "w", encoding="utf-8") as file:
            json.dump({name: dataclasses.asdict(e) for name, e in estimates.items()}, file, indent=1)


def _evaluate_run(config, rows, generation):
    from tfmodels.cli.run import load_run

    plain = all(len(row) == 1 for row in rows)
    metrics = config.metrics or (() if plain else ("bleu", "chrf")) + LIKELIHOODS
    texts = [name for name in metrics if name not in LIKELIHOODS]
    short = next((i for i, row in enumerate(rows, 1) if len(row) < 2), None)
    if texts and short:
        raise ValueError(
            f"{config.references}:{short}: {texts[0]} needs a source or prompt, a tab and a reference. "
            "Received: a line without a tab."
        )
    model, tokenizer = load_run(config.run)
    pairs = len(model.input_pairs) > 1
    if pairs and short:
        raise ValueError(
            f"{config.references}:{short}: this model takes a source, a tab and a reference. "
            "Received: a line without a tab."
        )
    found = {}
    # First, since it finds texts that are too long before any is written.
    if len(texts) < len(metrics):
        found |= _likelihoods(config, model, tokenizer, rows, pairs)
    if texts:
        from tfmodels.evaluation import evaluate_texts

        answers = _answers(model, tokenizer, [row[0] for row in rows], generation, config.batch_size)
        references = [row[1:] for row in rows]
        found |= evaluate_texts(answers, references, texts, config.resamples, config.seed)
    return {name: found[name] for name in metrics}


def _answers(model, tokenizer, prompts, generation, batch_size):
    """An answer a prompt, in batches of like length."""
    import tfmodels

    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [None] * len(prompts)
    for begin in range(0, len(order), batch_size):
        part = order[begin : begin + batch_size]
        result = tfmodels.generate(model, [prompts[i] for i in part], tokenizer, generation)
        for i, text in zip(part, result.text, strict=True):
            answers[i] = text if isinstance(text, str) else text[0]
    return answers


def _likelihoods(config, model, tokenizer, rows, pairs):
    import tfmodels
    from tfmodels.evaluation import evaluate_log_likelihoods

    texts = [row[0] if len(row) == 1 else row[1] for row in rows]
    if not any(texts):
        raise ValueError(f"{config.references!r} must have a text. Received: {len(rows)} empty lines.")
    # What stands before a text of a decoder is scored alone too, and taken off.
    prompts = [] if pairs else [row[0] for row in rows if len(row) > 1]
    scored = [(row[0], row[1]) if pairs else " ".join(row[:2]) for row in rows]
    result = tfmodels.score(model, scored + prompts, tokenizer)
    likelihoods, counts = result.log_likelihood, np.array([len(ids) for ids in result.token_ids])
    prompted = [i for i, row in enumerate(rows) if len(row) > 1 and not pairs]
    for values in (likelihoods, counts):
        values[prompted] -= values[len(rows) :]
    sizes = [len(text.encode()) for text in texts]
    return evaluate_log_likelihoods(
        likelihoods[: len(rows)], counts[: len(rows)], sizes, config.resamples, config.seed
    )


def _check_output(path):
    if os.path.isdir(path):
        raise ValueError(f"output must be a file. Received: {path!r}, a folder. Name a file in it.")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise ValueError(f"cannot write to {path!r}: {folder!r} is no folder that can be written.")
