"""What PPO learns from: conversations with advantages and returns, laid out as tensors.

Each answer of a route has a prompt of its own, which repeats the instructions and the history. Conversations of an
episode that begin alike share a row: their common beginning stands there once, and every token sees its own
conversation alone, at the positions it has there. It is a tree of tokens in place of its branches, with the same
gradient. The expert's walk along a route of V-IRL-L is then a quarter as many tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch

from ..models.policy import Picture, Policy, stack_pictures
from ..models.rollout import Attempt, Conversation, common_beginning

MIN_LOGPROB_WEIGHT = 0.5  # of the tokens before the answer key, in the official sequence-level ratio
_ALIKE = 0.5  # share of a conversation's tokens that must be those of the last one for both to share a row


@dataclass(frozen=True)
class Step:
    """One attempt as PPO sees it."""

    attempt: Attempt
    advantage: float
    return_: float


Played = tuple[Conversation, list[Step]]
Row = list[Played]  # one conversation, or several of an episode that begin alike


@dataclass
class Batch:
    """Rows padded to the same length, and where in them the tokens of the answers are."""

    ids: torch.Tensor  # (rows, tokens)
    row: torch.Tensor  # (answers' tokens,), as the five below: row and
    place: torch.Tensor  # place of the token before, whose state predicts
    token: torch.Tensor  # this one
    attempt: torch.Tensor  # number of the attempt that it belongs to
    old_logprobs: torch.Tensor
    weights: torch.Tensor  # of the token in the sequence-level log-probability
    prompt_row: torch.Tensor  # (attempts,): row and
    prompt_end: torch.Tensor  # place of the last prompt token, where the critic looks
    advantages: torch.Tensor  # (attempts,)
    returns: torch.Tensor  # (attempts,)
    pictures: Picture | None = None  # of the rows that have one, in their order
    # Where conversations share a row: (rows, tokens), place of a token in its conversation; and (rows, 1, tokens,
    # tokens), which tokens it sees. None where each row is one conversation, in which a token sees all before it.
    positions: torch.Tensor | None = None
    mask: torch.Tensor | None = None


def pack(played: Sequence[Played]) -> list[Row]:
    """The rows of one episode's conversations: one that begins like the last one joins its row.

    One with a picture has a row of its own, for its picture is another one and stands at the beginning.
    """
    rows: list[Row] = []
    for conversation, steps in played:
        last = rows[-1][-1][0] if rows else None
        joins = (
            last is not None
            and conversation.picture is last.picture is None
            and common_beginning(last.ids, conversation.ids) >= _ALIKE * len(conversation.ids)
        )
        if joins:
            rows[-1].append((conversation, steps))
        else:
            rows.append([(conversation, steps)])
    return rows


def lay_out(row: Row) -> tuple[list[int], list[np.ndarray]]:
    """The token ids of a row, and the places in it of each conversation's tokens."""
    ids: list[int] = []
    places: list[np.ndarray] = []
    for number, (conversation, _) in enumerate(row):
        shared = common_beginning(row[number - 1][0].ids, conversation.ids) if number else 0
        fresh = conversation.ids[shared:]
        beginning = places[-1][:shared] if number else np.arange(0)
        places.append(np.concatenate([beginning, len(ids) + np.arange(len(fresh))]))
        ids += fresh
    return ids, places


def row_length(row: Row) -> int:
    """Tokens of a row."""
    return len(lay_out(row)[0])


def make_batch(rows: Sequence[Row], policy: Policy, answer_key: str | None = None) -> Batch:
    """Stack rows, with their attempts' advantages and returns.

    With `answer_key`, tokens before its last occurrence in an answer weigh one half, as in the official code; unlike
    there the key is found in the text, so any tokenizer will do.
    """
    laid_out = [lay_out(row) for row in rows]
    longest = max(len(ids) for ids, _ in laid_out)
    ids = torch.full((len(rows), longest), policy.tokenizer.pad_token_id)
    answers, prompts, steps = [], [], []
    for number, (row, (row_ids, row_places)) in enumerate(zip(rows, laid_out, strict=True)):
        ids[number, : len(row_ids)] = torch.tensor(row_ids)
        for (conversation, its_steps), places in zip(row, row_places, strict=True):
            for step in its_steps:
                a = step.attempt
                before, said = places[a.start - 1 : a.end - 1].tolist(), conversation.ids[a.start : a.end]
                weights = key_weights(said, policy, answer_key).tolist() if answer_key else repeat(1.0)
                answers += zip(repeat(number), before, said, repeat(len(steps)), a.logprobs, weights, strict=False)
                prompts.append((number, before[0]))
                steps.append(step)
    numbers = ([step.advantage for step in steps], [step.return_ for step in steps])
    tensors = (
        ids,
        *map(torch.tensor, zip(*answers, strict=True)),
        *map(torch.tensor, zip(*prompts, strict=True)),
        *(torch.tensor(values, dtype=torch.float32) for values in numbers),
    )
    pictures = stack_pictures((conversation.picture for row in rows for conversation, _ in row), policy.device)
    seen = _sight([places for _, places in laid_out], longest) if any(len(row) > 1 for row in rows) else ()
    return Batch(*(t.to(policy.device) for t in tensors), pictures, *(t.to(policy.device) for t in seen))


def _sight(rows: Sequence[Sequence[np.ndarray]], longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`positions` and `mask` of a `Batch`, from the places of every row's conversations."""
    positions = torch.zeros(len(rows), longest, dtype=torch.long)
    # Padding sees itself: attention over nothing would be no number, and spoil the gradient of everything else.
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1)
    for number, row in enumerate(rows):
        for places in map(torch.from_numpy, row):
            positions[number, places] = torch.arange(len(places))
            mask[number, places[:, None], places] = torch.ones(len(places), len(places), dtype=torch.bool).tril()
    return positions, mask[:, None]


def hidden_states(policy: Policy, batch: Batch) -> torch.Tensor:
    """(rows, tokens, hidden size): the states of a whole batch, with its pictures."""
    seen = {} if batch.mask is None else {"attention_mask": batch.mask, "position_ids": batch.positions}
    states = policy.decoder(input_ids=batch.ids, use_cache=False, **seen, **(batch.pictures or {}))
    return states.last_hidden_state


def key_weights(ids: list[int], policy: Policy, answer_key: str) -> torch.Tensor:
    """(tokens,): one half before the token in which the last ``"answer_key"`` begins, one from there on."""
    pieces = [policy.tokenizer.decode([i]) for i in ids]
    start = "".join(pieces).rfind(f'"{answer_key}"')
    ends = np.cumsum([len(piece) for piece in pieces])
    return torch.tensor([MIN_LOGPROB_WEIGHT if end <= start else 1.0 for end in ends])
