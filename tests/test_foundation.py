"""Pretraining of the tiny text foundation model, and the copy that is shipped."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from test_rollout import check_against_forward, check_against_generate, environments, play
from tiny_models import TINY
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, LlavaForConditionalGeneration

from sftrl_lib.foundation import pretrain as pretraining
from sftrl_lib.foundation import vision
from sftrl_lib.foundation.muon import Float32Muon
from sftrl_lib.foundation.pretrain import IGNORED, FoundationConfig, answer_loss, batches, new_model, pretrain
from sftrl_lib.foundation.vision import VisionConfig
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.models.policy import Policy, load_policy
from sftrl_lib.paths import SHIPPED

SHORT = replace(TINY, steps=8, more_steps=4, tokens_per_step=400, warmup=3, save_every=4, seed=1)


@pytest.fixture(autouse=True)
def quick_tokenizer(monkeypatch, tokenizer):
    monkeypatch.setattr(pretraining, "foundation_tokenizer", lambda seed: tokenizer)


def test_batches_can_begin_anywhere(tokenizer):
    """A resumed run sees the batches that it would have seen; a batch is about as large as asked."""
    policy = Policy(new_model(SHORT, tokenizer), tokenizer)
    whole = list(batches(SHORT, policy))
    assert len(whole) == SHORT.total_steps
    for first in (1, 7, 8, 11):
        for batch, again in zip(whole[first:], batches(SHORT, policy, first), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch[:2], again[:2], strict=True))
            assert batch[2] == again[2] == {}, "no pictures"
    learnt = [(labels != IGNORED).float().mean().item() for _, labels, _ in whole]
    assert min(learnt) > 0.05
    for ids, labels, _ in whole:
        assert ids.shape == labels.shape
        assert (ids[labels != IGNORED] == labels[labels != IGNORED]).all()


def test_the_loss_is_that_of_transformers(tokenizer):
    """Padded on the right without an attention mask, logits at the labelled places only."""
    model = new_model(SHORT, tokenizer)
    for ids, labels, _ in list(batches(SHORT, Policy(model, tokenizer)))[:3]:
        mask = (ids != tokenizer.pad_token_id).long()
        expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        assert answer_loss(model, ids, labels).item() == pytest.approx(expected.item(), rel=1e-5)


def test_muon_in_float32_is_pytorchs_muon():
    """Up to the rounding of bfloat16, over steps with momentum, weight decay, and wide and tall matrices."""
    torch.manual_seed(0)
    theirs = [torch.nn.Parameter(torch.randn(shape)) for shape in ((24, 64), (64, 24), (32, 32), (32, 32))]
    ours = [torch.nn.Parameter(p.detach().clone()) for p in theirs]
    begin = [p.detach().clone() for p in theirs]
    options = dict(lr=0.02, weight_decay=0.1, momentum=0.95)
    optims = torch.optim.Muon(theirs, **options), Float32Muon(ours, **options)
    for _ in range(4):
        for a, b in zip(theirs, ours, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optim in optims:
            optim.step()
    for a, b, start in zip(theirs, ours, begin, strict=True):
        assert (a - b).norm() < 0.02 * (a - start).norm()


class Killed(BaseException):
    """Stands for kill -9."""


def test_an_interrupted_pretraining_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    pretrain(SHORT, tmp_path / "whole")
    steps = 0

    def mortal(*arguments):
        nonlocal steps
        steps += 1
        if steps == 10:
            raise Killed
        return answer_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "answer_loss", mortal)
        with pytest.raises(Killed):
            pretrain(SHORT, tmp_path / "killed")
    assert not (tmp_path / "killed" / "config.json").exists()
    pretrain(SHORT, tmp_path / "killed")
    whole, killed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("whole", "killed")]
    assert records[0]["losses"] == records[1]["losses"] and len(records[0]["losses"]) == SHORT.total_steps
    assert records[0]["config"] == json.loads(json.dumps(asdict(SHORT)))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    assert type(loaded) is LlamaForCausalLM and loaded.num_parameters() == records[0]["parameters"]
    with pytest.raises(CheckpointError, match="another configuration"):
        pretrain(replace(SHORT, muon_lr=0.01), tmp_path / "whole")


SEEING = replace(
    SHORT,
    curricula=("gp-vl", "gp-l"),
    more_steps=0,
    tokens_per_step=1_500,
    vision=VisionConfig(language="language", hidden_size=32, layers=1, heads=2, intermediate_size=48),
)


def test_a_loss_that_is_no_number_stops_pretraining(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "answer_loss", lambda *args: answer_loss(*args) * float("nan"))
    with pytest.raises(FloatingPointError, match=r"^Step 1: pretraining's loss is nan; lower muon_lr \(0.02\) or adam"):
        pretrain(SHORT, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_text_model_is_given_eyes(tmp_path, monkeypatch, tokenizer):
    """The language half keeps what it knows of text; pictures reach the loss; the copy loads as a LLaVA."""
    text = Policy(new_model(TINY, tokenizer), tokenizer)
    text.save(tmp_path / "language")
    monkeypatch.setattr(vision, "load_policy", lambda name: load_policy(tmp_path / name))
    policy = pretraining.untrained(SEEING)
    ids = torch.tensor([text.prompt_ids([{"role": "user", "content": "Cards: ['4', 'K']"}])])
    size = len(tokenizer)
    assert policy.tokenizer.convert_tokens_to_ids(vision.IMAGE) >= size
    assert torch.allclose(policy.model(input_ids=ids).logits[..., :size], text.model(input_ids=ids).logits, atol=1e-5)
    with_pictures = [batch for batch in batches(SEEING, policy) if batch[2]]
    ids, labels, seen = max(with_pictures, key=lambda batch: len(batch[2]["pixel_values"]))
    assert (ids == policy.image_token).sum() == 16 * len(seen["pixel_values"])
    turned = {"pixel_values": seen["pixel_values"].flip(0)}
    assert answer_loss(policy.model, ids, labels, seen) != answer_loss(policy.model, ids, labels, turned)
    pretrain(SEEING, tmp_path / "seeing")
    assert type(load_policy(tmp_path / "seeing").model) is LlavaForConditionalGeneration


def test_pretraining_learns(tmp_path):
    pretrain(replace(SHORT, steps=40), tmp_path)
    losses = json.loads((tmp_path / "record.json").read_text())["losses"]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


# The shipped copy


@pytest.fixture(scope="module")
def shipped():
    return load_policy("gp-l")


def test_the_shipped_model_is_stock_and_small(shipped):
    folder = SHIPPED / "gp-l"
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is LlamaForCausalLM
    assert len(AutoTokenizer.from_pretrained(folder)) == shipped.model.config.vocab_size
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8e6
    record = json.loads((folder / "record.json").read_text())
    assert FoundationConfig(**record["config"]).total_steps == len(record["losses"])
    assert record["parameters"] == shipped.model.num_parameters() < 2e6


def test_the_engine_on_the_shipped_model(shipped):
    """Real answers, of real lengths: greedy as `generate`, log-probabilities within 1e-4 of a forward pass."""
    shipped.value_head = None
    episodes = play(shipped, [*environments([3, 2, 3]), *environments([3, 1, 3], "distinct")], max_new_tokens=48)
    check_against_generate(shipped, episodes, max_new_tokens=48)
    sampled = play(shipped, [*environments([5] * 6), *environments([5] * 6, "distinct")], 1.0, max_new_tokens=48)
    check_against_forward(shipped, sampled, 1.0)
    ended = [c.ids[a.end - 1] == shipped.end_token for e in sampled for c in e.conversations for a in c.attempts]
    assert sum(ended) > len(ended) / 2, "it knows how to end an answer"
