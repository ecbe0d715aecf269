"""A run: one training of one task, by one method, in one experiment, under one setting, from one seed.

This is the one place that names a run, its folders and what it depends on, and that applies a setting. It knows nothing
of how training works and loads no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

from . import fingerprint, paths
from .configs import LoRAConfig
from .experiments import INIT_FIELDS, STUDY_FIELDS, Arm, Experiment, Setting, parse_setting, setting_text
from .fingerprint import Identity
from .foundation import taught
from .methods import INIT, METHODS, Method
from .profiles import PROFILES, Profile, Study, get_profile
from .task import Task

DATA_SEED = 20_000  # demonstrations are the same for all runs; what varies is their order
_TESTED_BY = {  # fields of `EvaluationConfig` that tests of an experiment use; all others use those of ""
    "main": ("episodes_end", "episodes_curve", "attempts", "temperature", "max_new_tokens", "episodes_greedy"),
    "sensitivity": ("episodes_sensitivity", "temperatures", "attempts_grid", "max_new_tokens"),
    "pass_at_k": ("episodes_samples", "samples", "temperature", "max_new_tokens"),
    "": ("episodes_end", "episodes_curve", "attempts", "temperature", "max_new_tokens"),
}


@dataclass(frozen=True)
class Run:
    """One run of a profile; "init" is the method that makes Init. Raises ValueError for what does not exist."""

    profile: Profile
    key: str  # of the task
    method_name: str
    experiment_name: str = "main"
    setting: str = ""  # overrides, as in "lr=0.001"; one of the experiment's own, or another one of the same fields
    seed: int = 0

    def __post_init__(self) -> None:
        name = self.profile.name
        if name in PROFILES and self.profile not in (PROFILES[name], get_profile(name)):  # as it is, and as placed
            raise ValueError(
                f"Another profile is called {self.profile.name!r}; give this one a name of its own, "
                "as in replace(profile, name='mine')."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, Integral) or not 0 <= self.seed < 2**32:
            raise ValueError(f"A seed is a whole number from 0 to 2**32 - 1, got {self.seed!r}.")
        self._check_setting()
        object.__setattr__(self, "setting", setting_text(self.overrides))  # one spelling, so one name
        self.study, self.config  # noqa: B018 (they check the values)
        if self.study.rank and self.method is not INIT and (self.profile.lora or not self._from_init):
            raise ValueError(f"rank={self.study.rank} of {self.name} needs an Init whose weights are all trained.")
        if getattr(self.config, "kl_coef", 0.0) and not self._from_init:
            raise ValueError(f"kl_coef needs Init as the reference, and {self.name} does not start from Init.")

    @property
    def _from_init(self) -> bool:
        return self.start is not None and self.start.method is INIT

    def _check_setting(self) -> None:
        of = f"Experiment {self.experiment.name!r}"
        if self.method is INIT:
            varied = set(parse_setting(self.setting))
            if extra := varied - set(INIT_FIELDS):
                raise ValueError(f"Init depends on {' and '.join(INIT_FIELDS)}, not on {sorted(extra)[0]!r}.")
            tested = any(arm.method == INIT.name and not arm.varied for arm in self.experiment.arms)
            if varied if self.experiment_name == "main" else not varied and not tested:
                raise ValueError(f"{of} has no Init of its own with the setting {self.setting!r}; leave both at main.")
        elif self.setting and not self.arm.varied:
            raise ValueError(f"{of} has no setting, got {self.setting!r}.")
        elif tuple(parse_setting(self.setting)) != self.arm.varied:
            example = setting_text(self.arm.settings[0])
            raise ValueError(f"{of} needs a setting such as {example!r}, got {self.setting!r}.")

    # What it is

    @cached_property
    def base(self) -> Study:
        """The study as the profile has it."""
        return self.profile.study(self.key)

    @property
    def task(self) -> Task:
        return self.study.task

    @cached_property
    def method(self) -> Method:
        return METHODS[self.method_name]

    @cached_property
    def experiment(self) -> Experiment:
        return self.base.experiment(self.experiment_name)

    @cached_property
    def arm(self) -> Arm:
        return self.experiment.arm(self.method_name)

    @cached_property
    def overrides(self) -> Setting:
        """The setting as values of the types that their fields have."""
        given = parse_setting(self.setting)
        return {name: self._typed(name, value) for name, value in given.items()}

    def _typed(self, name: str, value: float | str) -> Any:
        if name in self.base.task.options and not hasattr(self.base.config(self.method), name):
            return value
        for owner in (self.base.config(self.method), self.base):
            if name in {field.name for field in fields(owner)} and (owner is not self.base or name in STUDY_FIELDS):
                default = getattr(owner, name)
                if isinstance(default, bool):
                    return {"True": True, "False": False}.get(value, value)
                whole = isinstance(default, int) and isinstance(value, float) and value.is_integer()
                return int(value) if whole else value
        known = ", ".join([*(field.name for field in fields(self.base.config(self.method))), *self.base.task.options])
        raise ValueError(f"The setting {self.setting!r} names {name!r}, which is no field of {known}.")

    @cached_property
    def study(self) -> Study:
        """The study with the overrides of its fields and of its task's options."""
        own = {name: value for name, value in self.overrides.items() if name in STUDY_FIELDS}
        options = {name: value for name, value in self.overrides.items() if name in self._options}
        return replace(self.base, task=self.base.task.trained_with(options), **own)

    @property
    def _options(self) -> frozenset[str]:
        """Those options of the task that no field of the configuration is called like."""
        return frozenset(self.base.task.options) - {field.name for field in fields(self.base.config(self.method))}

    @cached_property
    def config(self) -> Any:
        """The method's configuration with the overrides of its fields."""
        aside = {*STUDY_FIELDS, *self._options}
        own = {name: value for name, value in self.overrides.items() if name not in aside}
        return replace(self.base.config(self.method), **own)

    @property
    def lora(self) -> LoRAConfig | None:
        """The adapters that it trains, if it does not train all weights."""
        ranked = self.study.rank and self.method is not INIT
        return LoRAConfig(rank=self.study.rank, alpha=2.0 * self.study.rank) if ranked else self.profile.lora

    @property
    def checkpoints(self) -> int:
        """How many models of the branch are kept and tested."""
        return self.study.checkpoints if self.method is INIT else self.arm.checkpoints or self.study.checkpoints

    @property
    def examples(self) -> int:
        """How many demonstrations it draws from."""
        return getattr(self.config, "examples", self.base.sft.examples)

    @cached_property
    def init(self) -> Run:
        """The run that makes its Init."""
        own = {name: value for name, value in self.overrides.items() if name in INIT_FIELDS}
        experiment = self.experiment_name if own else "main"
        return Run(self.profile, self.key, "init", experiment, setting_text(own), self.seed)

    @cached_property
    def start(self) -> Run | None:
        """The run at whose end it starts; None: the foundation model."""
        if self.method is INIT:
            return None
        if self.arm.after:
            method, setting = self.arm.after
            start = replace(self, method_name=method, setting=setting_text(setting))
            return main_run(start) or start  # one training, wherever it is used
        return self.init if self.method.start == "init" else None

    # What it is called, and where it is

    @cached_property
    def name(self) -> str:
        """For example gp-l-rl-attempts-attempts3-s0: the name of its folder and of its executed notebook."""
        experiment = "" if self.method is INIT and self.experiment_name == "main" else self.experiment_name
        setting = self.setting.replace("=", "").replace(";", "-").replace("/", "_")
        full = "-".join(filter(None, (self.key, self.method_name, experiment, setting)))
        plain = re.sub(r"[^A-Za-z0-9_.+-]", "_", full)[:160]  # what make, a shell and a disk take
        if plain != full:
            plain += f"-{fingerprint.digest(full)}"  # so that no two names coincide
        return f"{plain}-s{self.seed}"

    @property
    def folder(self) -> Path:
        """Its checkpoints, its log; those of the main comparison's run that is the same training, if there is one."""
        return paths.run_folder(self.profile.name, self.trained_as.name)

    @cached_property
    def trained_as(self) -> Run:
        """The run that stands for its training: one of the main comparison, if that is the same, or else itself."""
        return self if self.experiment_name == "main" else main_run(self) or self

    @property
    def tests(self) -> Path:
        """Its part of the tables."""
        return paths.test_folder(self.profile.name, self.name)

    # What it depends on

    @property
    def identity(self) -> Identity:
        """What its checkpoints depend on, for `fingerprint.claim`."""
        study, method = self.study, self.method
        if method is INIT:
            own = {"init_steps": study.init_steps, "sft": fingerprint.settings(self.config)}
        else:
            own = {"fork_flops": study.fork_flops, "checkpoints": self.checkpoints, "method": self.method_name}
            own["config"] = fingerprint.settings(self.config)
        weights = {"dtype": self.profile.dtype, "lora": self.lora, "engine": self.profile.engine}
        defaults = {"dtype": "float32", "lora": None, "engine": "ours"}
        return {
            "version": fingerprint.VERSION,
            "task": {"key": self.key, "version": self.task.version, "training": fingerprint.plain(self.task.training)},
            "start": self.start.identity if self.start else taught.identity(study.foundation),
            "data": data_identity(study, method.data, self.examples) if method.data else None,
            **{name: fingerprint.plain(value) for name, value in weights.items() if value != defaults[name]},
            **own,
        }

    @property
    def tests_identity(self) -> Identity:
        """What the tests of its checkpoints depend on."""
        along = {} if self.experiment.along is None else {"along": list(self.experiment.along)}
        return {"run": self.identity, **test_settings(self.study, self.experiment_name, self.splits), **along}

    @property
    def splits(self) -> tuple[str, ...]:
        """On which its end is tested."""
        return self.experiment.tested(self.task.splits, self.task.probes)


def data_identity(study: Study, kind: str, examples: int | None = None) -> Identity:
    """What demonstrations depend on: the task and their number."""
    task = study.task
    about = {"task": task.key, "version": task.version, "training": fingerprint.plain(task.training), "kind": kind}
    return {**about, "examples": examples or study.sft.examples, "seed": DATA_SEED}


def data_folder(profile: Profile, study: Study, kind: str, examples: int | None = None) -> Path:
    """Where demonstrations are kept, as a Hugging Face `datasets` folder."""
    task, other = study.task, f"-{examples}" if examples and examples != study.sft.examples else ""
    if varied := {name: task.training[name] for name in task.options if name in task.training}:
        other += f"-{fingerprint.digest(fingerprint.plain(varied))}"
    return paths.data(profile.name) / f"{task.key}-{kind}{other}"


def test_settings(study: Study, experiment: str, splits: tuple[str, ...]) -> Identity:
    """What tests depend on besides the checkpoints: the evaluation settings that they use, and the splits."""
    used = _TESTED_BY.get(experiment, _TESTED_BY[""])
    changed = fingerprint.settings(study.evaluation)
    return {
        "evaluation": {name: changed[name] for name in used if name in changed},
        "splits": {name: fingerprint.plain(study.task.split(name)) for name in splits},
    }


def runs_of_arm(
    profile: Profile, study: Study, experiment: Experiment, arm: Arm, seed: int, beside_main: bool = True
) -> list[Run]:
    """The runs of one method in an experiment, one per setting.

    One that would be the same training as the main comparison's is left out where that is trained with the seed as
    well, `beside_main`: `main_run` stands for it, unless the experiment has tests of its own.
    """
    settings = map(setting_text, arm.settings)
    runs = [Run(profile, study.task.key, arm.method, experiment.name, setting, seed) for setting in settings]
    if experiment.tests_again:
        return runs
    return [run for run in runs if experiment.name == "main" or not beside_main or main_run(run) is None]


def training_runs(
    profile: Profile, study: Study, experiment: Experiment, seed: int, beside_main: bool = True
) -> list[Run]:
    """The runs of an experiment with a seed, those of the first arm first; see `runs_of_arm`."""
    return [run for arm in experiment.arms for run in runs_of_arm(profile, study, experiment, arm, seed, beside_main)]


def main_run(run: Run) -> Run | None:
    """The run of the main comparison that is exactly the same training as `run`, or None."""
    try:
        main = Run(run.profile, run.key, run.method_name, seed=run.seed)
    except ValueError:  # the main comparison does not have the method
        return None
    return main if main.identity == run.identity else None
