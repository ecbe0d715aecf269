"""A task, a method, an experiment, a figure and a profile of which the library knows nothing: EXTENDING.md's recipes.

``SFTRL_EXTENSIONS=toy_extension`` makes them known; `test_extending.py` takes them through everything.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from gymnasium.envs.registration import register

from sftrl_lib.attempts import AttemptsEnv, Grade, check_choice
from sftrl_lib.claims.statistics import level_of
from sftrl_lib.configs import EvaluationConfig, PPOConfig, SFTConfig
from sftrl_lib.experiments import MAIN, Arm, Experiment
from sftrl_lib.figures import style
from sftrl_lib.figures.draw import FIGURES
from sftrl_lib.methods import METHODS, RL_PANELS, Method
from sftrl_lib.profiles import PROFILES, Profile, Study
from sftrl_lib.tables import ends, select, settings_of
from sftrl_lib.task import Example, Task, Words, text_example
from sftrl_lib.tasks import TASKS

# --8<-- [task]
ASKED = "Two numbers, {a} and {b}. The rule is: {rule}. Answer with the result alone."
WORD = {"add": "add them", "subtract": "subtract the second from the first"}


class Sums(AttemptsEnv):
    """Add two digits, or subtract them: the rule is in the prompt."""

    def __init__(self, modality="text", rule="add", max_attempts=2, verifier="exact"):
        super().__init__(modality, max_attempts, verifier, image_shape=(8, 8))
        self.rule = check_choice("rule", rule, tuple(WORD))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        a, b = (int(number) for number in self.np_random.integers(1, 10, 2))
        self.result = a + b if self.rule == "add" else a - b
        self._ask(ASKED.format(a=a, b=b, rule=WORD[self.rule]))
        return self._observation(), self._info(None, None)

    def _grade(self, action: str) -> Grade:
        if action.strip() == str(self.result):
            return Grade(1.0, "correct", "Correct.")
        return Grade(-1.0, "wrong", "That is wrong.")

    def _info(self, outcome, feedback):
        return {"outcome": outcome, "feedback": feedback, "attempts_left": self._attempts_left, "result": self.result}


@dataclass(frozen=True)
class SumsTask(Task):
    def demonstrations(self, kind: str, rng: np.random.Generator) -> Iterator[Example]:
        env = self.training_env(1)
        while True:
            observation, info = env.reset(seed=int(rng.integers(2**32)))
            yield text_example(observation["messages"][0]["content"], str(info["result"]))


register("toy/Sums-v0", entry_point=Sums)
SUMS = TASKS.add(
    SumsTask(
        key="sums",
        label="Sums",
        name="sums",
        modality="text",
        env="toy/Sums-v0",
        training={"rule": "add"},
        splits={"id": {"rule": "add"}, "rule_ood": {"rule": "subtract"}},
        answer_key="result",
        unit="sum",
        words=Words(
            title="sums",
            heldout="held-out sums",
            new_rule="subtraction",
            metrics={"success": "success rate"},
            tables={"success": ("success",)},
        ),
    )
)
# --8<-- [/task]


# --8<-- [method]
@dataclass(frozen=True)
class ReinforceConfig:
    """REINFORCE with the batch's mean reward as the baseline."""

    episodes: int = 4
    attempts: int = 2
    lr: float = 1e-3
    temperature: float = 1.0
    max_new_tokens: int = 4


def train(branch) -> None:
    """A trainer: it takes a `training.branch.Branch`; the loop takes care of budget, checkpoints and log."""
    import torch

    from sftrl_lib.models.rollout import rollout
    from sftrl_lib.training.batch import Step, make_batch
    from sftrl_lib.training.logprobs import token_logprobs
    from sftrl_lib.training.loop import train_by_updates
    from sftrl_lib.training.ppo import summarise

    policy, config = branch.policy, branch.config
    optimizer = torch.optim.AdamW([p for p in policy.model.parameters() if p.requires_grad], lr=config.lr)
    envs = [branch.task.training_env(config.attempts) for _ in range(config.episodes)]

    def update(progress):
        seeds = progress.seeds(branch.seed, 2 * config.episodes)
        resets = [{"seed": seed} for seed in seeds[: config.episodes]]
        sampling = seeds[config.episodes :]
        episodes = rollout(policy, envs, resets, config.temperature, config.max_new_tokens, sampling)
        baseline = np.mean([attempt.reward for episode in episodes for attempt in episode.attempts])
        rows = [
            [(conversation, [Step(a, a.reward - baseline, a.reward) for a in conversation.attempts])]
            for episode in episodes
            for conversation in episode.conversations
        ]
        batch = make_batch(rows, policy)
        logprobs = token_logprobs(policy, batch, config.temperature)
        loss = -(batch.advantages[batch.attempt] * logprobs).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        branch.compute.buffer_tokens += sum(episode.tokens_read for episode in episodes)
        branch.compute.trained_tokens += sum(len(row[0][0].ids) for row in rows)
        return {**summarise(episodes), "loss": loss.item()}

    train_by_updates(branch, optimizer, update, "REINFORCE")


METHODS.add(
    Method(
        "reinforce", "REINFORCE", "#009e73", "X", ReinforceConfig, f"{__name__}:train",
        panels={"success": RL_PANELS["success"], "loss": "loss"},
    )
)  # fmt: skip
# --8<-- [/method]

# --8<-- [experiment]
RATES = Experiment(
    "reinforce_rates", "reinforce_rates", (Arm("reinforce", ({"lr": 1e-3}, {"lr": 1e-2})),), splits=("id", "rule_ood")
)
COMPARED = Experiment("main", "fig05", (*MAIN.arms, Arm("reinforce")), splits=(), all_seeds=True)
# --8<-- [/experiment]

# --8<-- [profile]
PROFILES.add(
    Profile(
        name="toy",
        seeds=(0,),
        device="cpu",
        rollout_batch=4,
        studies=tuple(
            Study(
                task=task,
                foundation=os.environ.get("TOY_MODEL", "Qwen/Qwen2.5-0.5B-Instruct"),  # a path or a hub name
                fork_flops=3e8,
                init_steps=2,
                checkpoints=1,
                sft=SFTConfig(examples=16, batch_size=4),
                ppo=PPOConfig(episodes=6, attempts=2, max_new_tokens=4, minibatches=1),
                evaluation=EvaluationConfig(
                    episodes_end=6, episodes_curve=6, episodes_greedy=4, attempts=2, max_new_tokens=4
                ),
                experiments=experiments,
            )
            for task, experiments in ((SUMS, (COMPARED, RATES)), (TASKS["gp-l"], (MAIN,)))
        ),
    )
)
# --8<-- [/profile]


# --8<-- [figure]
def reinforce_rates(tables):
    """A figure: success under the new rule per learning rate, with intervals."""
    rows = ends(select(tables.metrics, experiment="reinforce_rates", split="rule_ood", metric="success"))
    if rows.empty:
        raise style.NothingToDraw("it needs rows of experiment 'reinforce_rates'")
    title, subtitle = "REINFORCE on sums", style.caption(tables.profile, rows, "lines")
    figure = style.canvas(5, 3, title, subtitle)
    axes = figure.subplots()
    series = []
    for place, (rate, part) in enumerate(rows.groupby(settings_of(rows, "lr"))):
        estimate = level_of(part)
        style.error_bar(axes, place, estimate, METHODS["reinforce"].color)
        axes.plot(place, 100 * estimate.value, METHODS["reinforce"].marker, color=METHODS["reinforce"].color)
        series.append({"lr": rate} | style.percent(estimate))
    axes.set(xticks=range(len(series)), xticklabels=[f"{item['lr']:g}" for item in series], ylabel="success (%)")
    record = style.record("reinforce_rates", title, subtitle, tables.profile, series, None)
    return style.Drawing(figure, record)


FIGURES["reinforce_rates"] = style.styled(reinforce_rates)
# --8<-- [/figure]
