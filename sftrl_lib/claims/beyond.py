"""What the controls are to decide: claims beyond the paper, decided cell by cell by the rules of `claims.py`.

Each answers a question that readers of the paper ask, named in `asks`; one is not_run while the tables hold none of its
rows.

All were written down before the controls ran. b1, b2, b6 and b17 say what an audit and a probe had seen with one or two
seeds (development runs, not in the tables); for the others nothing had been seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from ..methods import METHODS
from ..published import VARIANTS
from ..tables import along, ends, select, settings_of
from ..task import PROBES, SPLITS
from .claims import Claim, decide
from .evidence import BARELY, FAILURE, Evidence, Part
from .statistics import Estimate, correlation, difference_of, level_of

GP_L, TEXT, PICTURES = ("GP-L",), ("GP-L", "V-IRL-L"), ("GP-VL", "V-IRL-VL")


@dataclass(frozen=True)
class Control(Claim):
    """A claim beyond the paper: who asks for it, and which experiment answers."""

    asks: str = ""  # the question or dispute behind it
    experiment: str = ""


@dataclass(frozen=True)
class Arm:
    """The end rows of one method in an experiment, as one side of a comparison."""

    method: str
    experiment: str = "main"
    setting: str = "sampled"

    def rows(self, e: Evidence, variant: str, split: str, metric: str) -> pd.DataFrame:
        return e.rows(variant, self.method, split, metric, experiment=self.experiment, setting=self.setting)

    @property
    def label(self) -> str:
        aside = "" if self.setting in ("", "sampled") else self.setting
        named = "" if self.experiment == "main" else self.experiment.replace("_", " ")
        detail = ", ".join(filter(None, (named, aside)))
        return METHODS[self.method].label + (f" ({detail})" if detail else "")


INIT, SFT, RL = Arm("init"), Arm("sft"), Arm("rl")


def _gain(e: Evidence, v: str, a: Arm, b: Arm, split: str, side: int, metric: str = "", threshold: float = 0.0) -> Part:
    """The part "`a` minus `b` on `split` lies on `side` of `threshold`"."""
    metric = metric or VARIANTS[v].metric
    where = {**SPLITS, **PROBES}[split].short
    estimate = difference_of(a.rows(e, v, split, metric), b.rows(e, v, split, metric))
    return Part(f"{v}: {a.label} minus {b.label}, {where} {metric.replace('_', ' ')}", estimate, side, threshold)


def _settings(e: Evidence, v: str, experiment: str, method: str) -> list[Arm]:
    return [Arm(method, experiment, name) for name in e.settings(v, experiment, method)] or [Arm(method, experiment)]


def numbers_not_rule(e: Evidence, v: str) -> list[Part]:
    """SFT minus Init in success: above 0 under a new rule of known numbers, below 0 under one of numbers above 10.

    And in numbers read, under the new rule of known numbers: above -`BARELY`.
    """
    sft, init = Arm("sft", "rule_grid", ""), Arm("init", "rule_grid", "")
    signs = {"grid_new_short_low": +1, "grid_new_short_high": -1}
    parts = [_gain(e, v, sft, init, split, side) for split, side in signs.items()]
    return [*parts, _gain(e, v, sft, init, "grid_new_short_low", +1, "recognition", -BARELY)]


def init_forgets(e: Evidence, v: str) -> list[Part]:
    """Numbers read behind the longer sentence, same rule: Init of 6 steps minus Init of 48, above 0."""
    short, long = (Arm("init", "rule_grid_init", f"init_steps={n}") for n in (6, 48))
    return [_gain(e, v, short, long, "grid_old_long_low", +1, "recognition")]


def fake_rule(e: Evidence, v: str) -> list[Part]:
    """Right by a rule that the prompt does not state: SFT minus Init above 0, RL minus SFT below 0."""
    init, sft, rl = (Arm(method, "fake", "") for method in ("init", "sft", "rl"))
    return [_gain(e, v, sft, init, "fake", +1), _gain(e, v, rl, sft, "fake", -1)]


def rule_panel(e: Evidence, v: str) -> list[Part]:
    """RL minus SFT under every rule of the panel with numbers that the foundation knows: above 0."""
    sft, rl = Arm("sft", "rule_panel", ""), Arm("rl", "rule_panel", "")
    return [_gain(e, v, rl, sft, split, +1) for split in ("all5", "all7", "all12")]


def early_stopping(e: Evidence, v: str) -> list[Part]:
    """SFT at the checkpoint with the best held-out success, under the new rule: minus its end, and minus Init, above 0.

    The selector sees the training rule alone. Minus Init counts as kept from -`BARELY` on.
    """
    chosen = stopped_early(e.metrics, v)
    metric = VARIANTS[v].metric
    end = Arm("sft", "sft_dense", "").rows(e, v, "rule_ood", metric)
    what = f"{v}: SFT stopped at its best held-out {metric.replace('_', ' ')} minus"
    return [
        Part(f"{what} SFT's end, rule-OOD", _difference(chosen, end), +1),
        Part(f"{what} Init, rule-OOD", _difference(chosen, INIT.rows(e, v, "rule_ood", metric)), +1, -BARELY),
    ]


def stopped_early(metrics: pd.DataFrame, variant: str) -> pd.DataFrame:
    """The rule-OOD rows, one a seed, of the SFT checkpoint that is best on held-out instances; empty if not run."""
    about = VARIANTS[variant]
    rows = select(
        metrics, task=about.task, modality=about.modality, experiment="sft_dense", method="sft", metric=about.metric
    )
    held_out, ood = select(rows, split="heldout"), select(rows, split="rule_ood")
    if held_out.empty or ood.empty:
        return ood.iloc[:0]
    best = held_out.sort_values(["value", "step"], ascending=[False, True], kind="stable").drop_duplicates("seed")
    return ood.merge(best[["seed", "step"]], on=["seed", "step"])


def same_level(e: Evidence, v: str) -> list[Part]:
    """SFT at RL's own ID level, under the new rule: minus Init above -`BARELY`; RL minus it above 0."""
    matched, metric = at_level_of_rl(e, v), VARIANTS[v].metric
    init, rl = (arm.rows(e, v, "rule_ood", metric) for arm in (INIT, RL))
    what = f"{v}: SFT at RL's ID level"
    return [
        Part(f"{what} minus Init, rule-OOD", _difference(matched, init), +1, -BARELY),
        Part(f"{v}: RL minus SFT at RL's ID level, rule-OOD", _difference(rl, matched), +1),
    ]


def at_level_of_rl(e: Evidence, variant: str) -> pd.DataFrame:
    """The rule-OOD rows, one a seed, of that checkpoint of all SFT doses whose ID level is nearest to RL's end."""
    about = VARIANTS[variant]
    rows = select(
        e.metrics, task=about.task, modality=about.modality, experiment="dose", method="sft", metric=about.metric
    )
    rl = RL.rows(e, variant, "id", about.metric)[["seed", "value"]]
    level = select(rows, split="id").merge(rl, on="seed", suffixes=("", "_rl"))
    level = level.assign(off=(level["value"] - level["value_rl"]).abs())
    nearest = level.sort_values(["off", "train_flops"], kind="stable").drop_duplicates("seed")
    return select(rows, split="rule_ood").merge(nearest[["seed", "setting", "step"]], on=["seed", "setting", "step"])


def diversity(e: Evidence, v: str) -> list[Part]:
    """With 70 % of hands under other rules: SFT minus SFT without, also on kept rules, and RL minus SFT: above 0."""
    plain, diverse, rl = (
        Arm(m, "diversity", f"diversity={s}") for m, s in (("sft", "0"), ("sft", "0.7"), ("rl", "0.7"))
    )
    parts = [_gain(e, v, diverse, plain, split, +1) for split in ("all5", "all7", "rule_ood")]
    return [*parts, _gain(e, v, rl, diverse, "rule_ood", +1)]


def rejection(e: Evidence, v: str) -> list[Part]:
    """SFT on own right answers, under the new rule: minus SFT above 0; RL minus it below `BARELY`."""
    parts = []
    for own in _settings(e, v, "rejection", "rejection"):
        parts.append(_gain(e, v, own, SFT, "rule_ood", +1))
        parts.append(_gain(e, v, RL, own, "rule_ood", -1, threshold=BARELY))
    return parts


def another_loss(experiment: str) -> Callable[[Evidence, str], list[Part]]:
    """SFT with another loss minus plain SFT, under the new rule: above 0."""

    def parts(e: Evidence, v: str) -> list[Part]:
        return [_gain(e, v, arm, SFT, "rule_ood", +1) for arm in _settings(e, v, experiment, "sft")]

    return parts


def grpo(e: Evidence, v: str) -> list[Part]:
    """GRPO under the new rule: minus Init above 0, minus SFT above 0."""
    [arm] = _settings(e, v, "grpo", "rl")[:1]
    return [_gain(e, v, arm, INIT, "rule_ood", +1), _gain(e, v, arm, SFT, "rule_ood", +1)]


def pass_at_k(e: Evidence, v: str) -> list[Part]:
    """RL minus Init under the new rule: pass@1 above 0, pass@k for the largest k below `BARELY`."""
    settings = {int(name.partition("=")[2]): name for name in e.settings(v, "pass_at_k", "rl")} or {1: "k=1"}
    parts = []
    for k, side, threshold in ((min(settings), +1, 0.0), (max(settings), -1, BARELY)):
        rl, init = (Arm(method, "pass_at_k", settings[k]) for method in ("rl", "init"))
        parts.append(_gain(e, v, rl, init, "rule_ood", side, "pass_at_k", threshold))
    return parts


def divergence(e: Evidence, v: str) -> list[Part]:
    """Correlation of KL to Init and rule-OOD over all checkpoints of all branches from Init: below 0."""
    points = divergence_points(e.metrics, v)
    pairs = [(part["kl_to_init"], part["ood"]) for _, part in points.groupby("seed")]
    least = int(points["n"].min()) if len(points) else 0
    return [Part(f"{v}: correlation of KL to Init and rule-OOD over checkpoints", correlation(pairs, least), -1)]


def divergence_points(metrics: pd.DataFrame, variant: str) -> pd.DataFrame:
    """One row a checkpoint: method, experiment, setting, seed, step, kl_to_init (nats per token), ood (rate), n."""
    about = VARIANTS[variant]
    rows = select(metrics, task=about.task, modality=about.modality)
    kl = select(rows, split="id", metric="kl_to_init")
    ood = along(select(rows, split="rule_ood", metric=about.metric))
    key = ["method", "experiment", "setting", "seed", "step"]
    both = kl[[*key, "value"]].rename(columns={"value": "kl_to_init"}).merge(ood[[*key, "value", "n"]], on=key)
    # A main run that is also one setting of another experiment stands there twice.
    return both.rename(columns={"value": "ood"}).drop_duplicates(["method", "seed", "step", "kl_to_init", "ood"])


def strict_format(e: Evidence, v: str) -> list[Part]:
    """RL without SFT, if only answers with all three fields earn a reward; ID success per rate: below `FAILURE`."""
    return [
        Part(f"{v}: {arm.label}, ID success", level_of(arm.rows(e, v, "id", "success")), -1, FAILURE)
        for arm in _settings(e, v, "strict_no_init", "rl_no_init")
    ]


def strict_attempts(e: Evidence, v: str) -> list[Part]:
    """RL rewarded for all three fields, under the new rule: 3 minus 1, 5 minus 3, 10 minus 5 attempts, above 0."""
    arms = {n: Arm("rl", "strict_attempts", f"fields=all;attempts={n}") for n in (1, 3, 5, 10)}
    return [_gain(e, v, arms[more], arms[fewer], "rule_ood", +1) for fewer, more in ((1, 3), (3, 5), (5, 10))]


def wordings(e: Evidence, v: str) -> list[Part]:
    """SFT on both lengths of the sentence minus SFT, under the new rule: numbers read and success, above 0."""
    arm = Arm("sft", "wordings", "spelt_out=0.5")
    return [_gain(e, v, arm, SFT, "rule_ood", +1, metric) for metric in ("recognition", "success")]


def pictures_dropped(e: Evidence, v: str) -> list[Part]:
    """SFT without its pictures, at every rate: minus Init below 0 in recognition and visual-OOD; below sighted SFT, ID.

    Recognition is GP-VL's alone; V-IRL-VL has the visual test in whole routes.
    """
    parts = []
    for arm in _settings(e, v, "pictures_dropped", "sft"):
        if v == "GP-VL":
            parts += [_gain(e, v, arm, INIT, split, -1, "recognition") for split in ("id", "rule_ood", "visual_ood")]
        parts.append(_gain(e, v, arm, INIT, "visual_ood", -1, "success"))
        parts.append(_gain(e, v, arm, SFT, "id", -1))
    return parts


def pictures_compared(metrics: pd.DataFrame) -> pd.DataFrame:
    """Ends with and without pictures in SFT, in percent: a row a variant and run, a column a metric and split."""
    return _pictures(ends(metrics), ["variant", "run"], ["metric", "split"])


def pictures_along(metrics: pd.DataFrame) -> pd.DataFrame:
    """The training rule along SFT with and without pictures, in percent: a row a variant, run and step."""
    along = select(metrics, split="id", method=["init", "sft"])
    return _pictures(along, ["variant", "run", "step"], ["metric"])


def _pictures(metrics: pd.DataFrame, rows: list[str], columns: list[str]) -> pd.DataFrame:
    found = []
    for variant in PICTURES:
        about = VARIANTS[variant]
        here = select(metrics, task=about.task, modality=about.modality)
        here = select(here, metric=list(dict.fromkeys(("recognition", about.metric, "success"))))
        main = select(here, experiment="main", setting="sampled", method=["init", "sft", "rl"])
        dropped = select(here, experiment="pictures_dropped")
        found.append(main.assign(variant=variant, run=main["method"].map(lambda name: METHODS[name].label)))
        if len(dropped):
            rates = "SFT without pictures, lr " + settings_of(dropped, "lr").map("{:g}".format)
            found.append(dropped.assign(variant=variant, run=rates))
    table = pd.concat(found)
    return 100 * table.pivot_table(index=rows, columns=columns, values="value")


def habit(e: Evidence, v: str) -> list[Part]:
    """SFT from a foundation used to J, Q, K = 10, minus SFT from one that is not: old readings and Fake, above 0."""
    used, free = (Arm("sft", "habit", f"foundation={name}") for name in ("gp-l-habit-70", "gp-l"))
    return [_gain(e, v, used, free, "rule_ood", +1, "training_rule"), _gain(e, v, used, free, "fake", +1)]


def _difference(rows: pd.DataFrame, others: pd.DataFrame) -> Estimate | None:
    return difference_of(rows, others) if len(rows) and len(others) else None


CLAIMS = (
    Control("b1", "What SFT loses under 11, 12, 13 are the numbers above 10, not the rule.",
            "rules", GP_L, numbers_not_rule,
            asks="Does SFT memorise the rule?", experiment="rule_grid"),
    Control("b2", "A longer Init reads fewer numbers behind a longer sentence.",
            "rules", GP_L, init_forgets,
            asks="How much of RL's gain repairs Init?", experiment="rule_grid_init"),
    Control("b3", "SFT answers by its training rule where the prompt states another; RL less.",
            "rules", GP_L, fake_rule,
            asks="The Fake test of arXiv 2510.00237", experiment="fake"),
    Control("b4", "RL is above SFT under every other rule.",
            "rules", GP_L, rule_panel,
            asks="The rule panel of arXiv 2510.00237", experiment="rule_panel"),
    Control("b5", "SFT stopped by held-out success keeps what its end has lost.",
            "sft_dense", TEXT, early_stopping,
            asks="OOD peaks early in SFT (arXiv 2509.12235)", experiment="sft_dense"),
    Control("b6", "At RL's own level in distribution SFT has lost nothing, and RL is above it.",
            "controls", GP_L, same_level,
            asks="Is it the dose?", experiment="dose"),
    Control("b7", "Diverse rules keep SFT's OOD performance, and with equal diversity RL is still above it.",
            "controls", GP_L, diversity,
            asks="Is it a fixed prompt (arXiv 2510.00237)?", experiment="diversity"),
    Control("b8", "SFT on Init's own right answers generalises as RL does.",
            "controls", TEXT, rejection,
            asks="Is it on-policy data (arXiv 2510.18874)?", experiment="rejection"),
    Control("b9", "DFT is above SFT under the new rule.",
            "controls", TEXT, another_loss("dft"),
            asks="Is it the loss (arXiv 2508.05629)?", experiment="dft"),
    Control("b10", "SFT with a KL penalty to Init is above SFT under the new rule.",
            "controls", GP_L, another_loss("kl_sft"),
            asks="Is it the distance from Init?", experiment="kl_sft"),
    Control("b11", "GRPO raises rule-OOD performance above Init and SFT, as PPO does.",
            "controls", TEXT, grpo,
            asks="Is it PPO?", experiment="grpo"),
    Control("b12", "RL raises pass@1 under the new rule, not pass@k for large k.",
            "pass_at_k", GP_L, pass_at_k,
            asks="Does RL teach anything that Init cannot do?", experiment="pass_at_k"),
    Control("b13", "Over the checkpoints of both branches: the further from Init, the worse under the new rule.",
            "divergence", TEXT, divergence,
            asks="RL's Razor (arXiv 2509.04259)", experiment="main"),
    Control("b14", "RL without SFT fails if the whole format is asked for.",
            "fig09", GP_L, strict_format,
            asks="What is SFT's format for (claims 10 and 11)?", experiment="strict_no_init"),
    Control("b15", "More attempts help RL that is rewarded for all three fields.",
            "fig10", GP_L, strict_attempts,
            asks="One attempt drops the list of numbers (claim 12)", experiment="strict_attempts"),
    Control("b16", "SFT on both lengths of the rule's sentence reads the longer one.",
            "controls", GP_L, wordings,
            asks="Is it varied contexts (claim 14)?", experiment="wordings"),
    Control("b17", "SFT without its pictures loses recognition and the new look, and stays below sighted SFT.",
            "pictures_dropped", PICTURES, pictures_dropped,
            asks="The released collator drops them", experiment="pictures_dropped"),
    Control("b18", "SFT falls back on what the foundation was used to.",
            "habit", GP_L, habit,
            asks="Is the old rule the base model's habit (claim 5)?", experiment="habit"),
)  # fmt: skip


def evaluate(metrics: pd.DataFrame) -> list[dict]:
    """Decide every claim on a validated table: one record per claim, as for the paper's, with what it asks."""
    evidence = Evidence(metrics)
    return [{**decide(claim, evidence), "asks": claim.asks, "experiment": claim.experiment} for claim in CLAIMS]
