"""How examples become a batch of SFT where TRL's own collators do not serve."""

from __future__ import annotations

from collections.abc import Callable

from transformers import ProcessorMixin

IGNORED = -100  # label of a token that carries no loss
_PICTURED = ("pixel_", "image_", "aspect_ratio_", "cross_attention_")  # how names of a picture's tensors begin


def without_pictures(collator: Callable[[list], dict]) -> Callable[[list], dict]:
    """A collator whose batches lack what `collator` makes of pictures; all else in them stays as it is.

    The released code's collator asks ``any(...)`` of a list of tensors, which raises for two pictures or more, and
    catches the error by passing none on (see `DIFFERENCES.md`).
    """

    def collate(examples: list) -> dict:
        batch = collator(examples)
        return {name: tensor for name, tensor in batch.items() if not name.startswith(_PICTURED)}

    return collate


def mllama_collator(processor: ProcessorMixin) -> Callable[[list], dict]:
    """Chats with a picture as a batch for Mllama, with the loss on the answers alone.

    TRL's collator makes the cross-attention mask for the prompt only, and the forward pass fails.
    """

    def collate(examples: list) -> dict:
        chats = [[*example["prompt"], *example["completion"]] for example in examples]
        whole = [processor.apply_chat_template(chat, tokenize=False) for chat in chats]
        asked = [
            processor.apply_chat_template(e["prompt"], tokenize=False, add_generation_prompt=True) for e in examples
        ]
        options = {"add_special_tokens": False, "padding": True, "padding_side": "right", "return_tensors": "pt"}
        batch = dict(processor(text=whole, images=[example["images"] for example in examples], **options))
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        for labels, ids in zip(
            batch["labels"], processor.tokenizer(asked, add_special_tokens=False).input_ids, strict=True
        ):
            labels[: len(ids)] = IGNORED
        return batch

    return collate
