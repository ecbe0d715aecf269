"""PPO's training batches: conversations as tensors, with their attempts' advantages and returns.

Prefix sharing: each answer of a route has a prompt of its own, which repeats the instructions and the history.
Conversations of an episode with a common prefix are packed into one row: the prefix is stored once, and a tree
attention mask restricts every token to its own conversation, at its positions there. The gradient is the same; the
expert's walk along a route of V-IRL-L takes a quarter of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..answers import find_key
from ..models.masks import masks_of_layers
from ..models.mllama import cross_inputs
from ..models.pictures import Picture, stack_pictures
from ..models.policy import Policy
from ..models.rollout import Attempt, Conversation, shared_prefix

KEY_WEIGHT = 0.5  # of the tokens before the answer key, in the official sequence-level ratio
MIN_SHARED = 0.5  # share of a conversation's tokens that must be a prefix of the one before for both to share a row


@dataclass(frozen=True)
class Step:
    """One attempt with its advantage and return."""

    attempt: Attempt
    advantage: float
    return_: float


Conversations = list[tuple[Conversation, list[Step]]]  # of one episode, in order
Row = Conversations  # those in one row of the batch: one, or several with a shared prefix


@dataclass
class Batch:
    """Rows padded on the right. T: answer tokens of all rows; A: attempts of all rows."""

    input_ids: torch.Tensor  # (rows, length)
    # Of each answer token:
    row: torch.Tensor  # (T,): its row
    predictor: torch.Tensor  # (T,): column of the preceding token, whose hidden state predicts it
    token: torch.Tensor  # (T,): its id
    attempt: torch.Tensor  # (T,): index of its attempt, 0 to A - 1
    old_logprobs: torch.Tensor  # (T,): by the policy before it learns
    sampled_logprobs: torch.Tensor  # (T,): by the engine that sampled it; mostly the same
    weights: torch.Tensor  # (T,): its weight in the sequence-level log-probability
    # Of each attempt:
    prompt_row: torch.Tensor  # (A,): its row
    prompt_end: torch.Tensor  # (A,): column of its last prompt token, the critic's input
    advantages: torch.Tensor  # (A,)
    returns: torch.Tensor  # (A,)
    pictures: Picture | None = None  # of the rows that have one, in order
    # None if every row is one conversation, with plain causal attention:
    position_ids: torch.Tensor | None = None  # (rows, length): of a token in its conversation
    attention_mask: torch.Tensor | None = None  # (rows, 1, length, length), bool: which tokens a token attends to


def pack(conversations: Conversations) -> list[Row]:
    """The rows of one episode: a conversation that starts like the one before joins its row.

    One with a picture has a row of its own, because its picture differs and comes first.
    """
    rows: list[Row] = []
    for conversation, steps in conversations:
        last = rows[-1][-1][0] if rows else None
        joins = (
            last is not None
            and conversation.picture is last.picture is None
            and shared_prefix(last.ids, conversation.ids) >= MIN_SHARED * len(conversation.ids)
        )
        if joins:
            rows[-1].append((conversation, steps))
        else:
            rows.append([(conversation, steps)])
    return rows


def lay_out(row: Row) -> tuple[list[int], list[np.ndarray]]:
    """The token ids of a row, and for each conversation the columns of its tokens."""
    ids: list[int] = []
    columns: list[np.ndarray] = []
    for number, (conversation, _) in enumerate(row):
        shared = shared_prefix(row[number - 1][0].ids, conversation.ids) if number else 0
        fresh = conversation.ids[shared:]
        prefix = columns[-1][:shared] if number else np.arange(0)
        columns.append(np.concatenate([prefix, len(ids) + np.arange(len(fresh))]))
        ids += fresh
    return ids, columns


def row_length(row: Row) -> int:
    """Tokens of a row."""
    return len(lay_out(row)[0])


def by_length(rows: Sequence[Row], tokens: int) -> list[list[Row]]:
    """`rows` in micro-batches of similar length, and of at most `tokens` tokens, padding included.

    A row that is longer than that is a micro-batch of its own.
    """
    parts: list[list[Row]] = []
    for length, row in sorted(((row_length(row), row) for row in rows), key=lambda pair: pair[0]):
        if not parts or (len(parts[-1]) + 1) * length > tokens:  # `row` would be the longest in the part
            parts.append([])
        parts[-1].append(row)
    return parts


def make_batch(rows: Sequence[Row], policy: Policy, answer_key: str = "") -> Batch:
    """Stack rows, with their attempts' advantages and returns.

    With `answer_key`, tokens before it in an answer weigh one half, as in the official code; unlike there the key is
    found in the text, so any tokenizer works, by the rule of the verifiers (`answers.py`).
    """
    laid_out = [lay_out(row) for row in rows]
    length = max(len(ids) for ids, _ in laid_out)
    input_ids = torch.full((len(rows), length), policy.tokenizer.pad_token_id)
    names = "row", "predictor", "token", "attempt", "logprobs", "sampled", "weights"
    tokens: dict[str, list] = {name: [] for name in names}
    prompt_row, prompt_end, steps = [], [], []
    for r, (row, (row_ids, row_columns)) in enumerate(zip(rows, laid_out, strict=True)):
        input_ids[r, : len(row_ids)] = torch.tensor(row_ids)
        for (conversation, its_steps), columns in zip(row, row_columns, strict=True):
            for step in its_steps:
                answer = step.attempt
                ids, count = conversation.ids[answer.start : answer.end], answer.end - answer.start
                predictors = columns[answer.start - 1 : answer.end - 1].tolist()
                tokens["row"] += [r] * count
                tokens["predictor"] += predictors
                tokens["token"] += ids
                tokens["attempt"] += [len(steps)] * count
                tokens["logprobs"] += answer.logprobs
                tokens["sampled"] += answer.logprobs if answer.sampled is None else answer.sampled
                tokens["weights"] += key_weights(ids, policy, answer_key).tolist() if answer_key else [1.0] * count
                prompt_row.append(r)
                prompt_end.append(predictors[0])
                steps.append(step)
    several = any(len(row) > 1 for row in rows)
    positions, mask = _tree([columns for _, columns in laid_out], length) if several else (None, None)
    device = policy.device
    return Batch(
        input_ids.to(device),
        *(torch.tensor(values).to(device) for values in tokens.values()),
        torch.tensor(prompt_row).to(device),
        torch.tensor(prompt_end).to(device),
        torch.tensor([step.advantage for step in steps], dtype=torch.float32).to(device),
        torch.tensor([step.return_ for step in steps], dtype=torch.float32).to(device),
        stack_pictures((conversation.picture for row in rows for conversation, _ in row), device),
        positions if positions is None else positions.to(device),
        mask if mask is None else mask.to(device),
    )


def _tree(rows: Sequence[Sequence[np.ndarray]], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`position_ids` and `attention_mask` of a `Batch`, from the columns of every row's conversations."""
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    # Let padding attend to itself: a fully masked row gives NaN, which would poison the whole gradient.
    mask = torch.eye(length, dtype=torch.bool).repeat(len(rows), 1, 1)
    for r, row in enumerate(rows):
        for columns in map(torch.from_numpy, row):
            count = len(columns)
            positions[r, columns] = torch.arange(count)
            mask[r, columns[:, None], columns] = torch.ones(count, count, dtype=torch.bool).tril()
    return positions, mask[:, None]


def hidden_states(policy: Policy, batch: Batch) -> torch.Tensor:
    """(rows, length, hidden size): the last hidden states of a batch, with its pictures."""
    tree = {}
    if batch.attention_mask is not None:
        positions, config = batch.position_ids, policy.model.config.get_text_config()
        masks = masks_of_layers(config, batch.attention_mask, positions, positions)
        tree = {"attention_mask": masks, "position_ids": positions}
    crossed = cross_inputs(batch.input_ids, policy.image_token, batch.pictures)
    with policy.precision():
        output = policy.decoder(
            input_ids=batch.input_ids, use_cache=False, **tree, **crossed, **(batch.pictures or {})
        )  # fmt: skip
    return output.last_hidden_state


def key_weights(ids: list[int], policy: Policy, answer_key: str) -> torch.Tensor:
    """(tokens,): one half before the token in which the ``"answer_key"`` that counts starts, one from there on."""
    pieces = [policy.tokenizer.decode([i]) for i in ids]
    start = find_key("".join(pieces), answer_key)
    ends = np.cumsum([len(piece) for piece in pieces])
    return torch.tensor([KEY_WEIGHT if end <= start else 1.0 for end in ends])
