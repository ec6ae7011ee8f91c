"""Contrastive search and diverse beams against plain Python over the model's full forward pass."""

import numpy as np
import pytest

from tests.generation.test_generation import (
    PROMPTS,
    decoder,  # noqa: F401  a fixture
    log_probabilities,
    padded,
    rows_of,
)
from tfmodels import generate


def contrastive_by_hand(model, prompt, alpha, k, steps):
    context = list(prompt)
    for _ in range(min(steps, 9 - len(prompt) + 1)):
        chance = np.exp(log_probabilities(model, context, []))
        if len(context) == 9:  # no position is left to read a candidate at
            context.append(int(chance.argmax()))
            break
        scores = {}
        for token in np.argsort(-chance)[:k].tolist():
            hidden = np.asarray(model.final_hidden({"token_ids": np.array([[*context, token]])}), "float64")[
                0
            ]
            hidden /= np.linalg.norm(hidden, axis=1, keepdims=True)
            scores[token] = (1 - alpha) * chance[token] - alpha * (hidden[:-1] @ hidden[-1]).max()
        context.append(max(scores, key=scores.get))
    return context[len(prompt) :]


def test_contrastive_search(decoder):  # noqa: F811
    """Mixed lengths, up to the end of the positions."""
    plain = rows_of(generate(decoder, padded(PROMPTS), max_new_tokens=4, stop=()))
    options = dict(method="contrastive", penalty_alpha=0.6, top_k=3, max_new_tokens=5, stop=())
    found = rows_of(generate(decoder, padded(PROMPTS), **options))
    assert found == [contrastive_by_hand(decoder, prompt, 0.6, 3, 5) for prompt in PROMPTS]
    assert [row[:4] for row in found] != plain


def test_contrastive_search_keeps_the_rules(decoder):  # noqa: F811
    """With fewer words left than there are candidates it chooses among those that are."""
    prompts = padded(np.random.default_rng(0).integers(0, 13, (40, 3)).tolist())
    options = dict(method="contrastive", penalty_alpha=1.0, top_k=4, max_new_tokens=5, stop=(4,))
    free = generate(decoder, prompts, **options)
    assert set(free.token_ids.ravel()) - {4, 9} and (free.lengths < 5).any()
    bans = tuple((word,) for word in range(13) if word not in (4, 9))
    found = generate(decoder, prompts, bad_words=bans, min_new_tokens=3, forced_tokens=(9, 9), **options)
    assert set(found.token_ids.ravel()) <= {0, 4, 9} and (found.lengths >= 3).all()
    assert (found.token_ids[:, :3] == 9).all()


def test_groups_pay_alike_at_the_limit(decoder):  # noqa: F811
    """A group may end with the token with which the one before has ended, also at the last step."""
    options = dict(method="diverse_beam", num_beams=2, num_return_sequences=2, diversity_penalty=3.0)
    prompts = padded(np.random.default_rng(1).integers(0, 13, (40, 3)).tolist())
    short, long = (generate(decoder, prompts, max_new_tokens=n, stop=(4, 9, 11), **options) for n in (1, 2))
    both_end = (long.lengths == 1).all(axis=1)
    assert both_end.any() and (short.end_reason[both_end] == "stop").all()


@pytest.mark.parametrize("forced", [(), (4,)])
def test_diverse_beams(decoder, forced):  # noqa: F811
    """Three groups of one beam each: greedy search that pays for the tokens of the groups before.

    What is forced costs nothing.
    """
    penalty, steps = 1.5, 4
    options = dict(method="diverse_beam", num_beams=3, num_beam_groups=3, num_return_sequences=3, stop=())
    found = generate(
        decoder,
        padded(PROMPTS),
        diversity_penalty=penalty,
        length_penalty=0.0,
        max_new_tokens=steps,
        forced_tokens=forced,
        **options,
    )
    for row, prompt in enumerate(PROMPTS):
        groups = [[0.0, []] for _ in range(3)]
        for step in range(steps):
            taken = np.zeros(13)
            for group in groups:
                if step < len(forced):
                    group[1] = [forced[step]]
                    continue
                scores = log_probabilities(decoder, prompt, group[1]) - penalty * taken
                token = int(scores.argmax())
                taken[token] += 1
                group[0] += scores[token]
                group[1] = [*group[1], token]
        expected = [written for _, written in sorted(groups, key=lambda group: -group[0])]
        assert found.token_ids[row].tolist() == expected


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(method="contrastive"), "top_k of at least 2. Received: top_k=0"),
        (dict(method="beam", top_k=3), "top_k=3, method='beam'"),
        (dict(method="contrastive", top_k=2, penalty_alpha=1.5), "penalty_alpha must be from 0 to 1"),
        (dict(method="diverse_beam", num_beams=4, num_beam_groups=3), "num_beams=4, num_beam_groups=3"),
        (dict(method="diverse_beam", diversity_penalty=-1.0), "diversity_penalty must be at least 0"),
    ],
)
def test_bad_options(decoder, options, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        generate(decoder, {"token_ids": [[1]]}, **options)
