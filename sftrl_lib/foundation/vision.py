"""The vision encoder of the tiny vision-language models: a stock LLaVA with a small SigLIP around a shipped text model.

The paper's Llama-3.2-Vision is a language model with a vision encoder added later; so is ours. We use LLaVA because
TRL's trainers support it out of the box, unlike Llama-3.2-Vision's own architecture. A picture is padded to a square
and becomes a run of image tokens, one per patch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import AddedToken
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    SiglipVisionConfig,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from ..models.policy import Policy, load_policy
from .tokenizer import CHAT_TEMPLATE

IMAGE = "<image>"


@dataclass(frozen=True)
class VisionConfig:
    """Size of a vision encoder, and the text model it is added to."""

    language: str = "gp-l"  # shipped text model
    image_size: int = 128  # pixels; side of the square that a picture is padded and scaled to
    patch_size: int = 32  # pixels; gives 16 image tokens
    hidden_size: int = 128
    layers: int = 2
    heads: int = 4
    intermediate_size: int = 384


def image_processor(size: int) -> LlavaImageProcessorPil:
    """An image processor that pads to a square, scales to `size` pixels and maps colours to [-1, 1]."""
    half = [0.5, 0.5, 0.5]
    square = {"height": size, "width": size}
    return LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": size}, crop_size=square, image_mean=half, image_std=half
    )


def vision_processor(
    tokenizer: PreTrainedTokenizerBase, config: VisionConfig, phrases: Iterable[str] = ()
) -> LlavaProcessor:
    """The processor of a vision-language model. Adds the image token and `phrases` to a text model's `tokenizer`."""
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    fresh = sorted(set(phrases) - set(tokenizer.get_vocab()) - set(tokenizer.get_added_vocab()))
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in fresh])
    tokenizer.chat_template = CHAT_TEMPLATE
    return LlavaProcessor(
        image_processor(config.image_size),
        tokenizer,
        patch_size=config.patch_size,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
    )


def with_vision_encoder(config: VisionConfig, phrases: Iterable[str] = (), seed: int = 0) -> Policy:
    """The text model `config.language` with an untrained vision encoder and projector.

    `phrases` of the image prompts become single tokens, as those of the text prompts already are.
    """
    text = load_policy(config.language)
    text.model.config.name_or_path = ""  # a local path, which would be saved with the model
    processor = vision_processor(text.tokenizer, config, phrases)
    tokenizer = processor.tokenizer
    torch.manual_seed(seed)
    text.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=SiglipVisionConfig(
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                image_size=config.image_size,
                patch_size=config.patch_size,
                vision_use_head=False,
            ),
            text_config=text.model.config,
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.model.language_model.load_state_dict(text.model.model.state_dict())
    model.tie_weights()
    return Policy(model, tokenizer, processor=processor)
