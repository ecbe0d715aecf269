"""Both games in a real browser: JupyterLab on loopback as `make play` starts it, headless Chromium, clicks and keys.

Needs Chromium (apt-get install chromium; SFTRL_CHROMIUM names another one) and Playwright for Python (pip install
playwright); skipped without. SFTRL_SCREENSHOTS names a folder for the pictures of README and book.
"""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from sftrl_lib import paths

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
CHROMIUM = os.environ.get("SFTRL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
if not CHROMIUM:
    pytest.skip("There is no Chromium: apt-get install chromium", allow_module_level=True)

FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()
SLOW = 240_000  # ms, for what models and a busy machine take; everything is waited for, nothing slept through
TOKEN = "play"
QUIET = '{"fetchNews": "false", "checkForUpdates": false}'  # no question in the corner of the pictures


def free_port():
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of JupyterLab in a home of its own, with whatever models were trained here."""
    home = tmp_path_factory.mktemp("home")
    (home / "build").mkdir()
    for profile in (path for path in (paths.HOME / "build").glob("*") if (path / "runs").is_dir()):
        (home / "build" / profile.name).symlink_to(profile)
    own = {f"JUPYTER_{name}_DIR": str(home / ".jupyter" / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    settings = home / ".jupyter" / "CONFIG" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(QUIET, encoding="utf-8")
    environment = {**os.environ, **own, "SFTRL_HOME": str(home), "IPYTHONDIR": str(home / ".ipython")}
    port, log = free_port(), home / "server.log"
    command = [sys.executable, "-m", "sftrl_lib.play", "--no-browser", f"--port={port}", "--ServerApp.ip=127.0.0.1",
               f"--IdentityProvider.token={TOKEN}"]  # fmt: skip
    with log.open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT, cwd=paths.ROOT)
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(f"{address}/api?token={TOKEN}") or process.poll() is not None, "JupyterLab to start")
        assert process.poll() is None, log.read_text()
        assert "You play on copies" in log.read_text()
        yield address
    finally:
        process.terminate()
        process.wait(60)


def answers(address):
    try:
        return urllib.request.urlopen(address, timeout=2).status == 200
    except OSError:
        return False


def until(condition, what, seconds=SLOW / 1000):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


class Lab:
    """A notebook in JupyterLab, in a window of 1366 x 768."""

    def __init__(self, browser, address, notebook):
        self.page = browser.new_page(viewport={"width": 1366, "height": 768})
        self.page.set_default_timeout(SLOW)
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{address}/lab/tree/build/play/{notebook}.ipynb?reset&token={TOKEN}")
        self.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
        until(self.connected, "the kernel")

    def connected(self):
        """Whether the first code cell runs: JupyterLab forgets what is run before the kernel is connected."""
        cell = self.page.locator(".jp-CodeCell").first
        cell.locator(".jp-InputPrompt").click()
        self.page.keyboard.press("Control+Enter")
        try:
            cell.locator(".jp-InputPrompt", has_text=re.compile(r"\[\d+\]")).wait_for(timeout=8_000)
        except playwright.TimeoutError:
            return False
        return True

    @property
    def game(self):
        return self.page.locator(".jp-OutputArea-output .sftrl").first

    def run(self, cells):
        """Run the first cells, one Shift-Enter each."""
        self.page.locator(".jp-Notebook .jp-Cell").first.click(position={"x": 20, "y": 20})  # beside its links
        for number in range(cells):
            here = self.page.locator(f".jp-Cell.jp-mod-active[data-windowed-list-index='{number}']")
            here.wait_for()
            self.page.keyboard.press("Shift+Enter")
        self.game.wait_for()
        self.to_the_top()

    def to_the_top(self):
        self.game.evaluate("element => element.scrollIntoView({block: 'start'})")

    def button(self, text):
        return self.game.get_by_role("button", name=text, exact=True)

    def click(self, text):
        self.button(text).click()

    def verdict(self, text):
        """Wait until the verdict, which is read out as well, has this in it."""
        self.game.locator("[role=alert][aria-live=polite]", has_text=text).wait_for()

    def ask(self, text):
        """Ask the models, who have said nothing here yet, and wait until they have answered."""
        until(lambda: self.turns() == 0, "the answers to go")
        self.click(text)
        self.game.locator(".soft", has_text="Shading:").wait_for()
        until(self.button(text).is_enabled, "the models")

    def ask_on_new_hands(self, hands):
        for _ in range(hands):
            self.click("New hand")
            self.verdict("Make 24")
            self.ask("Ask the models")

    def turns(self):
        return self.game.locator(".turn").count()

    def shoot(self, name, height=768):
        """Take a picture of the game, if pictures are wanted."""
        if folder := os.environ.get("SFTRL_SCREENSHOTS"):
            self.page.keyboard.press("Escape")
            self.page.set_viewport_size({"width": 1366, "height": height})
            self.to_the_top()
            self.page.wait_for_timeout(500)
            shown = self.game.bounding_box()
            room = {**shown, "height": min(shown["height"], height - shown["y"] - 32)}
            picture = Image.open(io.BytesIO(self.page.screenshot(clip=room))).convert("RGB")
            Path(folder).mkdir(parents=True, exist_ok=True)
            picture.quantize(256).save(Path(folder) / f"{name}.png", optimize=True)
            self.page.set_viewport_size({"width": 1366, "height": 768})


@pytest.fixture
def points(browser, server):
    lab = Lab(browser, server, "10_play_points")
    yield lab
    assert not lab.errors
    lab.page.close()


@pytest.fixture
def navigation(browser, server):
    lab = Lab(browser, server, "11_play_navigation")
    yield lab
    assert not lab.errors
    lab.page.close()


def test_a_hand_with_the_mouse_another_rule_and_the_models(points):
    points.run(cells=3)
    for part in (".widget-text input", "img[alt^='Four cards']", "[role=alert]"):
        box = points.game.locator(part).first.bounding_box()
        assert box["y"] + box["height"] < 740, f"{part} is out of sight in a window of 1366 x 768"
    numbers = points.game.locator(".big button").all()[:4]
    for button, sign in zip(numbers, "+++ ", strict=True):
        button.click()
        if sign != " ":
            points.click(sign)
    typed = points.game.locator("input[type=text]").first
    assert typed.input_value().count("+") == 3
    points.click("Submit")
    points.verdict("=")
    assert "Attempts left" in points.game.inner_text()
    points.click("11, 12, 13")
    points.verdict("Make 24")
    points.ask("Ask the models")
    assert points.turns() > 0 and points.game.locator(".said span[title]").count() > 0
    points.shoot("points-light")
    points.click("New hand")
    until(lambda: points.turns() == 0, "the answers to go")


def test_a_hand_with_the_keyboard_alone(points):
    points.run(cells=3)
    points.game.locator("input[type=text]").first.focus()
    points.page.keyboard.type("1×1")
    points.page.keyboard.press("Enter")
    points.verdict("= 1")
    points.button("New hand").focus()
    before = points.game.locator("img").get_attribute("src")
    points.page.keyboard.press("Space")
    until(lambda: points.game.locator("img").get_attribute("src") != before, "another hand")
    points.page.keyboard.press("Tab")  # to the hint
    points.page.keyboard.press("Enter")
    points.game.locator("text=solution").first.wait_for()


def test_the_notebook_runs_to_its_end_and_shows_the_same_without_widgets(points):
    points.page.locator(".lm-MenuBar-item", has_text="Run").click()
    points.page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    points.page.locator(".jp-OutputArea-output table.dataframe").wait_for(state="attached")
    assert points.page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    if "SFTRL_SCREENSHOTS" in os.environ:  # several hands under each rule, as they come
        points.page.keyboard.press("Control+b")  # the file browser closed, as in a talk
        points.click("J, Q, K = 10")
        points.ask_on_new_hands(10)
        points.click("11, 12, 13")
        points.ask_on_new_hands(10)
        points.game.locator("input[type=text]").first.fill("1+2*3")
        points.click("Submit")
        points.verdict("= 7")
        points.shoot("points", height=900)


def test_a_route_with_the_mouse(navigation):
    navigation.run(cells=3)
    navigation.verdict("Follow the instructions")
    for part in ("img[alt^='Map of']", "img[alt^='Street views']", "[role=alert]"):
        box = navigation.game.locator(part).first.bounding_box()
        assert box["y"] + box["height"] < 740, f"{part} is out of sight in a window of 1366 x 768"
    navigation.click("stop here")
    navigation.verdict("✗")
    navigation.click("Show the step")
    navigation.verdict("You are there now")
    for _ in range(3):
        navigation.click("Show the step")
        navigation.verdict("You are there now")
    navigation.click("Hint")
    navigation.game.locator("text=Now:").wait_for()
    navigation.ask("Ask the models here")
    assert navigation.turns() > 0
    navigation.page.keyboard.press("Control+b")
    navigation.click("left and right")
    navigation.verdict("Same place, new directions")
    assert navigation.button("↰ left").count() == 1 and navigation.button("↑ north").count() == 0
    navigation.ask("Ask the models here")
    navigation.shoot("navigation", height=900)


def test_a_route_with_the_keyboard_alone(navigation):
    navigation.run(cells=3)
    navigation.button("stop here").focus()
    navigation.page.keyboard.press("Enter")
    navigation.verdict("✗")
    navigation.button("Show the step").focus()
    navigation.page.keyboard.press("Space")
    navigation.verdict("You are there now")
