"""Chat templates that compute: nothing huge, in time or memory, whatever the template says."""

import copy
import resource

import pytest

from sftrl_lib.models.chat_template import ChatTemplate, check_template
from sftrl_lib.models.checkpoint import CheckpointError


@pytest.fixture
def with_template(tokenizer):
    """A function: the project's tokenizer with something before its chat template."""

    def change(before):
        changed = copy.deepcopy(tokenizer)
        changed.chat_template = before + tokenizer.chat_template
        return ChatTemplate(changed)

    return change


LARGE = {
    "{{ 10**(10**9) }}": "operation **", "{{ 'x' * 10**10 }}": "operation *", "{{ 10**10 * [0] }}": "operation *",
    "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}": "operation *",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}": "MemoryError",
    "{{ 'x'.ljust(10**10) }}": "MemoryError", "{{ 'x'|center(10**10) }}": "MemoryError",
    "{{ '%10000000000d' % 1 }}": "MemoryError",
    "{% for i in range(10**12) %}{% endfor %}": "Range too big",
}  # fmt: skip


@pytest.mark.parametrize("template", LARGE)
def test_a_template_that_makes_something_huge_is_stopped(with_template, template):
    """Python cannot be interrupted within one operation."""
    limit = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(CheckpointError) as error:
        check_template(with_template(template), "mine")
    message = str(error.value)
    assert message.startswith("The chat template of 'mine' fails (") and LARGE[template] in message
    assert message.endswith("correct it, or choose another model.") and "\n" not in message
    assert resource.getrlimit(resource.RLIMIT_AS) == limit


def test_the_bounds_hold_after_the_trial_too(with_template):
    """A template may wait for a longer chat."""
    later = with_template("{% if messages|length > 4 %}{{ 10**(10**9) }}{% endif %}")
    check_template(later, "mine")
    with pytest.raises(OverflowError, match="too large for a chat"):
        later.render([{"role": role, "content": "@"} for role in ("user", "assistant") * 3])


def test_a_template_may_calculate(with_template):
    sums = "{{ [2**10, 3 * 4, '-' * 3, 3 * '-', [0] * 2, 2.5 * 2, 2**-1, 2**0.5 > 1, true * 2]|join(' ') }}"
    text = with_template(sums).render([{"role": "user", "content": "hi"}])
    assert text.startswith("1024 12 --- --- [0, 0] 5.0 0.5 True 2<|")
