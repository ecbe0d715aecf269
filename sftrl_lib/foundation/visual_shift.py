"""How well the foundation model of GP-VL reads hands of another look: what the visual-OOD split was chosen by.

    python -m sftrl_lib.foundation.visual_shift

Paper: red suits instead of black ones, on which its Init reads 7 points fewer hands. The rule (PROTOCOL.md): of all
candidates, the one that costs the *foundation* nearest to 20 points of reading, chosen before any SFT is trained on it.
Pretraining shows none of them, for all have hearts and diamonds in red ink.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..claims.statistics import wilson
from ..models.policy import Policy, load_policy
from ..points.cards import Look, draw_hand
from ..points.prompts import rule_sentence
from ..points.rules import RULES, deal
from ..points.task import GP_VL
from .capabilities import first_line, greedy
from .documents import Turn
from .encoding import IGNORED, encode, tokens_per_picture

TRAINING: Look = GP_VL.training["look"]
CANDIDATES: dict[str, tuple[str, Look]] = {  # name -> suits, look
    "training: black suits": ("black", TRAINING),
    "red suits": ("red", TRAINING),
    "red suits, darker ink": ("red", replace(TRAINING, red="#7a0f1a")),
    "red suits, ink faded by a quarter": ("red", replace(TRAINING, fade=0.25)),
    "red suits, ink faded by a half": ("red", replace(TRAINING, fade=0.5)),
    "red suits, one font in four new": ("red", replace(TRAINING, fonts=(*TRAINING.fonts, "mono"))),
    "red suits, new font": ("red", replace(TRAINING, fonts=("mono",))),
    "red suits, classic faces": ("red", replace(TRAINING, style="classic")),
    "red suits, pink paper": ("red", replace(TRAINING, paper="#f0b8c0")),
    "red suits, pale blue paper": ("red", replace(TRAINING, paper="#8fb4e3")),
    "red suits, blue paper": ("red", replace(TRAINING, paper="#7fa8dc")),
    "red suits, green paper": ("red", replace(TRAINING, paper="#9fd39f")),
    "red suits, grey paper": ("red", replace(TRAINING, paper="#b4b4b4")),
    "red suits, yellow paper": ("red", replace(TRAINING, paper="#f2d24a")),
    "red suits, dark blue paper": ("red", replace(TRAINING, paper="#27408b")),
}


def share_read(policy: Policy, suits: str, look: Look, hands: int, seed: int = 0) -> float:
    """Share of hands of which all four cards are read right, in their order, greedily.

    The hands are training hands of the task, the same for every look of the same suits; the question is pretraining's.
    """
    rng = np.random.default_rng([seed, len(suits)])
    question = f"Note that {rule_sentence(RULES['ten'])}.\n"
    prompts, expected, shown = [], [], []
    for _ in range(hands):
        cards, colours = deal(rng, "ten", hands="train", suits=suits)
        picture = draw_hand(cards, colours, look=look, rng=np.random.default_rng(int(rng.integers(2**32))))
        turns = [Turn("text", question), Turn("text", "Cards: ", picture=picture)]
        turns.append(Turn("text", f"{cards}\n", learn=True))
        ids, labels = encode(turns, policy.tokenizer, tokens_per_picture(policy))
        prompts.append(ids[: next(i for i, label in enumerate(labels) if label != IGNORED)])
        expected.append(f"{cards}\n")
        shown.append(picture)
    answers = greedy(policy, prompts, max(len(policy.tokenizer(text).input_ids) for text in expected) + 1, shown)
    return float(np.mean([first_line(answer) == text for answer, text in zip(answers, expected, strict=True)]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="gp-vl", help="a shipped model or a folder; default: gp-vl")
    parser.add_argument("--hands", type=int, default=400, help="for every candidate; default: 400")
    options = parser.parse_args(arguments)
    policy = load_policy(options.model)
    for name, (suits, look) in CANDIDATES.items():
        share = share_read(policy, suits, look, options.hands)
        low, high = wilson(share, options.hands)
        print(f"{name:32} {100 * share:5.1f} [{100 * low:.1f}, {100 * high:.1f}] %", flush=True)


if __name__ == "__main__":
    main()
