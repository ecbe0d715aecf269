"""The paper's 21 claims in plain words: what it says, what each outcome would mean, what was tried beside.

No number of ours stands here: `reproduction` puts those of the tables beside these words, and chooses `holds`, `fails`
or `open` cell by cell, so that the text is true whatever the tables hold.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Narrative:
    """The words on one claim."""

    paper: str  # what the paper says and shows
    holds: str = ""  # what it means where the claim holds, as a sentence
    fails: str = ""  # where it fails
    tried: str = ""  # what was tried, or changed, where it did not come out
    controls: tuple[str, ...] = ()  # claims beyond the paper (`beyond`) that ask on
    experiments: tuple[str, ...] = ()  # that it needs beside the main comparison
    notebooks: tuple[str, ...] = ("05_train",)  # where it is made


_RL_RISES = "A reward for the outcome alone made the model better under a rule that training never stated."
_RL_STAYS = "RL did not make the model better under a rule that training never stated."
_CHANGED = "[PROTOCOL.md](PROTOCOL.md#what-was-changed-after-seeing-what)"
_SEARCH = "[PROTOCOL.md](PROTOCOL.md#the-search)"
_LOOK = "[PROTOCOL.md](PROTOCOL.md#the-new-look-of-gp-vl)"

NARRATIVES = {
    1: Narrative(
        "After the same short SFT (Init), RL ends above Init under the new rule in all four tasks (Fig. 6).",
        _RL_RISES,
        _RL_STAYS,
        "What both branches are trained with is searched by success on held-out instances of the "
        f"training rule, so that the new rule has no part in the choice ({_SEARCH}). From an earlier foundation model "
        f"of V-IRL-L, which lost its place in long lists, RL did not rise; its curriculum was changed ({_CHANGED}).",
        ("b2", "b4", "b11", "b12"),
    ),
    2: Narrative(
        "The other branch, more SFT with the same compute, ends below Init under the new rule in all four tasks, most "
        "of all in navigation (Fig. 6).",
        "Training on right answers by one rule took away something that the model could do under another.",
        "More SFT did not cost the model its success under the new rule.",
        "How fast SFT loses the new rule depends on its rate and its compute: in probes on development seeds of "
        "V-IRL-L a seed that lost nothing collapsed at three times the compute. The budget is therefore set by a "
        "rule that looks at the training rule alone ([PROTOCOL.md](PROTOCOL.md#the-budget)), and the controls vary "
        "the dose, stop early, change the loss and the foundation model.",
        ("b1", "b5", "b6", "b9", "b10", "b18"),
    ),
    3: Narrative(
        "So at equal training compute RL is above SFT under the new rule, in text and with pictures (Fig. 6).",
        "With the same start and the same compute, RL is the better way to a model that follows a new rule.",
        "With the same start and the same compute, RL is not the better way to a model that follows a new rule.",
        "The same is asked under other rules, at RL's own level in distribution, and of SFT on own answers.",
        ("b3", "b4", "b6", "b8"),
    ),
    4: Narrative(
        "What RL gains under the training rule comes with a gain under the new one; what SFT gains comes with a loss "
        "(Figs. 1 and 5). The paper's SFT of GP-VL gains nothing in distribution, so there only its loss is asked.",
        "RL's progress carries over to the new rule and SFT's does not.",
        "At least one of the four movements (RL up on both rules, SFT up on the old one and down on the new) went the "
        "other way.",
        "It joins the parts of claims 1 and 2 to what happens in distribution, so it is open wherever those are.",
        ("b5", "b12", "b13"),
    ),
    5: Narrative(
        "SFT fails because it applies the rule that it was trained on although the prompt states another: in "
        "navigation it answers with compass headings that the prompt no longer offers (Fig. 21, one transcript).",
        "SFT answers by the old rule more often than Init does, if only in a minority of its answers.",
        "SFT does not fail by answering with the old rule; it fails in some other way, if it fails.",
        "In earlier runs old readings hardly occurred in GeneralPoints; success was lost in writing formulas with "
        "numbers that no training answer held. Fake (b3) asks more sharply: one rule is stated and another one "
        "scores.",
        ("b1", "b3", "b18"),
    ),
    6: Narrative(
        "With the rule kept and the look changed (red cards; other cities), RL ends above Init and SFT below it "
        "(Fig. 7).",
        "RL made the model more robust to a new look, and SFT less so.",
        "SFT, RL or both moved the other way under a new look.",
        "Red ink alone hardly disturbed the foundation model, so a harder look was chosen by that model's reading "
        f"alone, before any SFT was trained with it ({_LOOK}). The mini benchmark has twenty routes a city here, "
        "because two cannot tell a method from luck. The released collator drops the pictures of SFT; b17 does the "
        "same on purpose.",
        ("b17",),
        notebooks=("05_train", "08_pictures_dropped"),
    ),
    7: Narrative(
        "End-to-end RL walks 14 of the mini benchmark's 18 routes; the best earlier result was 44 % (Fig. 7).",
        "RL beats the earlier record on the official routes.",
        "RL does not beat the earlier record on the official routes.",
        "The routes here are generated, so their number says nothing about that record. Tables of a run on the "
        "official routes and photographs, which the package reads, would be decided.",
    ),
    8: Narrative(
        "Across checkpoints, reading the cards and solving the hand rise and fall together (Fig. 8).",
        "A checkpoint that reads more hands also solves more.",
        "Over all checkpoints, those that read more hands do not solve more: SFT reads more and solves less.",
        "The splits are decided one by one, because pooled they differ in difficulty and the pooled correlation says "
        "little. Correlations over a handful of checkpoints are those of a trend, not of a cause.",
        ("b17",),
    ),
    9: Narrative(
        "As compute grows, RL reads more cards although only outcomes are rewarded, and SFT reads fewer and solves "
        "fewer (Fig. 8).",
        "An outcome reward improved perception, and imitation made it worse.",
        "SFT, or RL, moved perception or success the other way.",
        "Every step of SFT shows cards beside their names, so that it may well learn to read them. b17 withholds the "
        "pictures, as the released collator does, and asks whether reading is then lost.",
        ("b17",),
        notebooks=("05_train", "08_pictures_dropped"),
    ),
    10: Narrative(
        "Without SFT first, RL fails at every learning rate tried: success never leaves the axis (Figs. 9 and 20).",
        "Without the short SFT, RL found nothing to learn from.",
        "Without the short SFT, RL found a way to earn rewards at one rate at least.",
        "The verifier of GP-L reads the formula alone, so RL can earn its reward without the full format; b14 rewards "
        "whole answers only. The foundation models here were trained on short answers and do not write programs, as "
        "Llama did.",
        ("b14",),
        ("no_init",),
        ("04_init", "05_train"),
    ),
    11: Narrative(
        "What SFT is good for is the output format, without which RL cannot work; the paper says that this depends on "
        "the backbone.",
        "Without SFT there is no format, and without the format RL does not work.",
        "RL worked without the format that SFT teaches, or found the format by itself.",
        "Decided by the format itself and by whether RL works without it, and not by which of the two ends higher.",
        ("b14",),
        ("no_init",),
        ("04_init", "05_train"),
    ),
    12: Narrative(
        "Trained with more verification attempts, RL gains more under the new rule at equal compute: 1 < 3 < 5 < 10 "
        "(Fig. 10).",
        "Every further step from 1 to 3, 5 and 10 attempts bought more under the new rule.",
        "At least one step to more attempts bought less.",
        "In earlier runs RL with a single attempt learned to leave out the list of numbers, which earns nothing; b15 "
        "rewards whole answers, so that all numbers of attempts are compared on the same format.",
        ("b15",),
        ("attempts",),
    ),
    13: Narrative(
        "With a single attempt RL hardly generalises (Fig. 10: half a point).",
        tried="What is little depends on where the model starts and on how much it can gain, so the number is shown "
        "and not judged. To place a gain of half a point below two with certainty would take about 4,000 "
        "hands.",
        controls=("b15",),
        experiments=("attempts",),
    ),
    14: Narrative(
        "SFT on trajectories with errors, verifier messages and corrections still loses the new rule, so it is not the "
        "form of the data that makes RL generalise (Fig. 15).",
        "SFT loses the new rule even from data of the form that RL sees.",
        "SFT from data of the form that RL sees does not lose the new rule: the form of the data matters.",
        "Earlier data of this kind showed numbers above 10 in failed attempts, which is the very thing that is tested; "
        "they no longer do. b16 asks whether it is the varied length of the context.",
        ("b16",),
        ("suboptimal",),
        ("03_expert_data", "05_train"),
    ),
    15: Narrative(
        "On GP-VL, SFT cannot match RL even in distribution, at ten combinations of rates and frozen parts: none "
        "passes 30 % (Fig. 16).",
        "No SFT that was tried reaches RL under the training rule.",
        "At least one SFT ends above RL under the training rule.",
        "As many combinations as in the paper. In earlier runs every one of them could learn, which makes what the "
        "released code does to the pictures the first suspect: b17.",
        ("b17",),
        ("sft_tuning",),
        ("05_train", "08_pictures_dropped"),
    ),
    16: Narrative(
        "RL needs little tuning: both rates that were tried raise success in distribution (Fig. 17).",
        "Every rate that was tried raised success under the training rule.",
        "At least one rate lowered success under the training rule.",
        f"Two rates, as in the paper. The search tries five on a development seed ({_SEARCH}).",
        (),
        ("rl_tuning",),
    ),
    17: Narrative(
        "From an SFT that was trained far too long, RL never recovers the new rule: per-step accuracy stays at the "
        "bottom of the axis (Fig. 19).",
        "What an overfitted SFT has lost, RL did not bring back.",
        "RL brought back what an overfitted SFT had lost, at one rate at least.",
        "To show that a rate is below 2 % takes about 190 episodes if it is 0 and 800 if it is 1 %; episodes and seeds "
        "were raised for that ([PROTOCOL.md](PROTOCOL.md#seeds-and-numbers-of-episodes)).",
        (),
        ("overfitted",),
    ),
    18: Narrative(
        "So RL helps only from a start that is neither underfitted (no SFT) nor overfitted.",
        "RL helps from Init, and neither from nothing nor from an overfitted start.",
        "RL also works from a start that should be hopeless, or not from Init.",
        "It joins claims 1, 10 and 17; see there.",
        ("b14",),
        ("no_init", "overfitted"),
    ),
    19: Narrative(
        "On V-IRL-VL whole routes under the new rule stay near 1 % for both methods, although RL's single steps "
        "improve (Fig. 18).",
        tried="How many whole routes are walked says how long and how hard the routes are. In earlier runs "
        "Init finished a fifth of them, so the number is shown and not judged.",
    ),
    20: Narrative(
        "Footnote 1: memorisation means that a model repeats training answers when prompted, not that it stores them.",
        tried="A definition, which nothing can reproduce. Claims 2 and 5 test the behaviour.",
        controls=("b3",),
    ),
    21: Narrative(
        "RL on outcome rewards generalises, and more attempts improve it (abstract and introduction).",
        _RL_RISES,
        _RL_STAYS,
        "It joins claims 1 and 12: under the new rule RL has to gain, and on GP-L gain more with ten attempts than "
        "with one.",
        ("b11", "b15"),
        ("attempts",),
        ("05_train", "06_sensitivity"),
    ),
}  # fmt: skip
