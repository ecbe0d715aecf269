"""The experiments, one object each: which methods, with which settings, on which splits and seeds, for which figure.

A setting is a set of overrides, as in ``{"lr": 0.001, "frozen": "vision"}``; in the tables, in names of runs and in
notebooks it is written ``lr=0.001;frozen=vision``. Its keys are fields of the method's configuration, or else of the
study (`STUDY_FIELDS`), or else what the task varies in training (`Task.options`), and `runs.Run` applies it. The
settings here are the laptop profile's; the paper's are named beside them. A profile takes others with
``replace(ATTEMPTS, arms=...)``.

An arm that trains exactly what the main comparison trains is not trained again: its rows are copied, or, where the
experiment tests something else, the same checkpoints are tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .task import PROBES

Setting = Mapping[str, Any]

STUDY_FIELDS = ("foundation", "init_steps", "fork_flops", "checkpoints", "rank")
INIT_FIELDS = ("foundation", "init_steps")  # of those, what Init depends on
OOD_SPLITS = ("id", "rule_ood", "visual_ood")
TESTS = ("attempts", "pass_at_k")
_NUMBERS = (  # any other value is an error
    "lr", "attempts", "temperature", "fork_flops", "checkpoints", "init_steps", "diversity", "spelt_out", "kl_coef",
    "group", "k", "rank",
)  # fmt: skip


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
    along: tuple[str, ...] | None = None  # splits on which checkpoints before the end are tested; None: all of them
    test: str = "attempts"  # the paper's protocol, or another one of `TESTS`

    def __post_init__(self) -> None:
        if self.test not in TESTS:
            raise ValueError(f"Experiment {self.name!r}: test={self.test!r} is not known; use {' or '.join(TESTS)}.")
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

    def tested(self, splits: Mapping[str, Any], probes: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Those of a task's splits that it is tested on, and those of its probes that it names."""
        named = tuple(probe for probe in probes or () if probe in self.splits)
        return tuple(split for split in splits if not self.splits or split in self.splits) + named

    @property
    def tests_again(self) -> bool:
        """Whether it tests runs that the main comparison has tested, because its own tests are others."""
        return self.test != "attempts" or any(split in PROBES for split in self.splits)


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
SFT_TUNING = Experiment(  # the paper shows both tunings on the training distribution alone; we test the ends on all
    "sft_tuning",
    "fig16",
    (Arm("sft", tuple({"lr": lr, "frozen": part} for part, rates in _TUNED.items() for lr in rates)),),
    along=("id",),
)
RL_TUNING = Experiment(  # paper 1e-6, 2e-6
    "rl_tuning", "fig17", (Arm("rl", tuple({"lr": lr} for lr in (3e-4, 6e-4))),), along=("id",)
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
_RL_ARM, _SFT_ARM = SEARCH.arms
SEARCH_RATES = replace(SEARCH, arms=(replace(_RL_ARM, settings=_RL_ARM.settings[: len(_RL_RATES)]), _SFT_ARM))
SEARCH_INIT = Experiment(  # chosen by the mean of both branches
    "search_init",
    "search",
    tuple(Arm(method, tuple({"init_steps": n} for n in (6, 12, 24, 48)), checkpoints=1) for method in ("rl", "sft")),
    splits=CHOSEN_ON,
    all_seeds=True,
)
SEARCHES = (SEARCH, SEARCH_INIT)  # of the text tasks; the picture tasks take the ratio and Init's steps of their game's


def with_ratio(search: Experiment, ratio: str) -> Experiment:
    """The search of the rates alone with another ratio of RL; any other experiment as it is."""
    if search is not SEARCH_RATES:
        return search
    rl, sft = search.arms
    return replace(search, arms=(replace(rl, settings=tuple({**s, "ratio": ratio} for s in rl.settings)), sft))


SEARCHED_AT = 1e-3  # SFT's rate where a searched setting names none


def search_budget(fork_flops: float, lr: float = SEARCHED_AT) -> Experiment:
    """SFT with once, twice and four times the compute: from which on is its curve in distribution flat?

    A rate is named only if it is another one than the rest of the search has.
    """
    rate = {} if lr == SEARCHED_AT else {"lr": lr}
    settings = tuple({**rate, "fork_flops": times * fork_flops} for times in (1, 2, 4))
    arms = (Arm("sft", settings, checkpoints=4),)
    return Experiment("search_budget", "search", arms, splits=CHOSEN_ON, all_seeds=True)


def foundations(*names: str) -> Experiment:
    """The main comparison from other foundation models of the same task, for the variance between them."""
    arms = tuple(Arm(method, tuple({"foundation": name} for name in names)) for method in ("rl", "sft"))
    return Experiment("foundations", "fig06", arms, splits=(), paper_end=True)


# Beyond the paper: controls that its readers ask for. `make controls` runs them; `claims.beyond` says what each is to
# decide. The first ones train little or nothing and test the ends of the main comparison in other ways.
_ENDS = (Arm("init"), Arm("sft"), Arm("rl"))
_ALWAYS = ("id", "heldout", "rule_ood")
_GRID = tuple(name for name in PROBES if name.startswith("grid_"))
_PANEL = ("all5", "all7", "all12", "large", "five")

# Is it the rule, or what comes with it? Then the same of shorter and longer Inits.
RULE_GRID = Experiment("rule_grid", "rules", _ENDS, splits=_GRID, along=())
RULE_GRID_INIT = Experiment(
    "rule_grid_init",
    "rules",
    (Arm("init", tuple({"init_steps": n} for n in (6, 12, 24, 48))),),
    splits=(*_ALWAYS, *_GRID),
    along=(),
)
FAKE = Experiment("fake", "rules", _ENDS, splits=("fake",), along=())  # one rule is stated, another one scores
RULE_PANEL = Experiment("rule_panel", "rules", _ENDS, splits=_PANEL, along=())
PASS_AT_K = Experiment("pass_at_k", "pass_at_k", _ENDS, splits=_ALWAYS, along=(), test="pass_at_k")

SFT_DENSE = Experiment("sft_dense", "sft_dense", (Arm("sft", checkpoints=20),), splits=_ALWAYS)  # when is OOD best?
DFT = Experiment("dft", "controls", (Arm("sft", ({"loss": "dft"},)),), splits=_ALWAYS)
KL_SFT = Experiment("kl_sft", "controls", (Arm("sft", tuple({"kl_coef": c} for c in (0.1, 1.0))),), splits=_ALWAYS)
GRPO = Experiment("grpo", "controls", (Arm("rl", ({"group": 8},)),), splits=_ALWAYS)
DIVERSITY = Experiment(  # share of training hands under other rules
    "diversity",
    "controls",
    tuple(Arm(method, tuple({"diversity": share} for share in (0.0, 0.3, 0.7))) for method in ("rl", "sft")),
    splits=(*_ALWAYS, "fake", *_PANEL),
    along=(),
)
WORDINGS = Experiment(  # the training rule in both lengths of the sentence that states it
    "wordings", "controls", (Arm("sft", ({"spelt_out": 0.5},)),), splits=_ALWAYS
)
STRICT = Experiment(  # Fig. 9, but an answer without all three fields earns nothing
    "strict_no_init",
    "fig09",
    (Arm("rl_no_init", tuple({"fields": "all", "lr": lr} for lr in (1e-4, 3e-4, 1e-3))),),
)
STRICT_ATTEMPTS = Experiment(  # Fig. 10 likewise, because RL with one attempt drops the list of numbers
    "strict_attempts", "fig10", (Arm("rl", tuple({"fields": "all", "attempts": n} for n in (1, 3, 5, 10))),)
)
PICTURES_DROPPED = Experiment(  # at the rates of Fig. 16
    "pictures_dropped",
    "pictures_dropped",
    (Arm("sft", tuple({"pictures": "dropped", "lr": lr} for lr in _TUNED["none"])),),
    splits=(),
)
HABIT = Experiment(  # foundation models that have seen J, Q, K = 10 without being told, in 30 or 70 % of hands
    "habit",
    "habit",
    tuple(
        Arm(method, tuple({"foundation": name} for name in ("gp-l", "gp-l-habit-30", "gp-l-habit-70")))
        for method in ("rl", "sft")
    ),
    splits=(*_ALWAYS, "fake", *_GRID),
    along=(),
)


def dose(fork_flops: float) -> Experiment:
    """SFT at several rates, for the compute of the main comparison and for three times as much."""
    doses = ((1e-4, 1), (3e-4, 1), (1e-3, 1), (3e-3, 1), (3e-4, 3), (1e-3, 3))
    settings = tuple({"lr": lr, "fork_flops": times * fork_flops} for lr, times in doses)
    return Experiment("dose", "controls", (Arm("sft", settings),), splits=_ALWAYS)


def lora(rl: float, sft: float) -> Experiment:
    """LoRA on Init's weights against all weights (rank 0), at the main comparison's rates and at three times them."""
    arms = tuple(
        Arm(method, tuple({"lr": rate, "rank": rank} for rate in (lr, round(3 * lr, 6)) for rank in (0, 4, 16, 64)))
        for method, lr in (("rl", rl), ("sft", sft))
    )
    return Experiment("lora", "lora", arms, splits=_ALWAYS, along=())


def rejection(rollouts: int, right: int = 0) -> Experiment:
    """SFT on Init's own right answers: as many `rollouts` as RL plays, or as many `right` answers as RL gives."""
    counts = {"rollouts": rollouts, "right": right}
    settings = tuple({"counted": counted, "count": count} for counted, count in counts.items() if count)
    return Experiment("rejection", "controls", (Arm("rejection", settings),), splits=_ALWAYS)
