"""A real browser for tests of pages: headless Chromium, through its DevTools protocol on a pipe.

``page.problems()`` is what a user would complain about; the tests of each page assert that it is
empty at 400 and at 1600 pixels. Example::

    from tests.browser import WIDTHS, Browser, needs_browser

    @pytest.mark.slow
    @needs_browser
    def test_the_page(browser: Browser, tmp_path: Path) -> None:
        for width in WIDTHS:
            with browser.open(tmp_path / "report.html", width=width) as page:
                assert page.problems() == []
                assert "98.6%" in page.hover("figure[data-plot]", 0.5, 0.5)
                page.screenshot(tmp_path / "report.png")
"""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (400, 1600)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--no-first-run", "--hide-scrollbars", "--disable-extensions", "--disable-component-update",
    "--remote-debugging-pipe",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
PATIENCE = 60.0  # seconds for a page

CLIPPED = """(() => {
  const found = [], root = document.documentElement, wide = root.clientWidth;
  const report = (element, what) => {
    const kind = element.tagName.toLowerCase() + "." + element.className;
    found.push(`${kind} ${element.textContent.trim().slice(0, 40)}: ${what}`);
  };
  if (root.scrollWidth > wide) report(root, `the page is ${root.scrollWidth} wide`);
  for (const element of document.querySelectorAll("main *:not(svg, svg *)")) {
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    if (style.visibility === "hidden" || !box.width || !box.height) continue;
    const cuts = !["visible", "auto", "scroll"].includes(style.overflowX);
    if (cuts && element.scrollWidth > element.clientWidth + 1) report(element, "cut off");
    const hasText = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!hasText) continue;
    if (parseFloat(style.fontSize) < 11) report(element, `only ${style.fontSize}`);
    if (element.closest(".scroll")) continue;  // all of it can be reached
    if (box.left < -1 || box.right > wide + 1) report(element, "outside of the page");
    const around = element.closest(".tip") ? null : element.closest(".card, .tile, header");
    const edge = around?.getBoundingClientRect();
    if (edge && (box.left < edge.left - 1 || box.right > edge.right + 1
        || box.bottom > edge.bottom + 1)) report(element, "outside of its card");
  }
  for (const ticks of document.querySelectorAll(".xticks, .yticks")) {
    const all = [...ticks.querySelectorAll(".tick")];
    const placed = all.map(tick => [tick, tick.getBoundingClientRect()]);
    const boxes = placed.filter(each => each[1].width);
    const side = ticks.className.includes("x") ? ["left", "right"] : ["top", "bottom"];
    boxes.sort((a, b) => a[1][side[0]] - b[1][side[0]]);
    for (let i = 1; i < boxes.length; i++) {
      const slack = side[0] === "top" || ticks.matches(".down") ? 4 : 0;
      const [tick, box] = boxes[i], before = boxes[i - 1][1];
      if (box[side[0]] < before[side[1]] - slack) report(tick, "on another tick");
    }
  }
  for (const counts of document.querySelectorAll(".counts")) {
    const boxes = [...counts.children].map(count => [count, count.getBoundingClientRect()]);
    for (let i = 1; i < boxes.length; i++) {
      const [count, box] = boxes[i], before = boxes[i - 1][1];
      const isBeside = box.width && box.top === before.top;
      if (isBeside && box.left < before.right) report(count, "on another count");
    }
  }
  return found;
})()"""
"""JavaScript that lists texts that are cut off, stick out, lie on another, or are hard to read."""


class Page:
    """A page in the browser.

    Attributes:
        errors: what the console shows as an error, uncaught exceptions included.
        requests: addresses of all that the page asked for, but for itself and ``data:``.
        dialogs: texts of ``alert``, which an injected script would call.
    """

    def __init__(
        self, call: Callable[..., dict[str, Any]], tell: Callable[..., int], url: str
    ) -> None:
        self._call, self._tell, self.url = call, tell, url
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.loaded = False

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression of JavaScript."""
        answer = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def clipped(self) -> list[str]:
        """Return the elements whose text is cut off, sticks out, or is too small to read."""
        found: list[str] = self.evaluate(CLIPPED)
        return found

    def problems(self) -> list[str]:
        return [
            *(f"error: {text}" for text in self.errors),
            *(f"request: {url}" for url in self.requests),
            *(f"dialog: {text}" for text in self.dialogs),
            *(f"clipped: {text}" for text in self.clipped()),
        ]

    def hover(self, figure: str, x: float, y: float) -> str:
        """Move the pointer over a plot, to fractions of its area; return the text that it shows."""
        area = json.dumps(f"{figure} .area")
        box = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect(); "
            f"return [b.left, b.top, b.width, b.height]; }})(document.querySelector({area}))"
        )
        place = {"x": box[0] + x * box[2], "y": box[1] + y * box[3]}
        self._call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        shown = f"(e => e.hidden ? '' : e.innerText)(document.querySelector({area} + ' .tip'))"
        return str(self.evaluate(shown))

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key)

    def screenshot(self, path: Path) -> None:
        """Write the whole page, from top to bottom, as a PNG."""
        taken = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _hear(self, event: str, told: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self.loaded = True
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(told["exceptionDetails"].get("exception", told)))
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(json.dumps(told["args"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])
        elif event == "Page.javascriptDialogOpening":
            self.dialogs.append(told["message"])
            self._tell("Page.handleJavaScriptDialog", accept=True)
        elif event == "Network.requestWillBeSent":
            url = told["request"]["url"]
            if url != self.url and not url.startswith("data:"):
                self.requests.append(url)


class Browser:
    """A running Chromium."""

    def __init__(self, home: str) -> None:
        assert CHROMIUM is not None
        (ours, its), (theirs, answers) = map(_high, (os.pipe(), os.pipe()))

        def connect() -> None:
            os.dup2(ours, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={home}", "about:blank"],
            pass_fds=(3, 4), preexec_fn=connect,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(ours)
        os.close(answers)
        self._to, self._from = os.fdopen(its, "wb", 0), os.fdopen(theirs, "rb", 0)
        self._buffer, self._count = b"", 0
        self._pages: dict[str, Page] = {}

    def close(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._call("Browser.close", None)
        self._to.close()
        self._from.close()
        self._process.wait(PATIENCE)

    @contextlib.contextmanager
    def open(
        self,
        place: Path | str,
        *,
        width: int = 1600,
        height: int = 1000,
        dark: bool = False,
        scale: float = 1,
    ) -> Iterator[Page]:
        """Open a file or an address in a window of this many CSS pixels; wait for its scripts.

        A screenshot has ``scale`` pixels for each of these.
        """
        target = self._call("Target.createTarget", None, url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", None, targetId=target, flatten=True)[
            "sessionId"
        ]

        def call(method: str, **given: Any) -> dict[str, Any]:
            return self._call(method, session, **given)

        def tell(method: str, **given: Any) -> int:
            return self._tell(method, session, **given)

        url = place if isinstance(place, str) else place.absolute().as_uri()
        page = self._pages[session] = Page(call, tell, url)
        for domain in ("Page", "Runtime", "Log", "Network"):
            call(f"{domain}.enable")
        call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        call("Emulation.setEmulatedMedia", features=[scheme])
        answer = call("Page.navigate", url=page.url)
        assert "errorText" not in answer, answer
        while not page.loaded:
            self._read()
        page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        try:
            yield page
        finally:
            self._call("Target.closeTarget", None, targetId=target)
            del self._pages[session]

    def _call(self, method: str, session: str | None, **given: Any) -> dict[str, Any]:
        own = self._tell(method, session, **given)
        while (heard := self._read()).get("id") != own:
            pass
        assert "error" not in heard, (method, heard)
        result: dict[str, Any] = heard["result"]
        return result

    def _tell(self, method: str, session: str | None, **given: Any) -> int:
        """Send a message without waiting for its answer, which has the number that is returned."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": given}
        message |= {"sessionId": session} if session is not None else {}
        self._to.write(json.dumps(message).encode() + b"\0")
        return self._count

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not (read := self._from.read(1 << 16)):
                raise EOFError("Chromium has ended")
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\0")
        heard: dict[str, Any] = json.loads(line)
        if "method" in heard and (page := self._pages.get(heard.get("sessionId", ""))):
            page._hear(heard["method"], heard["params"])
        return heard


def _high(pair: tuple[int, int]) -> tuple[int, int]:
    """Return a pipe whose ends are not 3 and 4, which Chromium uses."""
    first, second = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pair)
    for end in pair:
        os.close(end)
    return first, second


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        started = Browser(home)
        try:
            yield started
        finally:
            started.close()
