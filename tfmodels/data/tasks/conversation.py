"""Prompts with responses, and dialogues: text of which a decoder learns a part."""

import itertools

import numpy as np

from tfmodels.data.examples import Examples
from tfmodels.data.ragged import Ragged
from tfmodels.data.tokens import (
    Frame,
    Table,
    check_pairs,
    check_text,
    padding_id,
    special_id,
    tokenize,
    where,
)


def prompt_response(pairs, tokenizer, max_length):
    """Prompts with responses for a decoder, with the loss on the response and its end only.

    Prompt and response are tokenized apart, as generation has them; a blank between them belongs to the
    response.

    Args:
        pairs: list of (prompt, response) strings.
        tokenizer: has `tokenize`, `encode`, `template`, `end_id` and `pad_id`; what its template puts
            before a text stands before the prompt.
        max_length: int; pairs with more tokens are left out.

    Returns:
        `Examples` of x, a dict of `token_ids`; y, int32 (length,), the next tokens; and sample_weight, 1
        where the next token is the response's. `left_out` says how many were too long.

    Raises:
        ValueError: there are no pairs, an element is not a pair of texts, or a text is empty.
    """
    prompts, responses = check_pairs(pairs, "(prompt, response)")
    before = Frame(tokenizer).before()
    prompts = tokenize(tokenizer, prompts).between(before=before)
    responses = tokenize(tokenizer, responses).between(after=[special_id(tokenizer, "end_id")])
    scored = prompts.filled(False, bool).followed_by(responses.filled(True, bool))
    return _next_tokens(prompts.followed_by(responses), scored, tokenizer, max_length)


def dialogue(conversations, tokenizer, max_length, speaker=None, prefixes=None):
    """Turns of several speakers for a decoder; each turn is ended by the end token (Zhang et al. 2020).

    Args:
        conversations: list of lists of (speaker, text) turns.
        tokenizer: has `tokenize`, `encode`, `template`, `end_id` and `pad_id`.
        max_length: int; of a longer conversation the first turns are left out, whole; one whose last turn
            alone is longer is left out.
        speaker: str, whose turns have the loss, each with its end token; None: all but the first turn.
        prefixes: dict of speaker to the text before their turns, such as {"user": "User: "}; None:
            nothing.

    Returns:
        `Examples` of x, a dict of `token_ids`; y, int32 (length,), the next tokens; and sample_weight, 1
        where the next token is to be learnt. `left_out` says how many had no turn to learn.

    Raises:
        ValueError: there are no conversations, a turn is no pair of texts, or a speaker has no prefix.
    """
    if not len(conversations):
        raise ValueError("There must be at least one conversation. Received: none.")
    for i, turns in enumerate(conversations):
        _check_turns(turns, prefixes, where(conversations, i))
    end, before = special_id(tokenizer, "end_id"), Frame(tokenizer).before()
    turns = list(itertools.chain.from_iterable(conversations))
    strings = [text for _, text in turns] + list((prefixes or {}).values())
    table = Table(tokenizer, strings)
    rows, scored = [], []
    for turns in conversations:
        parts, room = [], max_length + 1 - len(before)  # the last token is a target only
        for i, (who, text) in reversed(list(enumerate(turns))):
            prefix = table[prefixes[who]] if prefixes else []
            learnt = i > 0 if speaker is None else who == speaker
            ids = [*prefix, *table[text], end]
            if len(ids) > room:
                break
            room -= len(ids)
            parts.append((ids, [False] * len(prefix) + [learnt] * (len(ids) - len(prefix))))
        parts.append((before, [False] * len(before)))
        rows.append([token for ids, _ in reversed(parts) for token in ids])
        scored.append([weight for _, weights in reversed(parts) for weight in weights])
    return _next_tokens(Ragged.from_rows(rows), Ragged.from_rows(scored, bool), tokenizer, max_length)


def _next_tokens(ids, scored, tokenizer, max_length):
    """Examples in which each token predicts the next; those too long or without a target are left out."""
    count = len(ids)
    not_empty = np.flatnonzero(ids.lengths > 1)
    ids, scored = ids.select(not_empty), scored.select(not_empty)
    # The first token is nobody's target.
    y, weight = _without_first(ids), _without_first(scored)
    learnt = np.bincount(np.repeat(np.arange(len(y)), y.lengths), weight.values, len(y)) > 0
    kept = np.flatnonzero(learnt & (y.lengths <= max_length))
    y, weight = y.select(kept), weight.select(kept)
    x = ids.first(ids.lengths - 1).select(kept)
    pad = padding_id(tokenizer)
    return Examples.from_ragged(
        {"padding_mask": {"x/token_ids": x, "y": y, "sample_weight": weight}},
        pad={"x/token_ids": pad, "y": pad},
        left_out=count - len(kept),
    )


def _without_first(ragged):
    keep = np.ones(len(ragged.values), bool)
    keep[ragged.begins] = False
    return Ragged(ragged.values[keep], ragged.lengths - 1)


def _check_turns(turns, prefixes, place):
    if isinstance(turns, str) or not len(turns):
        raise ValueError(
            f"{place}: a conversation must be a list of (speaker, text) turns. Received: {turns!r}."
        )
    for turn in turns:
        if not isinstance(turn, tuple | list) or len(turn) != 2:
            raise ValueError(f"{place}: a turn must be a (speaker, text) pair. Received: {turn!r}.")
        check_text(turn[1], place)
        if prefixes is not None and turn[0] not in prefixes:
            raise ValueError(
                f"{place}: unknown speaker. Received: {turn[0]!r}. Known: {', '.join(map(str, prefixes))}."
            )
