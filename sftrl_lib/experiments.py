"""The experiments, one object each: which methods, with which settings, on which splits and seeds, for which figure.

A setting is a set of overrides, as in ``{"lr": 0.001, "frozen": "vision"}``; in the tables, in names of runs and in
notebooks it is written ``lr=0.001;frozen=vision``. Its keys are fields of the method's configuration, or else of the
study (`STUDY_FIELDS`), and `runs.Run` applies it with `dataclasses.replace`. The settings here are the laptop
profile's; the paper's are named beside them. A profile takes others with ``replace(ATTEMPTS, arms=...)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Setting = Mapping[str, Any]

STUDY_FIELDS = ("foundation", "init_steps", "fork_flops", "checkpoints")
INIT_FIELDS = ("foundation", "init_steps")  # of those, what Init depends on
OOD_SPLITS = ("id", "rule_ood", "visual_ood")
_NUMBERS = ("lr", "attempts", "temperature", "fork_flops", "checkpoints", "init_steps")  # any other value is an error


def setting_text(setting: Setting) -> str:
    """``{"lr": 0.001, "frozen": "vision"}`` -> ``"lr=0.001;frozen=vision"``."""
    return ";".join(f"{name}={_text(value)}" for name, value in setting.items())


def _text(value: Any) -> str:
    """``0.001``, ``3e-05``; all digits of a float that six do not tell."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return repr(value) if isinstance(value, float) and float(short) != value else short


def parse_setting(text: str) -> dict[str, float | str]:
    """``"lr=0.001;frozen=vision"`` -> ``{"lr": 0.001, "frozen": "vision"}``.

    A value that is not a number stays a string, except where only a number makes sense. Raises ValueError.
    """
    try:
        pairs = [item.split("=") for item in text.split(";")] if text else []
        found = {name.strip(): _number_or_word(name.strip(), value.strip()) for name, value in pairs}
        if len(found) < len(pairs):
            raise ValueError("a name stands there twice")
        return found
    except ValueError:
        raise ValueError(f"The setting {text!r} is not of the form 'name=number;name=word'.") from None


def _number_or_word(name: str, value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        if name in _NUMBERS:
            raise
        return value


@dataclass(frozen=True)
class Arm:
    """One method in an experiment."""

    method: str
    settings: tuple[Setting, ...] = ({},)  # one run per setting
    after: tuple[str, Setting] | None = None  # starts at the end of this arm's run, not where the method starts
    checkpoints: int | None = None  # number tested along the branch; None: the study's

    @property
    def varied(self) -> tuple[str, ...]:
        """The names that its settings vary, in their order."""
        return tuple(self.settings[0])


@dataclass(frozen=True)
class Experiment:
    """A comparison."""

    name: str  # in the tables
    figure: str  # the figure it is run for
    arms: tuple[Arm, ...]  # the longest runs first
    splits: tuple[str, ...] = OOD_SPLITS  # it is tested on those that the task has; empty: on all of the task's
    all_seeds: bool = False  # use all seeds of the main comparison, not just the ablations' few
    paper_end: bool = False  # keep and test the checkpoint at which RL's budget is spent by the paper's lambda, too
    notebook: str = "05_train"

    def __post_init__(self) -> None:
        for arm in self.arms:
            if not arm.settings or any(tuple(setting) != arm.varied for setting in arm.settings):
                raise ValueError(f"Experiment {self.name!r}: all settings of {arm.method!r} must name the same fields.")

    def arm(self, method: str) -> Arm:
        """The arm of a method. Raises ValueError if the experiment does not train it."""
        for arm in self.arms:
            if arm.method == method:
                return arm
        methods = " and ".join(arm.method for arm in self.arms) or "nothing"
        raise ValueError(f"Experiment {self.name!r} trains {methods}, not {method!r}.")

    def tested(self, splits: Mapping[str, Any]) -> tuple[str, ...]:
        """Those of a task's splits that it is tested on."""
        return tuple(split for split in splits if not self.splits or split in self.splits)


MAIN = Experiment("main", "fig05", (Arm("rl"), Arm("sft")), splits=(), all_seeds=True, paper_end=True)
ATTEMPTS = Experiment("attempts", "fig10", (Arm("rl", tuple({"attempts": n} for n in (1, 3, 5, 10))),))
NO_INIT = Experiment(  # paper 5e-7, 1e-6, 2e-6
    "no_init", "fig09", (Arm("rl_no_init", tuple({"lr": lr} for lr in (1e-4, 3e-4, 1e-3))),)
)
SUBOPTIMAL = Experiment("suboptimal", "fig15", (Arm("sft_suboptimal"),))
_TUNED = {  # what is frozen -> learning rates
    "none": (1e-4, 3e-4, 1e-3, 2e-3, 5e-3),  # paper 1e-7 to 1e-4
    "vision": (3e-4, 1e-3),  # paper 1e-7, 1e-6
    "vision+adapter": (3e-4, 1e-3, 2e-3),  # paper 1e-7, 5e-7, 1e-6
}
SFT_TUNING = Experiment(  # the paper shows both tunings on the training distribution alone
    "sft_tuning",
    "fig16",
    (Arm("sft", tuple({"lr": lr, "frozen": part} for part, rates in _TUNED.items() for lr in rates)),),
    splits=("id",),
)
RL_TUNING = Experiment(  # paper 1e-6, 2e-6
    "rl_tuning", "fig17", (Arm("rl", tuple({"lr": lr} for lr in (3e-4, 6e-4))),), splits=("id",)
)
OVERFITTED = Experiment(  # RL from the end of an SFT that overfits; paper 1e-7, 2e-7
    "overfitted",
    "fig19",
    (
        Arm("sft", ({"lr": 3e-3},), checkpoints=1),  # the paper's figure begins at its end
        Arm("rl", tuple({"lr": lr} for lr in (3e-4, 6e-4)), after=("sft", {"lr": 3e-3})),
    ),
)
SENSITIVITY = Experiment(  # trains nothing: tests the ends of the main comparison at every temperature
    "sensitivity", "sensitivity", (), all_seeds=True, notebook="06_sensitivity"
)

# The search for the numbers of the main comparison (PROTOCOL.md), on development seeds. Both branches are chosen by
# success on held-out instances of the training rule; `evaluation.search` tests the other splits once that is done.
CHOSEN_ON = ("id", "heldout")
_SFT_RATES, _RL_RATES = (1e-4, 3e-4, 1e-3, 2e-3, 5e-3), (1e-4, 2e-4, 3e-4, 6e-4, 1e-3)
SEARCH = Experiment(
    "search",
    "search",
    (
        Arm("rl", tuple({"lr": lr, "ratio": r} for r in ("token", "sequence") for lr in _RL_RATES), checkpoints=1),
        Arm("sft", tuple({"lr": lr} for lr in _SFT_RATES), checkpoints=1),
    ),
    splits=CHOSEN_ON,
    all_seeds=True,
)
SEARCH_INIT = Experiment(  # chosen by the mean of both branches
    "search_init",
    "search",
    tuple(Arm(method, tuple({"init_steps": n} for n in (6, 12, 24, 48)), checkpoints=1) for method in ("rl", "sft")),
    splits=CHOSEN_ON,
    all_seeds=True,
)
SEARCHES = (SEARCH, SEARCH_INIT)


def search_budget(fork_flops: float) -> Experiment:
    """SFT with once, twice and four times the compute: from which on is its curve in distribution flat?"""
    settings = tuple({"fork_flops": times * fork_flops} for times in (1, 2, 4))
    arms = (Arm("sft", settings, checkpoints=4),)
    return Experiment("search_budget", "search", arms, splits=CHOSEN_ON, all_seeds=True)


def foundations(*names: str) -> Experiment:
    """The main comparison from other foundation models of the same task, for the variance between them."""
    arms = tuple(Arm(method, tuple({"foundation": name} for name in names)) for method in ("rl", "sft"))
    return Experiment("foundations", "fig06", arms, splits=(), paper_end=True)
