"""Who was right how often, under each rule: the person beside the models."""

from __future__ import annotations

from collections.abc import Hashable

YOU = "You"


class Scores:
    """For each (rule, player), the questions that were tried and whether they were solved.

    A question counts once for each player, as it went the last time.
    """

    def __init__(self) -> None:
        self._tried: dict[tuple[str, str], dict[Hashable, bool]] = {}

    def record(self, rule: str, player: str, question: Hashable, solved: bool) -> None:
        self._tried.setdefault((rule, player), {})[question] = solved

    def of(self, rule: str, player: str) -> tuple[int, int]:
        """(solved, tried)."""
        tried = self._tried.get((rule, player), {})
        return sum(tried.values()), len(tried)

    @property
    def rules(self) -> list[str]:
        """The rules under which anything was tried, in the order of their first question."""
        return list(dict.fromkeys(rule for rule, _ in self._tried))

    @property
    def players(self) -> list[str]:
        """Who has tried anything; the person first."""
        names = dict.fromkeys(player for _, player in self._tried)
        return sorted(names, key=lambda name: name != YOU)
