"""Rollouts on architectures that people bring: greedy tokens are those of `generate`, log-probabilities of a forward.

Tiny random models of each kind, under the project's tokenizer; sliding windows shorter than the conversations.
"""

import pytest
import torch
from test_batch import walked
from test_rollout import check_against_forward, check_against_generate, environments, play
from tiny_models import sharpen, with_advantages
from transformers import (
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OlmoConfig,
    OPTConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from sftrl_lib.configs import PPOConfig
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.models.policy import Policy, ValueHead, check_model, load_policy
from sftrl_lib.training.batch import make_batch, pack
from sftrl_lib.training.ppo import token_logprobs

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24}
KINDS = {
    "llama": (LlamaConfig, {}),
    "llama3-rope": (
        LlamaConfig,
        {"rope_parameters": {
            "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }},
    ),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {}),
    "qwen3-window": (Qwen3Config, {**MIXED, "use_sliding_window": True}),
    "mistral-window": (MistralConfig, {"sliding_window": 24}),
    "gemma2": (Gemma2Config, {**MIXED, "query_pre_attn_scalar": 8}),
    "gemma3": (Gemma3TextConfig, {**MIXED, "query_pre_attn_scalar": 8}),
    "phi3": (Phi3Config, {"pad_token_id": 0}),
    "olmo": (OlmoConfig, {}),
    "neox": (GPTNeoXConfig, {}),
    "opt": (OPTConfig, {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "gpt2": (GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048}),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def policy(request, tokenizer):
    make, settings = KINDS[request.param]
    sizes = {} if request.param == "gpt2" else SIZES
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    config = make(vocab_size=len(tokenizer), **{**sizes, **ids, **settings})
    model = AutoModelForCausalLM.from_config(config).eval()
    return Policy(sharpen(model, tokenizer.eos_token_id), tokenizer, ValueHead(32, seed=1))


def test_an_architecture_plays_as_transformers_does(policy):
    greedy = play(policy, [*environments([3, 1, 4]), *environments([2], rule="distinct")])
    check_against_generate(policy, greedy)
    check_against_forward(policy, play(policy, environments([3, 1, 4]), 1.0), 1.0)


@pytest.mark.parametrize("policy", [kind for kind in KINDS if "window" in kind or "gemma" in kind], indirect=True)
def test_conversations_that_share_a_row_see_the_same_windows(policy):
    """PPO packs prompts with a common beginning into a row: log-probabilities are those of a row each."""
    config = PPOConfig(episodes=2, attempts=2, max_new_tokens=10)
    conversations = with_advantages(walked(policy, routes=1), config)
    [packed] = pack(conversations[0])
    alone = [(conversation, steps) for conversation, steps in packed]
    with torch.no_grad():
        found = token_logprobs(policy, make_batch([packed], policy), 1.0)
        expected = [token_logprobs(policy, make_batch([[one]], policy), 1.0) for one in alone]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_what_a_model_does_beyond_the_engine_is_refused(tokenizer, tmp_path):
    """Layers without keys and values, and logits that are scaled after the last product."""
    for make in (Qwen3NextConfig, MambaConfig):
        hybrid = make(vocab_size=len(tokenizer), num_hidden_layers=2)
        hybrid.save_pretrained(tmp_path / make.__name__)
        with pytest.raises(CheckpointError, match="layers of linear_attention, for which rollouts have no cache"):
            check_model(tmp_path / make.__name__)
    config = CohereConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **{**SIZES, "head_dim": 8})
    model = AutoModelForCausalLM.from_config(config)
    Policy(model, tokenizer).save(tmp_path / "scaled")
    with pytest.raises(CheckpointError, match="CohereForCausalLM .* scales or shifts its logits"):
        load_policy(tmp_path / "scaled")
