"""Testing a served model, against a server on loopback that answers as it is told."""

import base64
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from waiting import until

from sftrl_lib import paths
from sftrl_lib.evaluation import episodes
from sftrl_lib.interfaces import served
from sftrl_lib.interfaces.served import Answers, Endpoint, EndpointError, as_openai, main, play
from sftrl_lib.models.policy import load_policy
from sftrl_lib.points import solve
from sftrl_lib.points.rules import card_numbers
from sftrl_lib.profiles import SMOKE
from sftrl_lib.tasks import TASKS

GP_L = TASKS["gp-l"]


class Server:
    """A chat-completions endpoint: `say` maps the messages to an answer, an HTTP status, or raw bytes."""

    def __init__(self):
        self.asked, self.keys, self.say = [], [], lambda messages: "no idea"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                outer.keys.append(self.headers.get("Authorization"))
                said = outer.say(body["messages"])
                reply = {"choices": [{"message": {"content": said}}]}
                reply["usage"] = {"prompt_tokens": 10, "completion_tokens": 2}
                self.send_response(said if isinstance(said, int) else 200)
                self.end_headers()
                self.wfile.write(said if isinstance(said, bytes) else json.dumps(reply).encode())

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(served, "_PACE", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def right_answer(messages):
    """What an expert says to the hand in a prompt, by the rule that it states."""
    prompt = messages[0]["content"]
    cards = prompt.split("Cards: ")[1].split("\n")[0].strip("[]").replace("'", "").split(", ")
    numbers = card_numbers(cards, "ten" if "count as '10'" in prompt else "distinct")
    return json.dumps({"cards": cards, "number": numbers, "formula": solve(numbers)[0] + "=24"})


def second_time_right(messages):
    return right_answer(messages) if len(messages) == 3 else '{"formula": "1+1=24"}'


def test_answers_are_graded_with_feedback_and_metrics_are_ours(server, tmp_path, capsys):
    server.say = second_time_right
    how = ["--task", "gp-l", "--splits", "id", "rule_ood", "--episodes", "6", "--attempts", "3"]
    assert main(["--url", server.url, "--model", "m", *how, "--prices", "1000", "0", "--folder", str(tmp_path)]) == 0
    rows = pd.read_csv(tmp_path / "metrics.csv").set_index(["split", "metric"])
    for split in ("id", "rule_ood"):
        assert rows.loc[(split, "success"), "value"] == 1.0 and rows.loc[(split, "first_attempt"), "value"] == 0.0
        assert rows.loc[(split, "success"), "low"] == pytest.approx(1 / (1 + 1.959964**2 / 6))
    assert len(server.asked) == 24 and {body["model"] for body in server.asked} == {"m"}
    feedback = [body["messages"][2]["content"] for body in server.asked if len(body["messages"]) == 3]
    assert len(feedback) == 12 and all("use each number" in text for text in feedback)
    assert "240 tokens read, 48 written, 0.24 to pay" in capsys.readouterr().out


def test_an_interrupted_test_goes_on_and_asks_nothing_twice(server, tmp_path):
    """Also where the file of answers ends in the middle of a line."""
    server.say = second_time_right
    whole = play(Endpoint(server.url, "m"), GP_L, "id", 5, 3, Answers(tmp_path / "whole.jsonl"))
    asked, path = len(server.asked), tmp_path / "answers.jsonl"
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:20])
    again = play(Endpoint(server.url, "m"), GP_L, "id", 5, 3, Answers(path))
    assert len(server.asked) - asked == asked - 4
    assert len(Answers(path).texts) == 5 and Answers(path).tokens["completion_tokens"] == 2 * asked
    said = [[[a.text for a in c.attempts] for c in e.conversations] for e in (*whole, *again)]
    assert said[:5] == said[5:]


def test_another_test_does_not_mix_with_one_in_its_folder(server, tmp_path, capsys):
    how = ["--url", server.url, "--splits", "id", "--episodes", "2", "--attempts", "1", "--folder", str(tmp_path)]
    assert main([*how, "--model", "one"]) == 0
    assert main([*how, "--model", "other"]) == 1 and "choose another --folder" in capsys.readouterr().err


BROKEN = [b"not json", b'{"choices": []}', b"[1]", b'{"choices": [{"message": {"content": 5}}]}']


@pytest.mark.parametrize("trouble", [429, 503, *BROKEN])
def test_passing_trouble_is_waited_for(server, trouble):
    replies = iter([trouble, trouble, "at last"])
    server.say = lambda _: next(replies)
    assert Endpoint(server.url, "m").answer([{"role": "user", "content": "?"}])[0] == "at last"
    server.say = lambda _: trouble
    with pytest.raises(EndpointError, match="gives no answer of 'm'"):
        Endpoint(server.url, "m", tries=2).answer([])


def test_what_waiting_does_not_cure_ends_at_once(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.say = lambda _: 401
    how = ["--model", "m", "--splits", "id", "--episodes", "1", "--folder", str(tmp_path)]
    assert main(["--url", server.url, *how]) == 1
    error = capsys.readouterr().err
    assert "status 401" in error and "secret" not in error and len(server.asked) == 1
    assert server.keys == ["Bearer secret"]
    assert not any("secret" in path.read_text() for path in tmp_path.iterdir())
    for bad, words in (
        (["--url", "localhost"], "Endpoint.url must be"),
        (["--url", server.url, "--task", "chess"], "Unknown task 'chess'"),
        (["--url", server.url, "--temperature", "-1"], "Endpoint.temperature"),
    ):
        assert main([*how, *bad]) == 1 and words in capsys.readouterr().err


def test_pictures_are_sent_as_they_are_seen(server):
    observation, _ = TASKS["gp-vl"].training_env(1).reset(seed=4)
    [message] = as_openai(observation["messages"], observation["image"])
    [picture, text] = message["content"]
    data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(BytesIO(data))), observation["image"])
    assert text == observation["messages"][0]["content"][1]


def test_navigation_asks_a_new_question_at_every_position(server, tmp_path):
    """Forward for ever: the walk ends with the first wrong move, and its positions are questions of their own."""
    server.say = lambda messages: '{"action": "forward()"}'
    episodes = play(Endpoint(server.url, "m"), TASKS["virl-l"], "id", 4, 1, Answers(tmp_path / "a.jsonl"))
    for episode in episodes:
        assert episode.truncated and {len(c.attempts) for c in episode.conversations} == {1}
    assert "success" in TASKS["virl-l"].measure("id", episodes)


@pytest.fixture
def transformers_serve(tmp_path):
    """The shipped foundation model behind `transformers serve`; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve"]
    options = ["--port", str(port), "--device", "cpu", "--dtype", "float32", str(paths.shipped("gp-l"))]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen([*command, *options], stdout=log, stderr=log, env=offline)

    def ready():
        assert server.poll() is None, (tmp_path / "log").read_text()
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200
        except OSError:
            return False

    try:
        until(ready, seconds=120)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("fastapi", "uvicorn"))), reason="needs transformers[serving]"
)
def test_a_model_served_by_transformers_answers_as_it_does_here(transformers_serve, tmp_path):
    """Greedily, hand by hand and attempt by attempt, so prompts, feedback and stopping are the same on both ways."""
    source = str(paths.shipped("gp-l"))
    how = SMOKE.study("gp-l").evaluation.protocol(temperature=0.0, attempts=2, episodes=6)
    here = episodes.play(load_policy(source), GP_L, "rule_ood", how, seed=0)
    endpoint = Endpoint(transformers_serve, source, temperature=0.0, max_tokens=how.max_new_tokens)
    there = play(endpoint, GP_L, "rule_ood", 6, 2, Answers(tmp_path / "answers.jsonl"))
    mine, theirs = ([[a.text for c in e.conversations for a in c.attempts] for e in side] for side in (here, there))
    assert mine == theirs and len({text for answers in mine for text in answers}) > 3
