"""GeneralPoints in TRL's GRPOTrainer: what is trained on, what is rewarded, and that it learns."""

import itertools
import os
import random

import pytest
import torch
from tiny_models import reference_logprobs

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from trl import GRPOConfig, GRPOTrainer

from sftrl_lib.interfaces.trl import Episodes, _key
from sftrl_lib.points.demonstrations import solution
from sftrl_lib.tasks import TASKS

GP_L = TASKS["gp-l"]


def trainer_of(policy, folder, hands, **how):
    args = GRPOConfig(
        output_dir=folder, max_steps=2, per_device_train_batch_size=4, num_generations=4, max_completion_length=60,
        learning_rate=1e-2, report_to="none", bf16=False, use_cpu=True, logging_steps=1, save_strategy="no",
        activation_checkpointing=False, disable_tqdm=True, temperature=1.0,
    )  # fmt: skip
    return GRPOTrainer(
        model=policy.model, processing_class=policy.tokenizer, args=args, train_dataset=hands.dataset, **how
    )


@pytest.fixture
def hands():
    return Episodes(GP_L, hands=8, attempts=3, max_new_tokens=10)


def test_several_attempts_train_and_feedback_does_not(policy, hands, tmp_path):
    def varied(prompts, completions, solved, **_):
        """A random model's rewards are all alike, so it would learn nothing from them."""
        assert solved == [False] * 4
        return [float(len(completion[0]["content"])) for completion in completions]

    trainer = trainer_of(policy, tmp_path, hands, rollout_func=hands.rollout_func, reward_funcs=varied)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    seen, played = [], hands.rollout_func

    def watched(prompts, trainer):
        seen.append((prompts, played(prompts, trainer)))
        return seen[-1][1]

    trainer.rollout_func = watched
    trainer.train()
    assert any(not torch.equal(before[name], p) for name, p in policy.model.named_parameters())
    [(prompts, first), *_] = seen
    assert len(prompts) == len(first["prompt_ids"]) == 4
    for prompt, start, rest, mask in zip(
        prompts, first["prompt_ids"], first["completion_ids"], first["env_mask"], strict=True
    ):
        assert start == policy.prompt_ids(prompt) and len(rest) == len(mask)
        assert 0 < sum(mask) <= 30 and mask[0] == mask[-1] == 1
    lengths = [entry["completions/mean_length"] for entry in trainer.state.log_history if "reward" in entry]
    assert lengths[0] == pytest.approx(sum(map(sum, first["env_mask"])) / 4)


def test_rollouts_are_those_of_the_model(policy, hands, tmp_path):
    """Log-probabilities are a forward pass's; the return is the environment's rewards, replayed, discounted."""
    trainer = trainer_of(policy, tmp_path, hands, rollout_func=hands.rollout_func, reward_funcs=hands.reward)
    prompts = hands.dataset["prompt"][:4]
    rows = hands.rollout_func(prompts, trainer)
    for i, prompt in enumerate(prompts):
        start, rest = rows["prompt_ids"][i], rows["completion_ids"][i]
        said = torch.tensor(rows["env_mask"][i], dtype=torch.bool)
        expected = reference_logprobs(policy, start + rest, 1.0)[len(start) - 1 :].float()
        torch.testing.assert_close(torch.tensor(rows["logprobs"][i])[said], expected[said], atol=1e-4, rtol=1e-4)
        env, total = GP_L.training_env(3), 0.0
        env.reset(seed=hands._resets[_key(prompt)])
        for k, answer in enumerate(answers(rest, rows["env_mask"][i])):
            text = policy.tokenizer.decode(answer, skip_special_tokens=True)
            total += 0.9**k * env.step(text)[1]
        assert rows["episode_return"][i] == pytest.approx(total)
    assert hands.reward(prompts, None, rows["episode_return"]) == rows["episode_return"]


def answers(ids, mask):
    """The runs of tokens that are not masked."""
    pairs = itertools.groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1])
    return [[token for token, _ in group] for masked, group in pairs if masked]


def test_one_answer_is_graded_by_the_verifier(hands):
    prompts, right = hands.dataset["prompt"][:3], []
    for prompt in prompts:
        _, info = GP_L.training_env(1).reset(seed=hands._resets[_key(prompt)])
        right.append([{"role": "assistant", "content": solution(random.Random(0), info["cards"], "ten")}])
    wrong = [[{"role": "assistant", "content": '{"formula": "1+1=24"}'}]] * 3
    assert hands.grade(prompts, right) == [5.0] * 3
    assert all(reward < 0 for reward in hands.grade(prompts, wrong))


def test_pictures_have_no_place_in_trl():
    with pytest.raises(ValueError, match="GP-VL has some"):
        Episodes(TASKS["gp-vl"], hands=1)
