"""Testing checkpoints as the paper does: sampled, several attempts with feedback (section 5, C.3).

How they differ:
* paper / official code: 234 hands or 48 routes, one seed, ID episodes drawn from the training distribution,
  temperature unstated.
* ours: more of them at the ends and fewer along the curves, several seeds, the rollout temperature; ID as theirs, plus
  hands and routes held out of all training, each puzzle or route as often as any other. All checkpoints of a seed
  are tested on the same hands and routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..configs import Protocol
from ..models.policy import Policy
from ..models.rollout import Episode, rollout
from ..progress import progress_bar
from ..seeds import TEST_SAMPLING, of_split, resets
from ..task import Task, mean


def play(
    policy: Policy,
    task: Task,
    split: str,
    how: Protocol,
    seed: int,
    batch: int = 256,
    description: str = "",
    samples: int = 1,
) -> list[Episode]:
    """Play `how.episodes` hands or routes of `split`, each `samples` times in a row, `batch` of them side by side.

    They depend on (split, seed) alone, so checkpoints are paired, and fewer episodes are the first of more. The
    episodes come without their pictures. Raises ValueError for an unknown split.
    """
    arguments = task.split(split)
    starts = [reset for reset in resets(task, split, seed, how.episodes) for _ in range(samples)]
    envs = [task.make_env(arguments, how.attempts) for _ in range(min(batch, len(starts)))]
    with progress_bar(len(starts), description or split, task.unit) as bar:

        def ended(episode: Episode) -> None:
            for conversation in episode.conversations:
                conversation.picture = None  # no metric needs it, and those of 250 routes fill a gigabyte
            bar.update()

        sampling = of_split(TEST_SAMPLING, task, split, seed, len(starts))
        return rollout(policy, envs, starts, how.temperature, how.max_new_tokens, sampling, ended)


def within(episodes: Sequence[Episode], attempts: int) -> tuple[float, int]:
    """Success with the first `attempts` attempts alone (at a hand; at each position of a route), and n."""
    return mean([e.terminated and max(len(c.attempts) for c in e.conversations) <= attempts for e in episodes])


def transcript(task: Task, split: str, episode: Episode, policy: Policy, number: int) -> dict[str, Any]:
    """A readable record of an episode: its task, then each prompt, the answer and the verifier's verdict."""
    about, positions = task.about(split, episode)
    turns = []
    for position, conversation in zip(positions, episode.conversations, strict=False):
        shown = 0
        for attempt in conversation.attempts:
            before = policy.tokenizer.decode(conversation.ids[shown : attempt.start], skip_special_tokens=True)
            verdict = {"outcome": attempt.outcome, "reward": attempt.reward, "feedback": attempt.feedback}
            turns.append({"prompt": before, "output": attempt.text, **verdict, **position})
            shown = attempt.end
    return {"episode": number, "success": episode.terminated, **about, "turns": turns}
