"""The rollout engine against plain `generate` and a plain forward pass of `transformers`."""

import gymnasium
import pytest
import torch
from tiny_models import reference_logprobs, reference_values, sharpen, tiny_policy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import sftrl_lib  # noqa: F401  (registers the environments)
from sftrl_lib.models import decoding
from sftrl_lib.models.policy import Policy, ValueHead
from sftrl_lib.models.rollout import rollout

MAX_NEW = 12


def environments(attempts, rule="ten"):
    make = {"rule": rule, "disable_env_checker": True}
    return [gymnasium.make("sftrl/GeneralPoints-v0", max_attempts=n, **make).unwrapped for n in attempts]


def play(policy, envs, temperature=0.0, seed=0, max_new_tokens=MAX_NEW, first=0):
    resets = [{"seed": first + i} for i in range(len(envs))]
    return rollout(policy, envs, resets, temperature, max_new_tokens, [seed + first + i for i in range(len(envs))])


def generated(policy, ids, max_new_tokens=MAX_NEW):
    """The greedy continuation of `ids` by `generate`, without its padding."""
    prompt = torch.tensor([ids])
    out = policy.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=max_new_tokens,
        eos_token_id=policy.end_token, pad_token_id=policy.tokenizer.pad_token_id,
    )
    return out[0, len(ids) :].tolist()


def check_against_generate(policy, episodes, max_new_tokens=MAX_NEW):
    for episode in episodes:
        for conversation in episode.conversations:
            for attempt in conversation.attempts:
                answer = conversation.ids[attempt.start : attempt.end]
                assert answer == generated(policy, conversation.ids[: attempt.start], max_new_tokens)


def check_against_forward(policy, episodes, temperature):
    for episode in episodes:
        for conversation in episode.conversations:
            logprobs = reference_logprobs(policy, conversation.ids, temperature)
            no_critic = torch.zeros(len(conversation.ids))
            values = reference_values(policy, conversation.ids) if policy.value_head else no_critic
            for attempt in conversation.attempts:
                expected = logprobs[attempt.start - 1 : attempt.end - 1]
                assert torch.tensor(attempt.logprobs) == pytest.approx(expected.numpy(), abs=1e-4)
                assert attempt.value == pytest.approx(values[attempt.start - 1].item(), abs=1e-4)


def test_greedy_answers_are_those_of_generate(policy):
    """Prompts of different lengths, histories of up to five attempts, rows that drop out at different times."""
    episodes = play(policy, [*environments([1, 2, 3, 5]), *environments([5, 1, 4, 2], rule="distinct")])
    check_against_generate(policy, episodes)
    lengths = {a.end - a.start for e in episodes for a in e.attempts}
    assert len(lengths) > 2 and max(lengths) == MAX_NEW, "the test should see long and short answers"
    assert len({len(e.conversations[0].ids[: e.attempts[0].start]) for e in episodes}) > 1
    assert [len(e.attempts) for e in episodes] == [1, 2, 3, 5, 5, 1, 4, 2]


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_logprobs_and_values_are_those_of_a_forward_pass(policy, temperature):
    check_against_forward(policy, play(policy, environments([5, 2, 5, 1, 3, 5]), temperature), temperature)


def test_samples_follow_the_model(policy):
    """The first token's frequencies against the softmax of a plain forward pass."""
    rows = 1_000
    env = environments([1])[0]
    ids = policy.prompt_ids(env.reset(seed=0)[0]["messages"])
    envs = [FakeEnv(env.reset(seed=0)[0]["messages"], []) for _ in range(rows)]
    episodes = play(policy, envs, temperature=0.7, max_new_tokens=1)
    with torch.no_grad():
        expected = torch.softmax(policy.model(torch.tensor([ids])).logits[0, -1] / 0.7, -1)
    first = torch.tensor([e.conversations[0].ids[e.attempts[0].start] for e in episodes])
    found = torch.bincount(first, minlength=len(expected)) / rows
    deviation = (expected * (1 - expected) / rows).sqrt()
    common = expected > 0.01
    assert common.sum() > 5 and (found - expected).abs()[common].lt(5 * deviation[common]).all()


def test_rows_do_not_see_each_other(policy):
    """An episode is the same alone, and beside others that end before or after it."""
    attempts = [5, 1, 3, 2, 5]
    together = play(policy, environments(attempts))
    for i, n in enumerate(attempts):
        [alone] = play(policy, environments([n]), first=i)
        assert alone.conversations[0].ids == together[i].conversations[0].ids
        assert [a.logprobs for a in alone.attempts] == [
            pytest.approx(a.logprobs, abs=1e-4) for a in together[i].attempts
        ]


def test_rows_that_wait_for_others_change_nothing(policy, monkeypatch):
    """Set aside at once, once they are half of all, or never, over several attempts; and how much less is decoded.

    Nor does it matter in how many parts prompts and feedback are read.
    """
    decoded, found = {}, {}
    forward, logits = decoding.Decoding._forward, Policy.logits

    def counted(self, ids, *arguments):
        decoded[share] += len(ids) if ids.shape[1] == 1 else 0
        return forward(self, ids, *arguments)

    def often_ending(self, hidden):
        """With an end after eight tokens on average, for a random model hardly ever ends an answer."""
        scores = logits(self, hidden)
        scores[..., self.end_token] = scores.logsumexp(-1) - 2
        return scores

    monkeypatch.setattr(decoding.Decoding, "_forward", counted)
    monkeypatch.setattr(Policy, "logits", often_ending)
    for share in (0.0, 0.5, 1.0):
        decoded[share] = 0
        monkeypatch.setattr(decoding, "_DROP", share)
        monkeypatch.setattr(decoding, "_FEED", 300 if share else 10**6)
        found[share] = play(policy, environments([4] * 12), temperature=1.0, max_new_tokens=80)
    for share in (0.5, 1.0):
        for one, other in zip(found[share], found[0.0], strict=True):
            assert [c.ids for c in one.conversations] == [c.ids for c in other.conversations]
            for a, b in zip(one.attempts, other.attempts, strict=True):
                assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    needed = sum(len(a.logprobs) - 1 for episode in found[0.0] for a in episode.attempts)
    assert needed <= decoded[1.0] < decoded[0.5] < 0.7 * decoded[0.0], (needed, decoded)


def test_answers_are_cut_and_closed(policy):
    """An answer that does not end is cut; the history goes on as if it had been ended."""
    end = policy.end_token
    for limit in (1, 3, 7):
        episodes = play(policy, environments([4] * 6), temperature=1.0, max_new_tokens=limit)
        for episode in episodes:
            [conversation] = episode.conversations
            for attempt, following in zip(episode.attempts, [*episode.attempts[1:], None], strict=True):
                answer = conversation.ids[attempt.start : attempt.end]
                assert 1 <= len(answer) <= limit and len(attempt.logprobs) == len(answer)
                assert end not in answer[:-1]
                assert len(answer) == limit or answer[-1] == end
                if following:
                    between = [] if answer[-1] == end else [end]
                    between += policy.continuation_ids(attempt.feedback)
                    assert conversation.ids[attempt.end : following.start] == between
                else:
                    assert attempt.end == len(conversation.ids)


def test_the_environment_reads_what_was_sampled(policy):
    envs = environments([3] * 4)
    for env, episode in zip(envs, play(policy, envs, temperature=1.0), strict=True):
        said = [m["content"] for m in env._messages if m["role"] == "assistant"]
        assert said == [a.text for a in episode.attempts]
        for attempt in episode.attempts:
            sampled = episode.conversations[0].ids[attempt.start : attempt.end]
            assert attempt.text == policy.tokenizer.decode(sampled, skip_special_tokens=True)
        assert episode.truncated and not episode.terminated and episode.attempts[-1].outcome == "illegal"
        assert episode.info["cards"] == env._cards


def test_same_seeds_same_episodes(policy):
    first, again, other = (play(policy, environments([3] * 4), 1.0, seed) for seed in (50, 50, 60))
    ids = [[e.conversations[0].ids for e in episodes] for episodes in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]


def test_episodes_that_end_are_told(policy):
    seen: list = []
    envs = environments([1, 3, 2])
    rollout(policy, envs, [{"seed": i} for i in range(3)], 0.0, 4, range(3), seen.append)
    assert sorted(len(episode.attempts) for episode in seen) == [1, 2, 3]


def test_tokens_read_by_hand(policy):
    """Every token of a conversation goes through the model once, except the very last one."""
    for episode in play(policy, environments([1, 4])):
        assert episode.tokens_read == len(episode.conversations[0].ids) - 1


class FakeEnv:
    """Answers every action from a script: a text continues the chat, a list of messages replaces it."""

    def __init__(self, messages, script):
        self.start, self.script = messages, script

    def reset(self, seed=None, options=None):
        self.messages, self.turn = list(self.start), 0
        return {"messages": list(self.messages)}, {"cards": [], "numbers": []}

    def step(self, text):
        info = {"outcome": "wrong_value", "feedback": ""}
        if self.turn == len(self.script):
            return {"messages": list(self.messages)}, -1.0, False, True, info
        reply = self.script[self.turn]
        self.turn += 1
        if isinstance(reply, str):
            self.messages += [{"role": "assistant", "content": text}, {"role": "user", "content": reply}]
        else:
            self.messages = list(reply)
        return {"messages": list(self.messages)}, -1.0, False, False, info


def user(text):
    return [{"role": "user", "content": text}]


def rewriting_environments():
    chat = [*user("You go north."), {"role": "assistant", "content": "forward"}, *user("Cards: ['A', '3']")]
    return [
        FakeEnv(user("Note that 1+2=3"), ["again", user("a new prompt"), "and again", chat, "last"]),
        FakeEnv(user("short"), ["once"]),
        FakeEnv(user("a much longer prompt, " * 6), [chat, user("x")]),
        FakeEnv(user("never rewritten"), ["one", "two", "three", "four", "five"]),
    ]


def test_an_environment_may_rewrite_its_prompt(policy):
    envs = rewriting_environments()
    episodes = play(policy, envs)
    check_against_generate(policy, episodes)
    assert [len(e.conversations) for e in episodes] == [3, 1, 3, 1]
    assert [[len(c.attempts) for c in e.conversations] for e in episodes] == [[2, 2, 2], [2], [1, 1, 1], [6]]
    starts = [c.ids[: c.attempts[0].start] for c in episodes[0].conversations]
    assert starts == [policy.prompt_ids(m) for m in (envs[0].start, envs[0].script[1], envs[0].script[3])]
    check_against_forward(policy, play(policy, rewriting_environments(), temperature=1.0), 1.0)


# A second stock architecture with another chat template: ChatML, with a line end after the end token.

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def chatml_policy():
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [("Ġ", "f"), ("u", "s"), ("e", "r"), ("Ġf", "a")]
    tokens += [a + b for a, b in merges]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )
    return Policy(sharpen(Qwen2ForCausalLM(config), tokenizer.eos_token_id), tokenizer, ValueHead(32, seed=1))


@pytest.fixture(params=["ours", "chatml"])
def any_policy(request, tokenizer):
    return tiny_policy(tokenizer) if request.param == "ours" else request.getfixturevalue("chatml_policy")


def test_continuations_are_those_of_the_chat_template(any_policy):
    """Prompt, answer, end token and continuation, put together, are what the template makes of the whole chat."""
    chat = user("You failed this trial, because 1+1=2.")
    ids = any_policy.prompt_ids(chat)
    for answer, reply in [("12*2=24", "You failed. Why?\n"), (" é\n", "user"), ("x", "  spaces  "), ("{", "%%@@")]:
        ids += any_policy.tokenizer(answer, add_special_tokens=False).input_ids
        ids += [any_policy.end_token, *any_policy.continuation_ids(reply)]
        chat = [*chat, {"role": "assistant", "content": answer}, *user(reply)]
        assert ids == any_policy.prompt_ids(chat)


def test_another_architecture_and_template(chatml_policy):
    episodes = play(chatml_policy, environments([3, 1, 2]))
    check_against_generate(chatml_policy, episodes)
    check_against_forward(chatml_policy, episodes, 0.0)
    check_against_forward(chatml_policy, play(chatml_policy, rewriting_environments(), 0.8), 0.8)
