"""Multi-turn PPO with a verifier's outcome reward (paper section 3, RL4VLM's recipe).

How they differ; an action is a whole answer and its reward comes from the verifier in all of them:
* ratio. Official code: one per answer, exp of 0.5 * (log-probs before the formula) + (log-probs from it on).
  Ours: one per token; theirs with ``ratio="sequence"``, the key found in the text instead of by token numbers.
* clip, epochs. Official code: 0.1, 4 epochs. Ours: see `PPOConfig`.
* advantage. GAE over attempts, gamma 0.9, lambda 0.95. Official code: leaks into the next, unrelated hand after a
  truncation. Ours: cut at the end of every episode. One that runs out of attempts is not bootstrapped: the budget is
  part of the task and nothing follows it.
* value. An MLP on the last prompt token's state. Official code: shares the backbone, clipped value loss. Ours: plain
  squared error; the backbone learns from it only with ``share_backbone``.
* KL to Init and entropy bonus. Official code: none, and a coefficient that the loss never uses. Ours: both optional.
* sampling. Official code: temperature 0.2 and top-p 0.9, log-probs without top-p. Ours: log-probs of exactly the
  distribution that was sampled from.
* batch. Official code: 256 attempts on each of 8 GPUs, one at a time. Ours: whole episodes, side by side; what the
  prompts of a route have in common is read once, see `training.batch`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from ..models.checkpoint import load_state, save_state
from ..models.policy import Policy, ValueHead
from ..models.rollout import Episode, rollout
from ..profiles import PPOConfig
from .batch import Batch, Played, Row, Step, hidden_states, make_batch, pack, row_length
from .compute import Compute
from .snapshots import write_snapshot


def gae(rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Generalised advantage estimates and returns of one episode's attempts, in order.

    The value after the last attempt is 0, whether it ended in success or the budget ran out (see the file's header).
    Shapes: (attempts,) in and out.
    """
    advantages = np.zeros(len(rewards))
    running, following = 0.0, 0.0
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * following - values[t]
        running = delta + gamma * lam * running
        advantages[t] = running
        following = values[t]
    return advantages, advantages + np.asarray(values)


def ppo_loss(
    policy: Policy,
    batch: Batch,
    config: PPOConfig,
    reference: torch.Tensor | None = None,
    whole: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The clipped PPO objective plus value loss, entropy bonus and KL penalty; and what to log of it.

    `reference` holds Init's log-probabilities, (answers' tokens,), needed when ``config.kl_coef`` is not 0. Where
    `batch` is a part of a minibatch, `whole` counts the answers' tokens and the attempts of all of it: the losses and
    logs of the parts then add up to those of the minibatch.
    """
    hidden = hidden_states(policy, batch)
    owner = batch.attempt
    tokens, attempts = whole or (len(owner), len(batch.advantages))
    log_p = torch.log_softmax(policy.logits(hidden[batch.row, batch.place]) / config.temperature, dim=-1)
    new = log_p.gather(-1, batch.token[:, None])[:, 0]
    log_ratio = new - batch.old_logprobs
    if config.ratio == "sequence":
        per_attempt = torch.zeros_like(batch.advantages)
        log_ratio = per_attempt.index_add(0, owner, batch.weights * log_ratio)
        advantage, actions = batch.advantages, attempts
    else:
        advantage, actions = batch.advantages[owner], tokens
    ratio = log_ratio.clamp(max=10.0).exp()  # the clamp keeps a runaway ratio finite; clipping zeroes its gradient
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).sum() / actions

    state = hidden[batch.prompt_row, batch.prompt_end]
    values = policy.value_head(state if config.share_backbone else state.detach())
    value_loss = (values - batch.returns).square().sum() / attempts
    entropy = -(log_p.exp() * log_p).sum() / tokens
    loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy
    log = {
        "policy_loss": policy_loss.item(),
        "value_loss": value_loss.item(),
        "entropy": entropy.item(),
        "clip_fraction": ((ratio - 1).abs() > config.clip).sum().item() / actions,
        "approx_kl": (ratio - 1 - log_ratio).sum().item() / actions,
    }
    if reference is not None:
        behind = reference - new  # k3, the low-variance estimator of KL(policy || Init)
        kl = (behind.exp() - 1 - behind).sum() / tokens
        loss = loss + config.kl_coef * kl
        log["kl_to_init"] = kl.item()
    return loss, log


@torch.no_grad()
def token_logprobs(policy: Policy, batch: Batch, temperature: float) -> torch.Tensor:
    """(answers' tokens,): their log-probabilities."""
    hidden = hidden_states(policy, batch)[batch.row, batch.place]
    log_p = torch.log_softmax(policy.logits(hidden) / temperature, dim=-1)
    return log_p.gather(-1, batch.token[:, None])[:, 0]


def with_advantages(episodes: Sequence[Episode], config: PPOConfig) -> list[list[Played]]:
    """The conversations of every episode, with their attempts' normalised advantages and returns."""
    estimates = []
    for episode in episodes:
        attempts = episode.attempts
        rewards, values = [a.reward for a in attempts], [a.value for a in attempts]
        estimates.append(gae(rewards, values, config.gamma, config.gae_lambda))
    every = np.concatenate([advantages for advantages, _ in estimates])
    mean, scale = every.mean(), every.std() + 1e-8
    played = []
    for episode, (advantages, returns) in zip(episodes, estimates, strict=True):
        numbers = iter(zip((advantages - mean) / scale, returns, strict=True))
        steps = ([Step(a, *map(float, next(numbers))) for a in c.attempts] for c in episode.conversations)
        played.append(list(zip(episode.conversations, steps, strict=True)))
    return played


def summarise(episodes: Sequence[Episode]) -> dict[str, float]:
    """Success rate, first-attempt success rate and mean reward of rollouts."""
    return {
        "success": float(np.mean([episode.terminated for episode in episodes])),
        "first_attempt": float(np.mean([episode.attempts[0].outcome == "correct" for episode in episodes])),
        "reward": float(np.mean([attempt.reward for episode in episodes for attempt in episode.attempts])),
    }


def train_ppo(
    policy: Policy,
    make_env: Callable[[], gymnasium.Env],
    config: PPOConfig,
    compute: Compute,
    fork_flops: float,
    checkpoints: int,
    folder: Path,
    seed: int,
    reference: Policy | None = None,
    answer_key: str = "formula",
    save_every: int = 5,
) -> list[dict[str, float]]:
    """Train `policy` in place until the branch has spent `fork_flops`; returns one log entry per update.

    Writes ``folder/step-NNNNN`` (model, critic and ``compute.json``) at `checkpoints` equal shares of the compute,
    and ``folder/training`` every `save_every` updates, from which an interrupted run continues as if it had not
    been. Everything random depends on (seed, update) alone.
    """
    policy.value_head = ValueHead(policy.model.config.get_text_config().hidden_size, seed).to(policy.device)
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "lr": config.lr},
            {"params": policy.value_head.parameters(), "lr": config.value_lr},
        ],
        eps=1e-7,
        weight_decay=0.0,
    )
    state = {"model": policy.model, "value_head": policy.value_head, "optimizer": optimizer}
    identity = {**asdict(config), "seed": seed, "fork_flops": fork_flops, "checkpoints": checkpoints}
    progress = load_state(folder / "training", state, identity)
    progress = progress or {"update": 0, "written": 0, "compute": compute.to_dict(), "history": []}
    compute = Compute(**progress["compute"])
    envs = [make_env() for _ in range(config.episodes)]
    bar = tqdm(total=100, desc=f"PPO seed {seed}", unit="%", mininterval=10, leave=False)
    while compute.fork_flops < fork_flops:
        spent = compute.fork_flops / fork_flops
        scale = config.lr_end + (1 - config.lr_end) * 0.5 * (1 + math.cos(math.pi * spent))
        for group, lr in zip(optimizer.param_groups, (config.lr, config.value_lr), strict=True):
            group["lr"] = lr * scale
        sequence = np.random.SeedSequence([seed, progress["update"]])
        *seeds, sampling, shuffling = map(int, sequence.generate_state(config.episodes + 2))
        generator = torch.Generator(policy.device).manual_seed(sampling)
        resets = [{"seed": s} for s in seeds]
        episodes = rollout(policy, envs, resets, config.temperature, config.max_new_tokens, generator)
        compute.buffer_tokens += sum(episode.tokens_read for episode in episodes)
        entry = update_policy(policy, optimizer, episodes, config, shuffling, reference, answer_key, compute)
        progress["update"] += 1
        progress["history"].append(
            {"update": progress["update"], "flops": compute.flops, **summarise(episodes), **entry}
        )
        progress["compute"] = compute.to_dict()
        share = compute.fork_flops / fork_flops
        bar.update(min(100, round(100 * share)) - bar.n)
        bar.set_postfix(success=f"{progress['history'][-1]['success']:.2f}", update=progress["update"])
        due = int(min(1.0, share) * checkpoints)
        if due > progress["written"]:
            progress["written"] = due
            write_snapshot(policy, folder, progress["update"], compute)
        if due == checkpoints or progress["update"] % save_every == 0:
            save_state(folder / "training", state, progress, identity)
    bar.close()
    (folder / "log.json").write_text(json.dumps(progress["history"]))
    return progress["history"]


def update_policy(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    episodes: Sequence[Episode],
    config: PPOConfig,
    seed: int,
    reference: Policy | None,
    answer_key: str,
    compute: Compute,
) -> dict[str, float]:
    """Several epochs of minibatch steps on one batch of episodes; adds the tokens trained on to `compute`."""
    rows = [row for played in with_advantages(episodes, config) for row in pack(played)]
    order = np.random.default_rng(seed)
    key = answer_key if config.ratio == "sequence" else None
    logs: list[dict[str, float]] = []
    policy.model.train()
    for _ in range(config.epochs):
        shuffled = order.permutation(len(rows))
        for part in np.array_split(shuffled, min(config.minibatches, len(rows))):
            log = accumulate_gradient(policy, [rows[i] for i in part], config, reference, key)
            # Policy and critic are clipped apart: the critic's first errors would drown the policy's gradient.
            norm, _ = (
                torch.nn.utils.clip_grad_norm_(group["params"], config.max_grad_norm)
                for group in optimizer.param_groups
            )
            if not torch.isfinite(norm):
                raise FloatingPointError(f"PPO's gradient is {norm.item()}; lower lr ({config.lr}) or max_grad_norm.")
            optimizer.step()
            optimizer.zero_grad()
            compute.trained_tokens += sum(len(conversation.ids) for i in part for conversation, _ in rows[i])
            logs.append({**log, "grad_norm": norm.item()})
    return {name: float(np.mean([log[name] for log in logs])) for name in logs[0]}


def accumulate_gradient(
    policy: Policy,
    rows: Sequence[Row],
    config: PPOConfig,
    reference: Policy | None = None,
    answer_key: str | None = None,
) -> dict[str, float]:
    """Add the gradient of one minibatch, in parts of like length so that little of them is padding; what to log."""
    steps = [step for row in rows for _, its_steps in row for step in its_steps]
    whole = sum(step.attempt.end - step.attempt.start for step in steps), len(steps)
    logs: list[dict[str, float]] = []
    by_length = sorted(rows, key=row_length)
    bounds = np.linspace(0, len(rows), min(config.micro_batches, len(rows)) + 1).astype(int)
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        batch = make_batch(by_length[start:end], policy, answer_key)
        init_logprobs = None
        if config.kl_coef and reference is not None:
            init_logprobs = token_logprobs(reference, batch, config.temperature)
        loss, log = ppo_loss(policy, batch, config, init_logprobs, whole)
        loss.backward()
        logs.append(log)
    return {name: sum(log[name] for log in logs) for name in logs[0]}
