"""Models as policies: where they come from, prompts, decoding, rollouts, checkpoints."""

from ..progress import quiet

quiet()
