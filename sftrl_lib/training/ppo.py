"""Multi-turn PPO with a verifier's outcome reward (paper section 3, RL4VLM's recipe).

How they differ; an action is a whole answer and its reward comes from the verifier in all of them:
* ratio. Official code: one per answer, exp of 0.5 * (log-probs before the formula) + (log-probs from it on).
  Ours: one per token; theirs with ``ratio="sequence"``, the key found in the text instead of by token numbers.
* clip, epochs. Official code: 0.1, 4 epochs. Ours: see `PPOConfig`.
* advantage. GAE over attempts, gamma 0.9, lambda 0.95. Official code: leaks into the next, unrelated hand after a
  truncation. Ours: cut at the end of every episode. One that runs out of attempts is not bootstrapped: the budget is
  part of the task and nothing follows it.
* value. An MLP on the hidden state of the last prompt token. Official code: shares the backbone, clipped value loss.
  Ours: plain squared error; the backbone learns from it only with ``share_backbone``.
* GRPO, with ``group``: several rollouts of every hand; the advantage of all answers in an episode is its return (the
  discounted sum of its rewards) minus the group's mean, over the group's spread. The critic has no say, and the ratio
  and its clip are PPO's. DeepSeekMath's (arXiv 2402.03300) is the same with one answer an episode and a KL term.
* KL to Init and entropy bonus. Official code: none, and a coefficient that the loss never uses. Ours: both optional.
* sampling. Official code: temperature 0.2 and top-p 0.9, log-probs without top-p. Ours: log-probs of exactly the
  distribution that was sampled from.
* batch. Official code: 256 attempts on each of 8 GPUs, one at a time. Ours: whole episodes, side by side; the prefix
  that the prompts of a route share is read once, see `batch.py`. On several GPUs see `processes.py`.
* rollouts by another engine (vLLM, or a bfloat16 copy of weights in shards), whose log-probabilities are not quite the
  learner's. Official code: none. Ours, with ``importance_cap``: before it learns, the learner computes its own
  log-probabilities and values; each token's (or answer's) term is weighted with the truncated ratio of the two.

Logged per update: success, first_attempt and reward of the rollouts; policy_loss, value_loss, entropy (nats per token),
clip_fraction, approx_kl (the k3 estimator, old policy to new), grad_norm; explained_variance (the share of the returns'
variance that the critic foresaw); kl_to_init with a KL penalty; with ``importance_cap`` engine_gap (mean absolute
difference of log-probabilities per token, learner to engine), engine_kl (k3, engine to learner) and truncated (the
share of weights that were cut).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..configs import MICRO_BATCH_TOKENS, PPOConfig
from ..models.policy import Policy, ValueHead
from ..models.rollout import Attempt, Conversation, Episode, rollout
from .batch import Batch, Conversations, Row, Step, by_length, hidden_states, make_batch, pack
from .branch import Branch
from .finite import check_number
from .logprobs import logprobs_and_entropies, token_logprobs
from .loop import Progress, train_by_updates
from .processes import ALONE, Processes

Logs = dict[str, float]


def train(branch: Branch, save_every: int = 5) -> None:
    """Train a branch with PPO; see `Branch` for what it writes."""
    policy, task, config, processes = branch.policy, branch.task, branch.config, branch.processes
    if config.kl_coef and branch.reference is None:
        raise ValueError("PPOConfig.kl_coef needs Init as the reference; a branch that starts elsewhere has none.")
    if config.episodes < processes.count:
        raise ValueError(f"{processes.count} processes cannot share PPOConfig.episodes = {config.episodes}.")
    if branch.engine != "ours" and not config.importance_cap:
        raise ValueError(f"engine={branch.engine!r} needs PPOConfig.importance_cap above 0, such as 3.")
    width = policy.model.config.get_text_config().hidden_size
    policy.value_head = ValueHead(width, branch.seed).to(policy.device)  # every branch starts with a new critic
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in policy.model.parameters() if p.requires_grad], "lr": config.lr},
            {"params": policy.value_head.parameters(), "lr": config.value_lr},
        ],
        betas=config.adam_betas,
        eps=config.adam_eps,
        weight_decay=0.0,
    )
    optimizer = processes.prepare(policy, optimizer, config, branch.engine)
    own = len(processes.share(range(config.episodes)))
    envs = [task.training_env(config.attempts) for _ in range(min(own, branch.rollout_batch))]

    def update(progress: Progress) -> Logs:
        # 1. Learning rates of this update
        scale = progress.cosine(config.lr_end)
        for group, lr in zip(optimizer.param_groups, (config.lr, config.value_lr), strict=True):
            group["lr"] = lr * scale
        # 2. Rollouts with the current policy, each with its own reset seed
        *seeds, shuffling = progress.seeds(branch.seed, 2 * config.episodes + 1)
        hands = seeds[: config.episodes]
        if config.group:  # the same hand for a whole group
            hands = [seed for seed in hands[: config.episodes // config.group] for _ in range(config.group)]
        resets = [{"seed": seed} for seed in processes.share(hands)]
        actor, sampling = processes.actor(policy), processes.share(seeds[config.episodes :])
        episodes = rollout(actor, envs, resets, config.temperature, config.max_new_tokens, sampling)
        everywhere = processes.gather([outline(episode) for episode in episodes])
        branch.compute.buffer_tokens += sum(episode.tokens_read for episode in everywhere)
        # 3. Learning
        logs, tokens = learn(
            policy, optimizer, episodes, config, shuffling, branch.reference, task.answer_key,
            branch.micro_batch_tokens, processes,
        )  # fmt: skip
        branch.compute.trained_tokens += tokens
        return {**summarise(everywhere), **logs}

    train_by_updates(branch, optimizer, update, "PPO", save_every)


def outline(episode: Episode) -> Episode:
    """An episode without its tokens, texts and pictures: its rewards, values and outcomes, for the other processes."""
    conversations = [
        Conversation([], [replace(attempt, logprobs=[], text="", feedback="") for attempt in conversation.attempts])
        for conversation in episode.conversations
    ]
    return replace(episode, conversations=conversations, info={})


def learn(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    episodes: Sequence[Episode],
    config: PPOConfig,
    seed: int,
    reference: Policy | None = None,
    answer_key: str = "",
    micro_batch_tokens: int = MICRO_BATCH_TOKENS,
    processes: Processes = ALONE,
) -> tuple[Logs, int]:
    """Several epochs of minibatch steps on one batch of episodes; mean logs and the tokens trained on.

    `episodes` are this process's share of the batch; logs and tokens are those of all. `optimizer` has two parameter
    groups, the policy's and the critic's; `micro_batch_tokens` as in `Branch`. Raises FloatingPointError if a
    log-probability, value, loss or gradient is not finite.
    """
    for attempt in (attempt for episode in episodes for attempt in episode.attempts):
        check_number(sum(attempt.logprobs), "PPO's log-probability of an answer", config)
        check_number(attempt.value, "PPO's estimate of a value", config, "value_lr")
    mismatch: Logs = {}
    if config.importance_cap:
        episodes, mismatch = rescored(policy, episodes, config, answer_key, micro_batch_tokens, processes)
    everywhere = processes.gather([outline(episode) for episode in episodes])
    estimates = normalised_estimates(everywhere, config)
    of_episodes = [pack(c) for c in with_steps(episodes, processes.share(estimates))]
    rows = [row for its_rows in of_episodes for row in its_rows]
    # All rows are numbered; each process knows where in them its own are.
    counts = processes.gather([len(its_rows) for its_rows in of_episodes])
    firsts = processes.share(np.cumsum([0, *counts[:-1]]).tolist())
    numbers = [first + i for first, its in zip(firsts, of_episodes, strict=True) for i in range(len(its))]
    own = dict(zip(numbers, rows, strict=True))
    rng = np.random.default_rng(seed)
    logs: list[Logs] = []
    tokens = 0
    policy.model.train()
    for _ in range(config.epochs):
        shuffled = rng.permutation(sum(counts))
        for indices in np.array_split(shuffled, min(config.minibatches, len(shuffled))):
            minibatch = [own[i] for i in indices if i in own]
            log = accumulate_gradient(
                policy, minibatch, config, reference, answer_key, micro_batch_tokens, processes, spare=rows[0]
            )
            for name, number in log.items():
                check_number(number, f"PPO's {name}", config, "value_lr" if name == "value_loss" else "lr")
            # Clip policy and critic separately: the critic's first errors would drown the policy's gradient.
            grad_norm, critic_norm = (
                processes.clip(group["params"], config.max_grad_norm) for group in optimizer.param_groups
            )
            check_number(grad_norm, "PPO's gradient", config)
            check_number(critic_norm, "the gradient of PPO's critic", config, "value_lr")
            optimizer.step()
            optimizer.zero_grad()
            learnt = [conversation for row in minibatch for conversation, _ in row]
            tokens += sum(len(c.ids) + policy.picture_tokens * (c.picture is not None) for c in learnt)
            logs.append({**log, "grad_norm": grad_norm})
    values = [attempt.value for episode in everywhere for attempt in episode.attempts]
    explained = explained_variance(values, np.concatenate([returns for _, returns in estimates]))
    means = {name: float(np.mean([log[name] for log in logs])) for name in logs[0]}
    return {**means, "explained_variance": explained, **mismatch}, int(processes.total(tokens)[0])


def normalised_estimates(episodes: Sequence[Episode], config: PPOConfig) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every episode the advantages, normalised over all attempts, and the returns: (attempts,) each."""
    if config.group:
        return group_relative(episodes, config)
    estimates = []
    for episode in episodes:
        rewards = [attempt.reward for attempt in episode.attempts]
        values = [attempt.value for attempt in episode.attempts]
        estimates.append(gae(rewards, values, config.gamma, config.gae_lambda))
    advantages = np.concatenate([advantages for advantages, _ in estimates])
    mean, std = advantages.mean(), advantages.std() + 1e-8
    return [((advantages - mean) / std, returns) for advantages, returns in estimates]


def with_steps(episodes: Sequence[Episode], estimates: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Conversations]:
    """The conversations of every episode, with the advantages and the returns of their attempts."""
    found = []
    for episode, (advantages, returns) in zip(episodes, estimates, strict=True):
        conversations, first = [], 0
        for conversation in episode.conversations:
            last = first + len(conversation.attempts)
            numbers = zip(advantages[first:last], returns[first:last], strict=True)
            steps = [Step(a, float(x), float(r)) for a, (x, r) in zip(conversation.attempts, numbers, strict=True)]
            conversations.append((conversation, steps))
            first = last
        found.append(conversations)
    return found


@torch.no_grad()
def rescored(
    policy: Policy,
    episodes: Sequence[Episode],
    config: PPOConfig,
    answer_key: str,
    micro_batch_tokens: int,
    processes: Processes,
) -> tuple[list[Episode], Logs]:
    """The episodes with the learner's own log-probabilities and values; and how far the engine's are from them."""
    policy.model.eval()  # as while it plays
    rows = [row for conversations in with_steps(episodes, _zero_estimates(episodes)) for row in pack(conversations)]
    gaps, ratios = [np.zeros(0)], [np.zeros(0)]
    again: dict[int, Attempt] = {}
    parts = by_length(rows, micro_batch_tokens)
    for number in range(processes.most(len(parts))):
        part = parts[min(number, len(parts) - 1)]
        batch = make_batch(part, policy, answer_key if config.ratio == "sequence" else "")
        logprobs, values = processes.forward(_score, policy, batch, config.temperature)
        if number >= len(parts):  # another process has more
            continue
        attempts = [step.attempt for row in part for _, steps in row for step in steps]
        pieces = logprobs.split([len(attempt.logprobs) for attempt in attempts])
        for attempt, piece, value in zip(attempts, pieces, values.tolist(), strict=True):
            again[id(attempt)] = replace(attempt, logprobs=piece.tolist(), sampled=attempt.logprobs, value=value)
        difference = (logprobs - batch.sampled_logprobs).double().cpu().numpy()
        gaps.append(difference)
        ratios.append(np.exp(importance(batch, logprobs, config).double().cpu().numpy()))
    found = [
        replace(episode, conversations=[
            replace(c, attempts=[again[id(attempt)] for attempt in c.attempts]) for c in episode.conversations
        ])
        for episode in episodes
    ]  # fmt: skip
    gap, ratio = np.concatenate(gaps), np.concatenate(ratios)
    far, kl, cut, tokens, actions = processes.total(
        np.abs(gap).sum(), (np.exp(gap) - 1 - gap).sum(), (ratio > config.importance_cap).sum(), len(gap), len(ratio)
    )
    return found, {"engine_gap": far / tokens, "engine_kl": kl / tokens, "truncated": cut / actions}


def _zero_estimates(episodes: Sequence[Episode]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.zeros(len(episode.attempts)),) * 2 for episode in episodes]


def _score(policy: Policy, batch: Batch, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the answers' tokens, (T,), and values of the attempts, (A,)."""
    hidden = hidden_states(policy, batch)
    before = hidden[batch.row, batch.predictor]
    logprobs, _ = logprobs_and_entropies(policy, before, batch.token, temperature)
    return logprobs, policy.value_head(hidden[batch.prompt_row, batch.prompt_end])


def importance(batch: Batch, logprobs: torch.Tensor, config: PPOConfig) -> torch.Tensor:
    """Log-ratio of the learner's probability to the engine's, of each token (T,), or answer (A,) by their weights."""
    difference = logprobs - batch.sampled_logprobs
    if config.ratio == "token":
        return difference
    return torch.zeros_like(batch.advantages).index_add(0, batch.attempt, batch.weights * difference)


def group_relative(episodes: Sequence[Episode], config: PPOConfig) -> list[tuple[np.ndarray, np.ndarray]]:
    """GRPO's advantages, one value for all attempts of an episode, and their returns; groups are in a row."""
    returns = [gae([a.reward for a in e.attempts], [0.0] * len(e.attempts), config.gamma, 1.0)[1] for e in episodes]
    totals = np.array([found[0] for found in returns]).reshape(-1, config.group)
    relative = (totals - totals.mean(1, keepdims=True)) / (totals.std(1, ddof=1, keepdims=True) + 1e-4)  # as in TRL
    return [(np.full(len(found), x), found) for found, x in zip(returns, relative.ravel(), strict=True)]


def gae(rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Generalised advantage estimates and returns of one episode's attempts, in order.

    The value after the last attempt is 0, whether it ended in success or the budget ran out (see the file's header).
    Shapes: (attempts,) in and out.
    """
    advantages = np.zeros(len(rewards))
    advantage, next_value = 0.0, 0.0
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * next_value - values[t]
        advantage = delta + gamma * lam * advantage
        advantages[t] = advantage
        next_value = values[t]
    return advantages, advantages + np.asarray(values)


def explained_variance(values: Sequence[float], returns: Sequence[float]) -> float:
    """1 is a perfect critic, 0 one that says the same of every attempt; 0 as well if all returns are the same."""
    spread = np.var(returns)
    return float(1 - np.var(np.subtract(returns, values)) / spread) if spread else 0.0


def accumulate_gradient(
    policy: Policy,
    rows: Sequence[Row],
    config: PPOConfig,
    reference: Policy | None = None,
    answer_key: str = "",
    micro_batch_tokens: int = MICRO_BATCH_TOKENS,
    processes: Processes = ALONE,
    spare: Row | None = None,
) -> Logs:
    """Add the gradient of one minibatch, which is the same however it is cut into micro-batches; returns its log.

    `rows`: this process's share of the minibatch. All processes go through equally many micro-batches, one that has
    too few of its own with the row `spare`, which counts for nothing.
    """
    steps = [step for row in rows for _, its_steps in row for step in its_steps]
    counts = processes.total(sum(step.attempt.end - step.attempt.start for step in steps), len(steps))
    key = answer_key if config.ratio == "sequence" else ""
    logs: list[Logs] = []
    parts = by_length(rows, micro_batch_tokens)
    count = processes.most(len(parts))
    for number in range(count):
        counted = number < len(parts)
        part = parts[number] if counted else [spare]
        batch = make_batch(part, policy, key)
        init_logprobs = None
        if config.kl_coef and reference is not None:
            with torch.no_grad(), reference.adapters_active():
                init_logprobs = processes.forward(token_logprobs, reference, batch, config.temperature)
        with processes.micro_batch(last=number == count - 1):
            loss, log = processes.forward(ppo_loss, policy, batch, config, init_logprobs, counts)
            processes.backward(loss if counted else 0.0 * loss)
        logs.append(log if counted else dict.fromkeys(log, 0.0))
    names = list(logs[0])
    return dict(zip(names, processes.total(*(sum(log[name] for log in logs) for name in names)), strict=True))


def ppo_loss(
    policy: Policy,
    batch: Batch,
    config: PPOConfig,
    init_logprobs: torch.Tensor | None = None,
    counts: Sequence[float] | None = None,
) -> tuple[torch.Tensor, Logs]:
    """The clipped PPO objective plus value loss, entropy bonus and KL penalty; and what to log of it.

    T answer tokens, A attempts. `init_logprobs`: Init's log-probabilities, (T,), for ``config.kl_coef``. Where `batch`
    is one of several micro-batches, `counts` holds T and A of the whole minibatch: the losses and logs of the
    micro-batches then add up to those of the minibatch.
    """
    tokens, attempts = counts or (len(batch.token), len(batch.advantages))
    hidden = hidden_states(policy, batch)  # (rows, length, hidden size)
    before = hidden[batch.row, batch.predictor]  # (T, hidden size)
    logprobs, entropies = logprobs_and_entropies(
        policy, before, batch.token, config.temperature, entropy_gradient=config.entropy_coef > 0
    )  # (T,) both

    log_ratio = logprobs - batch.old_logprobs
    advantages, actions = batch.advantages[batch.attempt], tokens  # (T,): an action is a token
    if config.ratio == "sequence":  # (A,): an action is an answer
        log_ratio = torch.zeros_like(batch.advantages).index_add(0, batch.attempt, batch.weights * log_ratio)
        advantages, actions = batch.advantages, attempts
    ratio = log_ratio.clamp(max=10.0).exp()  # the clamp keeps a runaway ratio finite; clipping zeroes its gradient
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    if config.importance_cap:
        objective = objective * importance(batch, batch.old_logprobs, config).exp().clamp(max=config.importance_cap)
    policy_loss = -objective.sum() / actions

    state = hidden[batch.prompt_row, batch.prompt_end]  # (A, hidden size)
    values = policy.value_head(state if config.share_backbone else state.detach())
    value_loss = (values - batch.returns).square().sum() / attempts
    entropy = entropies.sum() / tokens
    loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy
    logs = {
        "policy_loss": policy_loss.item(),
        "value_loss": value_loss.item(),
        "entropy": entropy.item(),
        "clip_fraction": ((ratio - 1).abs() > config.clip).sum().item() / actions,
        "approx_kl": (ratio - 1 - log_ratio).sum().item() / actions,
    }
    if init_logprobs is not None:
        behind = init_logprobs - logprobs  # k3, the low-variance estimator of KL(policy || Init)
        kl = (behind.exp() - 1 - behind).sum() / tokens
        loss = loss + config.kl_coef * kl
        logs["kl_to_init"] = kl.item()
    return loss, logs


def summarise(episodes: Sequence[Episode]) -> Logs:
    """Success rate, first-attempt success rate and mean reward of rollouts."""
    return {
        "success": float(np.mean([episode.terminated for episode in episodes])),
        "first_attempt": float(np.mean([episode.attempts[0].outcome == "correct" for episode in episodes])),
        "reward": float(np.mean([attempt.reward for episode in episodes for attempt in episode.attempts])),
    }
