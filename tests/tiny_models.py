"""Tiny random models, and what an ordinary forward pass of `transformers` says about a sequence."""

from dataclasses import replace
from pathlib import Path

import torch

from sftrl_lib.models.foundation import FoundationConfig, new_model
from sftrl_lib.models.policy import Policy, ValueHead
from sftrl_lib.profiles import SMOKE

TINY = FoundationConfig(hidden_size=32, layers=2, heads=4, key_value_heads=2, intermediate_size=64)


@torch.no_grad()
def sharpen(model, end_token, liking=3.2, seed=1):
    """Make a random model decided in what it says, and make it like to end its answers.

    Freshly initialised models find all tokens equally likely, so that any order of summation changes the greedy
    token. Dimension 0 of the embeddings is one for all tokens and more for the end token, so the end token's logit is
    raised everywhere (the tied output embedding reads dimension 0 of the state back).
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    embedding = model.get_input_embeddings().weight
    embedding[:, 0] = 1.0
    embedding[end_token, 0] += liking
    return model.eval()


def tiny_policy(tokenizer, critic=True, seed=1):
    """A random Llama of 30,000 parameters on the project's tokenizer; its critic is random too, not zero."""
    model = sharpen(new_model(TINY, tokenizer), tokenizer.eos_token_id, seed=seed)
    policy = Policy(model, tokenizer)
    if critic:
        policy.value_head = ValueHead(TINY.hidden_size, seed=seed)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            last = policy.value_head.layers[-1].weight
            last.copy_(torch.randn(last.shape, generator=generator))
    return policy


@torch.no_grad()
def reference_logprobs(policy, ids, temperature=1.0):
    """(tokens - 1,): log-probability of every token but the first, by a plain forward pass over the whole sequence."""
    logits = policy.model(input_ids=torch.tensor([ids])).logits[0, :-1]
    logprobs = torch.log_softmax(logits.double() / (temperature or 1.0), dim=-1)
    return logprobs.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]


@torch.no_grad()
def reference_values(policy, ids):
    """(tokens,): what the critic says at every position of a plain forward pass."""
    output = policy.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return policy.value_head(output.hidden_states[-1][0])


def tiny_study(folder, task="general_points"):
    """Smoke with everything smaller: both branches take about a dozen steps of the tiny model in `folder`."""
    study = SMOKE.study(task)
    size = (Path(folder) / "model.safetensors").stat().st_size  # grows with the vocabulary, and so must the budget
    return replace(
        study,
        foundation=str(folder),
        fork_flops=1e4 * size,
        checkpoints=2,
        sft=replace(study.sft, examples=64, batch_size=8, init_steps=3),
        ppo=replace(study.ppo, episodes=4, attempts=2, epochs=2, max_new_tokens=6, minibatches=2),
        evaluation=replace(
            study.evaluation, episodes_end=8, episodes_curve=4, episodes_sensitivity=4, max_new_tokens=6,
            temperatures=(0.0, 1.0), attempts_grid=(1, 3),
        ),
    )  # fmt: skip
