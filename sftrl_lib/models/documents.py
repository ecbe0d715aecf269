"""The form of a pretraining document: turns of text, some of which carry loss."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One message of a document. `role` is user, assistant, or text for a document that is no conversation."""

    role: str
    content: str
    learn: bool = False


Document = list[Turn]
