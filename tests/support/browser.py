"""Debian's Chromium without a window, driven over its DevTools pipe: what a page logs, asks for, and looks like."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["INSTALL", "Browser", "chromium", "started"]

INSTALL: Final = "apt-get install chromium"
OPTIONS: Final = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
OPTIONS: Final = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
HAND_OVER: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""The browser reads what it is asked from 3, and answers at 4."""

PATIENCE: Final = 60.0
PROBLEMS: Final = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


def chromium() -> str | None:
    """The program's path, if it is installed."""
    return shutil.which("chromium")


@dataclass
class Browser:
    """A page in a browser. State: the messages read so far that answer nothing."""

    sending: int
    receiving: int
    session: str = ""
    sent: int = 0
    buffer: bytes = b""
    events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a method of the DevTools protocol returns."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.sending, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.receiving], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            data = os.read(self.receiving, 1 << 20)
            assert data, "the browser has gone"
            self.buffer += data
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def begin(self) -> None:
        """A page of its own."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Performance"):
            self.call(f"{domain}.enable")

    def open(self, path: Path) -> float:
        """Open a page, and wait until all of it is loaded; the seconds that the processor worked for it."""
        self.events.clear()
        started = self._worked()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())
        return self._worked() - started

    def _worked(self) -> float:
        """The processor's time of the process that renders the page: what others do meanwhile does not count."""
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "ProcessTime")

    def problems(self) -> list[dict[str, Any]]:
        """What the page logged, or threw."""
        return [event["params"] for event in self.events if event["method"] in PROBLEMS]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the page was opened, its own aside."""
        asked = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in asked if each["type"] != "Document"]

    def look(self, width: int, *, dark: bool, scale: float = 1) -> None:
        """The window's width from now on, and the scheme of colours that the reader prefers."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": scale, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path, selector: str = "html") -> None:
        """Write an element as it is shown, whole, as a PNG."""
        box = "(b => ({x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}))"
        clip = self.evaluate(f"{box}(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip={**clip, "scale": 1})
        path.write_bytes(base64.b64decode(shot["data"]))

    def print(self, path: Path) -> int:
        """Write the page as it is printed on A4, as PDF; its bytes."""
        done = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        return path.write_bytes(base64.b64decode(done["data"]))


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A browser with an empty page, which ends with the context. profile: where it may write."""
    its_input, sending = os.pipe()
    receiving, its_output = os.pipe()
    program = [chromium() or "chromium", *OPTIONS, f"--user-data-dir={profile}"]
    command = [sys.executable, "-c", HAND_OVER, str(its_input), str(its_output), *program]
    with subprocess.Popen(
        command, pass_fds=(its_input, its_output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        os.close(its_input)
        os.close(its_output)
        browser = Browser(sending, receiving)
        try:
            browser.begin()
            yield browser
        finally:
            os.close(sending)
            os.close(receiving)
            process.terminate()
