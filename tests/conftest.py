"""What several test files share: a tiny random model that speaks the project's tokenizer, and an empty checkout."""

import os

# One thread, whatever the machine: results then do not depend on the number of cores. Set before torch is loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest


@pytest.fixture(scope="session")
def tokenizer():
    """The tokenizer of the text foundation model, from a smaller sample of its curricula."""
    from sftrl_lib.foundation.pretrain import FoundationConfig, foundation_tokenizer

    return foundation_tokenizer(FoundationConfig(curricula=("gp-l", "virl-l")), documents=2_000)


@pytest.fixture
def policy(tokenizer):
    """A fresh tiny random policy with a critic; the same one every time."""
    from tiny_models import tiny_policy

    return tiny_policy(tokenizer)


@pytest.fixture(scope="session")
def tiny_folder(tokenizer, tmp_path_factory):
    """A tiny random foundation model on disk."""
    from tiny_models import tiny_policy

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_policy(tokenizer, critic=False).save(folder)
    return folder


@pytest.fixture(scope="session")
def vision_folder(tokenizer, tmp_path_factory):
    """A tiny random vision-language model on disk."""
    from tiny_models import tiny_vision_policy

    folder = tmp_path_factory.mktemp("models") / "vision"
    tiny_vision_policy(tokenizer).save(folder)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty checkout with a blank in its name, and the environment for a child process that works in it."""
    from sftrl_lib import paths

    root = tmp_path / "a checkout"
    (root / "notebooks").mkdir(parents=True)
    for name, value in (("ROOT", root), ("HOME", root), ("NOTEBOOKS", root / "notebooks")):
        monkeypatch.setattr(paths, name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SFTRL_HOME", str(root))
    return root
