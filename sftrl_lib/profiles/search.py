"""The search for learning rates, Init's steps and budgets, on development seeds. See PROTOCOL.md."""

from __future__ import annotations

from dataclasses import replace

from ..configs import PPOConfig
from ..experiments import MAIN, SEARCH_RATES, SEARCHED_AT, SEARCHES, search_budget, with_ratio
from .laptop import LAPTOP
from .study import Profile, Study

_EARLIER_FLOPS = {"gp-l": 5e12, "virl-l": 1e13, "gp-vl": 1.2e13, "virl-vl": 1.5e13}


def _searched(study: Study) -> Study:
    """A study that tests nothing but the training rule, at the numbers of the earlier design and around them.

    The budget is searched for at the rate that the search has chosen for SFT.
    """
    main = replace(MAIN, splits=SEARCH_RATES.splits, paper_end=False)
    searches = SEARCHES if study.task.modality == "text" else (SEARCH_RATES,)
    ratio = "token" if study.task.modality == "text" else study.ppo.ratio  # of the same game's text task
    fork_flops = _EARLIER_FLOPS[study.task.key]
    return replace(
        study,
        fork_flops=fork_flops,
        checkpoints=1,
        init_lr=None,
        sft=replace(study.sft, lr=SEARCHED_AT),
        ppo=replace(study.ppo, lr=PPOConfig.lr, ratio=ratio),
        experiments=(main, *(with_ratio(e, ratio) for e in searches), search_budget(fork_flops, study.sft.lr)),
        evaluation=replace(study.evaluation, episodes_greedy=16),
    )


SEARCH = Profile(
    name="search", seeds=(91, 92), studies=tuple(_searched(study) for study in LAPTOP.studies), device="cpu"
)
