"""Training compute by the paper's formulas (section C.3): the x-axis of every curve.

    X_SFT = 6 N (D_init + D_SFT)
    X_RL  = 6 N (D_init + D_RL) + 2 N D_buffer

N is the number of parameters and D counts tokens. The paper approximates D_buffer as lambda * D_RL with lambda = 6
(GeneralPoints) or 5.1 (V-IRL), because it reads the history again for every attempt and trains on each buffer for
several epochs. We count both: D_RL is every token of every optimisation pass, D_buffer every token that went through
the model during rollouts; with a KV cache the measured lambda is smaller, so that RL gets more updates for
the same compute; `by_lambda` keeps the paper's account beside ours. A prompt counts in D_RL with each of its answers,
as in the paper, although a shared prefix is read only once (see `batch`): RL is charged more than it uses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class Compute:
    """Tokens spent so far by one branch, and what they cost."""

    parameters: int  # N
    init_tokens: int = 0  # D_init
    trained_tokens: int = 0  # D_SFT or D_RL: tokens in optimisation passes, without padding
    buffer_tokens: int = 0  # D_buffer: tokens read or generated in rollouts

    @property
    def flops(self) -> float:
        """Training compute so far, Init included, in FLOPs."""
        return self.init_flops + self.fork_flops

    @property
    def init_flops(self) -> float:
        """What Init cost, in FLOPs."""
        return 6.0 * self.parameters * self.init_tokens

    @property
    def fork_flops(self) -> float:
        """What this branch has spent since Init, in FLOPs."""
        return 6.0 * self.parameters * self.trained_tokens + 2.0 * self.parameters * self.buffer_tokens

    def by_lambda(self, factor: float | None) -> float:
        """`flops` with the paper's estimate in place of the counted tokens of rollouts: D_buffer = factor * D_RL.

        The same as `flops` without rollouts, or if `factor` is None.
        """
        if factor is None or not self.buffer_tokens:
            return self.flops
        return self.init_flops + (6.0 + 2.0 * factor) * self.parameters * self.trained_tokens

    @property
    def measured_lambda(self) -> float:
        """D_buffer / D_RL, to compare with `Task.paper_lambda`."""
        return self.buffer_tokens / max(self.trained_tokens, 1)

    def as_init(self) -> Compute:
        """Everything spent so far, counted as Init before a fork; a rollout token costs a third of a trained one."""
        return Compute(self.parameters, self.init_tokens + self.trained_tokens + round(self.buffer_tokens / 3))

    def to_dict(self) -> dict[str, int]:
        return asdict(self)
