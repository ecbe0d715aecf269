"""Tiny random models, and what an ordinary forward pass of `transformers` says about a sequence."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import gymnasium
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from sftrl_lib.experiments import ATTEMPTS, MAIN, NO_INIT, OVERFITTED, SENSITIVITY, SFT_TUNING, SUBOPTIMAL
from sftrl_lib.foundation.pretrain import FoundationConfig, new_model
from sftrl_lib.models.policy import Policy, ValueHead
from sftrl_lib.models.rollout import rollout
from sftrl_lib.profiles import SMOKE, Profile
from sftrl_lib.training import ppo

TINY = FoundationConfig(hidden_size=32, layers=2, heads=4, key_value_heads=2, intermediate_size=64)


@torch.no_grad()
def sharpen(model, end_token, liking=3.2, seed=4):
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


def tiny_policy(tokenizer, critic=True, seed=4):
    """A random Llama of 30,000 parameters on the project's tokenizer; its critic is random too, not zero."""
    model = sharpen(new_model(TINY, tokenizer), tokenizer.eos_token_id, seed=seed)
    policy = Policy(model, tokenizer)
    if critic:
        policy.value_head = random_critic(seed)
    return policy


@torch.no_grad()
def random_critic(seed):
    critic = ValueHead(TINY.hidden_size, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    last = critic.layers[-1].weight
    last.copy_(torch.randn(last.shape, generator=generator))
    return critic


# As SmolLM2's: chats begin with the system's message where they have none of their own.
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def smollm2_policy(texts, words=1_000):
    """A random Llama under a tokenizer made as SmolLM2's: bytes and pairs, every digit a token, padding is not the end.

    `texts` are what its words are taken from.
    """
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=words, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    start, end = special[1:]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=start, eos_token=end, pad_token=special[0], chat_template=SMOLLM2_TEMPLATE
    )
    return Policy(sharpen(new_model(replace(TINY, context=4096), tokenizer), tokenizer.eos_token_id), tokenizer)


IMAGE = "<image>"
IMAGE_TOKENS = 16  # of a picture of 128 x 128 pixels in patches of 32
PARTS_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def tiny_processor(tokenizer):
    """Pictures padded to a square of 128 pixels, in 16 image tokens; `tokenizer` itself stays as it is."""
    tokenizer = deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    pictures = LlavaImageProcessorPil(
        do_pad=True, size={"height": 128, "width": 128}, do_center_crop=False,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    return LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, patch_size=32, vision_feature_select_strategy="full",
        chat_template=PARTS_TEMPLATE, image_token=IMAGE, num_additional_image_tokens=0,
    )  # fmt: skip


def tiny_vision_policy(tokenizer, critic=True, seed=4):
    """A random LLaVA with a SigLIP of one layer, for which pictures matter as much as words do; and its critic."""
    processor = tiny_processor(tokenizer)
    tokenizer = processor.tokenizer
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, image_size=128, patch_size=32,
        vision_use_head=False,
    )  # fmt: skip
    config = LlavaConfig(
        text_config=text, vision_config=vision, image_token_id=processor.image_token_id, tie_word_embeddings=True,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    torch.manual_seed(seed)
    model = sharpen(LlavaForConditionalGeneration(config), tokenizer.eos_token_id, seed=seed)
    policy = Policy(model, tokenizer, processor=processor)
    if critic:
        policy.value_head = random_critic(seed)
    return policy


CROSSED = "<|image|>"
TILES, TILE = 2, 64  # at most so many tiles of so many pixels, with four patches


def tiny_mllama_policy(tokenizer, critic=True, seed=4):
    """A random Mllama: three layers, of which the second attends to pictures of one or two tiles; and its critic."""
    tokenizer = deepcopy(tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    tokenizer.add_special_tokens({"additional_special_tokens": [CROSSED]})  # the last: it has no logit, as in Llama's
    shapes = MllamaImageProcessorPil(
        size={"height": TILE, "width": TILE}, max_image_tiles=TILES, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    template = "<|begin|>" + PARTS_TEMPLATE.replace(IMAGE, CROSSED)
    processor = MllamaProcessor(shapes, tokenizer, chat_template=template)
    text = MllamaTextConfig(
        vocab_size=len(tokenizer) - 1, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=2048, cross_attention_layers=[1],
        tie_word_embeddings=False, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = MllamaVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_global_layers=1, attention_heads=2,
        image_size=TILE, patch_size=32, max_num_tiles=TILES, supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]],
        intermediate_layers_indices=[0], vision_output_dim=32,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=tokenizer.vocab_size)
    model = sharpen(MllamaForConditionalGeneration(config), tokenizer.eos_token_id, seed=seed)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.get_input_embeddings().weight[: text.vocab_size])  # as if they were tied
        for name, gate in model.named_parameters():
            if name.endswith("gate"):  # zero in a new model, which then sees no picture
                gate.fill_(1.0)
    policy = Policy(model, tokenizer, processor=processor)
    if critic:
        policy.value_head = random_critic(seed)
    return policy


def forward_inputs(policy, ids, picture=None):
    """What `transformers` takes for a sequence and its picture; its own functions make the cross-attention mask."""
    inputs = {"input_ids": torch.tensor([ids]), **(picture or {})}
    if "aspect_ratio_mask" in inputs:
        spans, tiles = get_cross_attention_token_mask(ids, policy.image_token), int(inputs["aspect_ratio_mask"].sum())
        mask = convert_sparse_cross_attention_mask_to_dense([spans], [[tiles]], TILES, len(ids))
        inputs["cross_attention_mask"] = torch.from_numpy(mask)
    return inputs


@torch.no_grad()
def reference_logits(policy, ids, picture=None):
    """(tokens, vocabulary) by a plain forward pass over the whole sequence with its picture, which none can say."""
    logits = policy.model(**forward_inputs(policy, ids, picture)).logits[0].double()
    if policy.processor is not None:
        missing = policy.processor.image_token_id + 1 - logits.shape[-1]  # Mllama's has no logit at all
        logits = torch.nn.functional.pad(logits, (0, max(0, missing)))
        logits[:, policy.processor.image_token_id] = -torch.inf
    return logits


@torch.no_grad()
def reference_logprobs(policy, ids, temperature=1.0, picture=None):
    """(tokens - 1,): log-probability of every token but the first, by a plain forward pass over the whole sequence."""
    logits = reference_logits(policy, ids, picture)[:-1]
    logprobs = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
    return logprobs.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]


@torch.no_grad()
def reference_values(policy, ids, picture=None):
    """(tokens,): what the critic says at every position of a plain forward pass."""
    output = policy.model(**forward_inputs(policy, ids, picture), output_hidden_states=True)
    return policy.value_head(output.hidden_states[-1][0])


def tiny_profile(folder, key="gp-l", **changes):
    """One study, smoke's with everything smaller: both branches take about a dozen steps of the tiny model in `folder`.

    Rates are of its own, so that no search changes them. `changes` are fields of the study. All experiments are there,
    with the laptop's settings.
    """
    study = SMOKE.study(key)
    size = (Path(folder) / "model.safetensors").stat().st_size  # grows with the vocabulary, and so must the budget
    study = replace(
        study,
        foundation=str(folder),
        fork_flops=1e4 * size,
        init_steps=3,
        checkpoints=2,
        init_lr=None,
        sft=replace(study.sft, lr=1e-3, examples=64, batch_size=8),
        ppo=replace(
            study.ppo, lr=3e-4, ratio="token", episodes=4, attempts=2, epochs=2, max_new_tokens=6, minibatches=2
        ),
        evaluation=replace(
            study.evaluation, episodes_end=8, episodes_curve=4, episodes_sensitivity=4, max_new_tokens=6,
            temperatures=(0.0, 1.0), attempts_grid=(1, 3),
        ),
        experiments=(MAIN, ATTEMPTS, NO_INIT, SUBOPTIMAL, SFT_TUNING, OVERFITTED, SENSITIVITY),
    )  # fmt: skip
    return Profile(name="tiny", seeds=(0,), studies=(replace(study, **changes),), device="cpu")


def with_study(profile, **changes):
    """`profile` with other fields of its one study."""
    [study] = profile.studies
    return replace(profile, studies=(replace(study, **changes),))


def played_hands(policy, temperature=1.0, seed=0, attempts=(3, 1, 3, 2), max_new_tokens=10):
    """Episodes of GeneralPoints, one for each number of attempts."""
    envs = [gymnasium.make("sftrl/GeneralPoints-v0", max_attempts=n).unwrapped for n in attempts]
    resets = [{"seed": i} for i in range(len(envs))]
    return rollout(policy, envs, resets, temperature, max_new_tokens, [100 * seed + i for i in range(len(envs))])


def with_advantages(episodes, config):
    """What PPO learns from: the conversations of every episode with their attempts' advantages and returns."""
    return ppo.with_steps(episodes, ppo.normalised_estimates(episodes, config))


def gradients(policy, loss):
    policy.model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def assert_same_gradients(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=2e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
