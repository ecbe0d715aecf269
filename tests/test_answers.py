"""Answers read alike however JSON spells them, by one rule for the verifiers, the metrics and the sequence ratio."""

import json
import random
import time

import pytest

from sftrl_lib.answers import find_key, read_fields
from sftrl_lib.attempts import MAX_TEXT
from sftrl_lib.points import grade, recognition
from sftrl_lib.points.prompts import response
from sftrl_lib.points.verifier import has_format, read_cards, read_formula, read_numbers
from sftrl_lib.virl import expert_response
from sftrl_lib.virl import grade as grade_step
from sftrl_lib.virl.rails import RailPoint
from sftrl_lib.virl.verifier import read_answer

HAND = ["3", "3", "8", "8"]
CORNER = RailPoint((0, 0), 90, "forward()", "forward()", 'Joe\'s "Best" {Café} is on your left', True, 2, "Go on.")
WRONG = {"cards": ["K", "K", "K", "K"], "number": [1, 1, 1, 1], "formula": "9*9"}
WRONG |= {"current observation": "No landmarks nearby;", "current instruction": "Stop.", "action": "stop()"}


def spelt(value, rng, comma):
    """`value` as JSON with any escapes and white space; with `comma`, some lists and objects have one at their end."""

    def space():
        return "".join(rng.choices(" \n\t\r", k=rng.choice([0, 0, 1, 3])))

    def letter(one):
        plain = json.dumps(one, ensure_ascii=False)[1:-1]
        return rng.choice([plain, plain, plain, "\\/" if one == "/" else plain, f"\\u{ord(one):04x}"])

    def joined(parts):
        last = space() + "," if comma and parts and rng.random() < 0.7 else ""
        return space() + f"{space()},{space()}".join(parts) + last + space()

    if isinstance(value, str):
        return '"' + "".join(map(letter, value)) + '"'
    if isinstance(value, list):
        return "[" + joined([spelt(item, rng, comma) for item in value]) + "]"
    if isinstance(value, dict):
        pairs = [space().join([spelt(key, rng, comma), ":", spelt(item, rng, comma)]) for key, item in value.items()]
        return "{" + joined(pairs) + "}"
    return json.dumps(value)


def shuffled(answer, rng):
    return dict(rng.sample(list(answer.items()), len(answer)))


def spellings(answer, rng):
    """Texts that all say `answer`, which has three fields at most and may lack some."""
    wrong = {key: WRONG[key] for key in answer}
    for comma in (False, True):
        said = shuffled(answer, rng)
        text = spelt(said, rng, comma)
        steps = [[wrong], {"before": wrong}]
        yield text
        yield spelt({"thought": f"Not {json.dumps(wrong)}, nor [{{\"", **said, "steps": steps, "n": 1.5}, rng, comma)
        yield f"Let me think.\n```json\n{text}\n```\nThat's it: I'm sure."
        yield f'It\'s a 5" {{pipe}} [of 3, "or" so: {text} {{and}} so on'
        yield f"[{text}]"
        yield f"{text}\n{spelt(wrong, rng, comma)}"  # the first of several objects
        yield f"[{text}, {spelt(wrong, rng, comma)}]"
        yield text.rstrip("}] \n\t\r,")  # cut off, where no list is last
        for depth in (1, 2, 40):
            nested = said
            for _ in range(depth):
                nested = rng.choice([{"answer": nested}, [nested], {"a": 1, "answer": [nested]}])
            yield spelt(nested, rng, comma)
            yield f"So:\n```\n{spelt(nested, rng, comma)}\n```"
    plain = json.dumps(said)
    yield plain[:-1] + ", " + json.dumps(wrong)[1:]  # the first of repeated keys
    yield plain[:-1] + ", " + json.dumps(wrong)[1:-1] + ",}"


def field_found(text, key):
    """The key and the value at the place that the sequence ratio takes for the answer's, read by Python's parser."""
    read = json.JSONDecoder(strict=False).raw_decode
    name, end = read(text, find_key(text, key))
    value = text.index(":", end) + 1
    return name, read(text, value + len(text[value:]) - len(text[value:].lstrip()))[0]


@pytest.mark.parametrize(
    "cards, numbers, formula, outcome, pictured",
    [
        (["8", "3", "8", "3"], [8, 3, 8, 3], "8/(3-8/3)=24", "correct", "correct"),
        ([8, 3, "8", 3], ["8", 3, 8, 3], "8/(3-8/3)", "correct", "correct"),
        (["8", "3", "8", "3"], [8, 3, 8, 3], "8/(3-3/8)=24", "wrong_value", "wrong_value"),
        (["8", "3", "8", "K"], [8, 3, 8, 10], "8*3*1", "wrong_numbers", "misread"),
        (["8", "3", "8", "3"], [8, 3, True, 3], "8//3", "illegal", "illegal"),
        (["8", "3", "8", "3", "\u00e9"], [8.5], "8/(3-8/3) \u2603", "illegal", "misread"),
    ],
)
def test_a_formula_is_judged_alike_in_all_spellings(cards, numbers, formula, outcome, pictured):
    rng = random.Random(0)
    answer = {"cards": cards, "number": numbers, "formula": formula}
    known = [read(json.dumps(answer)) for read in (read_cards, read_numbers, read_formula, has_format)]
    for text in [text for _ in range(10) for text in spellings(answer, rng)]:
        assert grade(text, HAND).outcome == outcome, text
        assert read_formula(text) == formula and field_found(text, "formula") == ("formula", formula), text
        if text.count("[") == text.count("]"):  # not cut off in a list
            assert grade(text, HAND, modality="image").outcome == pictured, text
            assert (recognition(text, HAND) == 1) == (pictured != "misread"), text
            assert [read(text) for read in (read_cards, read_numbers, read_formula, has_format)] == known, text


@pytest.mark.parametrize(
    "observation, action, outcome",
    [
        (CORNER.observation, "forward()", "correct"),
        (CORNER.observation, "stop()", "wrong_action"),
        ("No landmarks nearby;", "stop()", "wrong_observation"),
        (CORNER.observation, "fly(\u2603)", "illegal"),
    ],
)
def test_an_action_is_judged_alike_in_all_spellings(observation, action, outcome):
    rng = random.Random(0)
    answer = {"current observation": observation, "current instruction": "Go on.", "action": action}
    for text in [text for _ in range(10) for text in spellings(answer, rng)]:
        assert grade_step(text, CORNER).outcome == outcome, text
        assert read_answer(text) == answer and field_found(text, "action") == ("action", action), text


def test_the_official_template_is_read_as_strict_json():
    cards, numbers = ["3", "10", "8", "K"], [3, 10, 8, 10]
    text = response(cards, numbers, "8*3")
    for shown in (text, f"I think:\n{text}", f'{{"answer": [{text},]}}', text[:-1], text.replace("'", "")):
        assert (read_cards(shown), read_numbers(shown), read_formula(shown)) == (cards, numbers, "8*3")
    step = {"current observation": 'A "B" \\ C', "current instruction": "Go.", "action": "stop()"}
    assert read_answer(expert_response(*step.values())) == read_answer(json.dumps(step)) == step


class Pairs(list):
    """A JSON object with all of its keys, repeated ones too."""


def first(value, key, kind):
    """The rule by Python's parser: the first readable field, those of an outer object before those inside it."""
    if isinstance(value, Pairs):
        own = [item for name, item in value if name == key and type(item) is kind and "[" not in json.dumps(item)[1:]]
        inside = [item for _, item in value]
    else:
        own, inside = [], value if isinstance(value, list) else []
    return next((found for found in [*own, *(first(item, key, kind) for item in inside)] if found is not None), None)


def test_which_field_counts_in_any_json():
    rng = random.Random(0)

    def document(depth):
        if depth == 0 or rng.random() < 0.3:
            return json.dumps(rng.choice(["x", "y", '"a": "', "{:", "]}", "\\", 1, None, True, [], ["1"], [2, "3"]]))
        parts = [document(depth - 1) for _ in range(rng.randrange(4))]
        if rng.random() < 0.3:
            return f"[{', '.join(['[]', *parts])}]"  # lists with lists inside are not readable
        return "{" + ", ".join(f'"{rng.choice("ab")}": {part}' for part in parts) + "}"

    found = 0
    for _ in range(3000):
        text = document(5)
        parsed = json.loads(text, object_pairs_hook=Pairs)
        expected = {"a": first(parsed, "a", str), "b": first(parsed, "b", list)}
        shown = rng.choice([text, f'So "this" is it: {text}!'])
        read = read_fields(shown, {"a": str, "b": list})
        assert {"a": None, "b": None} | read == expected, text
        found += len(read)
    assert found > 500


@pytest.mark.parametrize("text, value, place", [
    ('"a": "1", "a": "2"', "1", 0),
    ('{"a": 1, "x": {"a": "2"}}', "2", 15),
    ('{"x": {"a": "1"}, "a": "2"}', "2", 18),
    ('"a": the letter, {"a": "2"}', "2", 18),
    ('{"a": "1, "b": "2"}', "1, ", 1),  # a quotation mark is missing
    ('["a" {"a": "1"', "1", 6),
    (r'{"\u0061": "\u0031"}', "1", 1),
    (r'{"b": "{\"a\": \"0\"}", "a": "1"}', "1", 24),
    (r'{"a": "\q"}', r"\q", 1),  # no escape of JSON's
    ('"a"', None, -1),
    ('"a": 1', None, 0),
    ('a: "1"', None, -1),
    ("", None, -1),
    (" " * MAX_TEXT + '"a": "1"', None, -1),
])  # fmt: skip
def test_which_field_counts_in_other_text(text, value, place):
    assert (read_fields(text, {"a": str}).get("a"), find_key(text, "a")) == (value, place)


NOISE = ['"', "[", "{", "}", "]", "{}", "[]", '\\"', "[{", "{]", "[,", '["",', '":', '"",', '{"a":', '["a":{', "'"]
NOISE += ["\\", "\u2603", '"action":', '"action":[', '{"action":{', '"formula":[{', '"formula":"\\"', '"\\u0061":']
NOISE += ['{"cards":[4,', '"cards":[",', '"cards":[{"a":']


@pytest.mark.parametrize("noise", NOISE)
def test_hostile_answers_take_milliseconds(noise):
    right = '{"cards": [3, 3, 8, 8], "formula": "8/(3-8/3)", "action": "forward()"}'
    repeated = noise * ((MAX_TEXT - len(right)) // len(noise))
    started = time.process_time()
    outcomes = [
        outcome
        for text in (repeated + right, right + repeated)
        for outcome in (grade(text, HAND, modality="image").outcome, grade_step(text, CORNER).outcome)
    ]
    assert time.process_time() - started < 4 * 0.3
    assert outcomes[2:] == ["correct", "correct"]  # what comes after an answer does not undo it
    if not any(key in noise for key in ("action", "formula", "cards")):
        assert outcomes[:2] == ["correct", "correct"]
