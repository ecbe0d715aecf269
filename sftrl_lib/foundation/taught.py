"""Pretrained models that are taught the card game or navigation under many rules before Init: which, and by what.

The paper's model of 11 B parameters reads a rule that its prompt states; SmolLM2 with 135 M does not: after 30 steps of
SFT under one rule it read 23 % of the hands under another one. What cannot be done cannot be lost, so it is taught
first, by the curricula of the tiny models, with the same rules, answer formats, hands and routes held out.

This says what is taught, and loads no torch; `teaching` does it. A taught model is known by its recipe, as a run is: it
is the same foundation whether or not it has been made yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import fingerprint
from ..configs import HIGHEST_RATE, check, check_choice, check_number, check_whole
from ..registry import Registry

CURRICULA = ("gp-l", "virl-l")  # those in text
DTYPES = ("float32", "mixed")


@dataclass(frozen=True)
class Teaching:
    """How a model is taught: by plain AdamW, with loss on what the documents ask for."""

    name: str  # of the taught model, a folder below build/models
    base: str  # a model by name, folder or hub name
    curricula: tuple[str, ...]  # of `CURRICULA`, each drawn equally often
    steps: int = 360
    tokens_per_step: int = 16_384  # of the base model's tokenizer, padding included
    lr: float = 3e-4
    warmup: int = 20  # steps
    cooldown: float = 0.6  # the learning rate falls linearly to zero over this last share of the steps
    dtype: str = "mixed"  # or float32
    seed: int = 0
    samples: int = 128  # fresh documents of each kind on which it is tested, before and after

    def __post_init__(self) -> None:
        named = bool(self.curricula) and set(self.curricula) <= set(CURRICULA)
        check(self, "curricula", named, f"some of {', '.join(CURRICULA)}")
        check_choice(self, "dtype", DTYPES)
        check_whole(self, "steps", "tokens_per_step", "warmup", "samples")
        check_number(self, "lr", high=HIGHEST_RATE, above=True)
        check_number(self, "cooldown", high=1.0, above=True)

    def lr_scale(self, step: int) -> float:
        """Share of the peak learning rate at `step`: warm-up, plateau, cool-down."""
        return min(1.0, (step + 1) / self.warmup, (1 - step / self.steps) / self.cooldown)


TAUGHT: Registry[Teaching] = Registry(
    "taught model",
    (
        Teaching("smollm2-gp-l", "smollm2", ("gp-l",)),
        Teaching("smollm2-virl-l", "smollm2", ("virl-l",)),
        # Two steps, for the profile smollm2_smoke.
        *(
            Teaching(
                f"smollm2-{key}-smoke", "smollm2", (key,), steps=2, tokens_per_step=250, warmup=1, dtype="float32",
                samples=1,
            )
            for key in CURRICULA
        ),
    ),
)  # fmt: skip


def identity(name: str) -> fingerprint.Identity | str:
    """What a foundation model is known by: the recipe of a taught one, a digest of any other one's files."""
    if name not in TAUGHT:
        return fingerprint.model(name)
    recipe = fingerprint.plain(TAUGHT[name])
    return {**recipe, "name": name, "base": fingerprint.model(TAUGHT[name].base)}
