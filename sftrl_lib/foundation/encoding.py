"""Pretraining documents as token ids and labels."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedTokenizerFast

from ..models.policy import Policy
from .documents import Document
from .tokenizer import ASSISTANT, END, USER
from .vision import IMAGE

IGNORED = -100  # label of a token without loss


def tokens_per_picture(policy: Policy) -> int:
    """Number of image tokens per picture; 0 for a text model."""
    vision = getattr(policy.model.config, "vision_config", None)
    return (vision.image_size // vision.patch_size) ** 2 if vision else 0


def pictures(doc: Document) -> list[np.ndarray]:
    """The pictures of a document in order, each uint8, height x width x 3."""
    return [turn.picture for turn in doc if turn.picture is not None]


def encode(doc: Document, tokenizer: PreTrainedTokenizerFast, image_tokens: int = 0) -> tuple[list[int], list[int]]:
    """(token ids, labels) of a document, one each per token; tokens of turns without ``learn`` get the label -100."""
    role_token = {role: tokenizer.convert_tokens_to_ids(t) for role, t in (("user", USER), ("assistant", ASSISTANT))}
    end = tokenizer.convert_tokens_to_ids(END)
    ids: list[int] = []
    labels: list[int] = []
    encoded = tokenizer([turn.content for turn in doc], add_special_tokens=False).input_ids
    for turn, tokens in zip(doc, encoded, strict=True):
        if turn.role in role_token:
            ids.append(role_token[turn.role])
            labels.append(IGNORED)
        if turn.picture is not None:
            ids += [tokenizer.convert_tokens_to_ids(IMAGE)] * image_tokens
            labels += [IGNORED] * image_tokens
        if turn.role == "assistant":
            tokens = [*tokens, end]
        ids += tokens
        labels += tokens if turn.learn else [IGNORED] * len(tokens)
    return ids, labels


def encode_chat(doc: Document, policy: Policy) -> tuple[list[int], list[int]]:
    """The same by a model's own chat template, put together as rollouts do: a prompt, an answer, a reply, an answer.

    A document that is no conversation stays plain text. Raises ValueError for a picture.
    """
    ids: list[int] = []
    labels: list[int] = []
    for turn in doc:
        if turn.picture is not None:
            raise ValueError("Documents with pictures are encoded for the models of this project alone.")
        if turn.role == "user":
            asked = [{"role": "user", "content": turn.content}]
            tokens = policy.continuation_ids(turn.content) if ids else policy.prompt_ids(asked)
        else:
            tokens = policy.tokenizer(turn.content, add_special_tokens=False).input_ids
            tokens += [policy.end_token] * (turn.role == "assistant")
        ids += tokens
        labels += tokens if turn.learn else [IGNORED] * len(tokens)
    return ids, labels


def encode_for(policy: Policy, doc: Document) -> tuple[list[int], list[int]]:
    """(token ids, labels) of a document for a model of this project, or for any other one."""
    if {USER, ASSISTANT, END} <= policy.tokenizer.get_vocab().keys():
        return encode(doc, policy.tokenizer, tokens_per_picture(policy))
    return encode_chat(doc, policy)
