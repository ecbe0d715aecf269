"""Four ways to play the same episodes with the same weights: what `make bench` times against each other.

* official: the released code's pattern. One episode at a time; `generate` reads the whole history again for every
  attempt and keeps scores and hidden states, and a second forward pass computes log-probabilities and the value.
* hf: `generate` of transformers on a batch padded on the left, as most people would write it. It reads the whole
  history again for every attempt, and decodes rows that have ended their answer until the last one has. Episodes that
  are over leave the batch between attempts. It returns tokens alone: PPO would need one more forward pass.
* trl: `GRPOTrainer._generate` of TRL with a ``rollout_func`` that plays the episodes and takes the tokens from TRL's
  own generation (the transformers backend), attempt by attempt. A ``rollout_func`` replaces TRL's generation, so one
  that called our engine would time our engine; this one times TRL's. No training, no reward, no scoring pass: those
  would only slow it down. TRL trains on one sequence an episode, so tasks that rewrite their prompts do not run.
* ours: `models.rollout`. Every token is read once, and log-probabilities and values are kept from sampling.

All stop an answer at the policy's end token or after as many new tokens, and all start episode i with seed i.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import torch
from transformers import GenerationConfig

from ..configs import Protocol
from ..messages import message_text
from ..models.pictures import Picture, stack_pictures
from ..models.policy import Policy
from ..models.rollout import Episode, rollout

SEED = 0  # of the sampling: every repeat of a measurement does the same work


class Turn(NamedTuple):
    """One attempt, in tokens."""

    prompt: list[int]  # the whole history before the answer
    answer: list[int]
    logprobs: list[float]  # of the answer's tokens; empty from engines that keep none
    picture: Picture | None = None


Played = list[list[Turn]]  # the turns of every episode
Engine = Callable[[Policy, Sequence[gymnasium.Env], Protocol], Played]


class NotMeasured(RuntimeError):
    """An engine cannot play this here; the message says why."""


def ours(policy: Policy, envs: Sequence[gymnasium.Env], how: Protocol) -> Played:
    """This package's engine, all of `envs` side by side."""
    return turns(play(policy, envs, how))


def play(policy: Policy, envs: Sequence[gymnasium.Env], how: Protocol) -> list[Episode]:
    """One rollout with this package's engine."""
    seeds = range(len(envs))
    resets = [{"seed": seed} for seed in seeds]
    return rollout(policy, envs, resets, how.temperature, how.max_new_tokens, seeds)


def turns(episodes: Sequence[Episode]) -> Played:
    """The episodes of `rollout` as turns."""
    return [
        [
            Turn(c.ids[: a.start], c.ids[a.start : a.end], a.logprobs, c.picture)
            for c in episode.conversations
            for a in c.attempts
        ]
        for episode in episodes
    ]


def hf(policy: Policy, envs: Sequence[gymnasium.Env], how: Protocol) -> Played:
    """transformers' `generate`, all of `envs` in one batch."""
    return _play_all(_start(policy, envs), lambda chats: generate(policy, chats, how))


@torch.no_grad()
def official(policy: Policy, envs: Sequence[gymnasium.Env], how: Protocol) -> Played:
    """The released code's pattern, one of `envs` after another."""
    chats = _start(policy, envs)
    for chat in chats:
        while not chat.over:
            [answer] = generate(policy, [chat], how, output_scores=True, output_hidden_states=True)
            ids = torch.tensor([chat.ids + answer], device=policy.device)
            pictures = stack_pictures([chat.picture], policy.device) or {}
            output = policy.model(input_ids=ids, output_hidden_states=True, **pictures)
            scores = output.logits[0, len(chat.ids) - 1 : -1].float() / (how.temperature or 1.0)
            logprobs = scores.log_softmax(-1).gather(-1, ids[0, len(chat.ids) :, None])[:, 0].tolist()
            if policy.value_head is not None:
                policy.value_head(output.hidden_states[-1][0, len(chat.ids) - 1]).item()
            chat.hear(answer, logprobs)
    return [chat.turns for chat in chats]


class Chat:
    """One episode whose history is read again for every answer. `ids` is that history, in the sampled tokens."""

    def __init__(self, policy: Policy, env: gymnasium.Env, seed: int) -> None:
        self.policy, self.env = policy, env
        self.observation, _ = env.reset(seed=seed)
        self.ids, self.picture = self._prompt()
        self.turns: list[Turn] = []
        self.over = False

    def _prompt(self) -> tuple[list[int], Picture | None]:
        prompt = self.policy.prompt(self.observation)
        return list(prompt.ids), prompt.picture

    def hear(self, answer: list[int], logprobs: Sequence[float] = ()) -> None:
        """Have `answer` graded, and append it with the feedback."""
        self.turns.append(Turn(self.ids, answer, list(logprobs), self.picture))
        ended = answer[-1] == self.policy.end_token
        text = self.policy.tokenizer.decode(answer[: -1 if ended else None], skip_special_tokens=True)
        before = self.observation["messages"]
        self.observation, _, terminated, truncated, _ = self.env.step(text)
        self.over = terminated or truncated
        if self.over:
            return
        messages = self.observation["messages"]
        if messages[:-2] == before:
            self.ids = [*self.ids, *answer, *([] if ended else [self.policy.end_token])]
            self.ids += self.policy.continuation_ids(message_text(messages[-1]))
        else:
            self.ids, self.picture = self._prompt()


def _start(policy: Policy, envs: Sequence[gymnasium.Env]) -> list[Chat]:
    policy.model.eval()
    torch.manual_seed(SEED)
    return [Chat(policy, env, seed) for seed, env in enumerate(envs)]


def _play_all(chats: Sequence[Chat], answer: Callable[[list[Chat]], list[list[int]]]) -> Played:
    """Play all chats side by side, attempt by attempt; `answer` gives an answer to each of those that are not over."""
    while active := [chat for chat in chats if not chat.over]:
        for chat, tokens in zip(active, answer(active), strict=True):
            chat.hear(tokens)
    return [chat.turns for chat in chats]


def generate(policy: Policy, chats: Sequence[Chat], how: Protocol, **outputs: bool) -> list[list[int]]:
    """An answer to every chat by transformers' `generate`, up to its end token; `outputs` are what it has to keep."""
    longest = max(len(chat.ids) for chat in chats)
    pad = policy.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(chat.ids)) + chat.ids for chat in chats], device=policy.device)
    mask = torch.tensor([[0] * (longest - len(chat.ids)) + [1] * len(chat.ids) for chat in chats], device=policy.device)
    sampled = {"temperature": how.temperature, "top_k": 0, "top_p": 1.0} if how.temperature else {}
    config = GenerationConfig(
        do_sample=how.temperature > 0,
        max_new_tokens=how.max_new_tokens,
        eos_token_id=policy.end_token,
        pad_token_id=pad,
        suppress_tokens=None if policy.image_token is None else [policy.image_token],
        return_dict_in_generate=True,
        **sampled,
        **outputs,
    )
    pictures = stack_pictures((chat.picture for chat in chats), policy.device) or {}
    output = policy.model.generate(ids, attention_mask=mask, generation_config=config, **pictures)
    return [up_to(policy.end_token, answer) for answer in output.sequences[:, longest:].tolist()]


def up_to(end_token: int, answer: list[int]) -> list[int]:
    """An answer without what follows its first end token."""
    return answer[: answer.index(end_token) + 1] if end_token in answer else answer


class TRL:
    """TRL's generation as an engine: a `GRPOTrainer` whose ``rollout_func`` plays our environments with it.

    Playing raises NotMeasured for a task that rewrites its prompts.
    """

    def __init__(self, policy: Policy, how: Protocol) -> None:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
        from trl.rewards import think_format_reward

        self.policy = policy
        self.chats: list[Chat] = []
        self.folder = tempfile.TemporaryDirectory()  # the trainer insists on one, and writes nothing into it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rollout_func is experimental, gradient_checkpointing about to be renamed
            settings = GRPOConfig(
                output_dir=self.folder.name,
                use_cpu=policy.device.type == "cpu",
                bf16=False,  # autocast; the weights have their own dtype
                gradient_checkpointing=False,
                per_device_train_batch_size=2,
                num_generations=2,
                temperature=how.temperature,
                max_completion_length=how.max_new_tokens,
                report_to="none",
            )
            self.trainer = GRPOTrainer(
                model=policy.model,
                reward_funcs=think_format_reward,  # the trainer insists on one, and is not asked for rewards
                args=settings,
                train_dataset=Dataset.from_list([{"prompt": "never read"}]),
                processing_class=policy.processor or policy.tokenizer,
                rollout_func=self._rollout,
            )

    def __call__(self, policy: Policy, envs: Sequence[gymnasium.Env], how: Protocol) -> Played:
        self.chats = _start(policy, envs)
        self.trainer._generate([chat.observation["messages"] for chat in self.chats])
        return [chat.turns for chat in self.chats]

    def _rollout(self, prompts: list[Any], trainer: Any) -> dict[str, list[list[int]] | None]:
        """What TRL calls in place of its generation: prompts -> prompts, and all that follows them, in tokens."""
        played = _play_all(self.chats, self._answer)
        prompts = [episode[0].prompt for episode in played]
        whole = [[*episode[-1].prompt, *episode[-1].answer] for episode in played]
        rest = [ids[len(prompt) :] for ids, prompt in zip(whole, prompts, strict=True)]
        return {"prompt_ids": prompts, "completion_ids": rest, "logprobs": None}

    def _answer(self, chats: list[Chat]) -> list[list[int]]:
        if any(chat.turns and chat.ids[: len(chat.turns[0].prompt)] != chat.turns[0].prompt for chat in chats):
            raise NotMeasured("TRL trains on one sequence an episode, and this task rewrites its prompts")
        pictures = stack_pictures((chat.picture for chat in chats), self.policy.device) or {}
        return self.trainer._generate_single_turn([chat.ids for chat in chats], None, pictures, 1)[0]
