"""Chromium without a window, by its debugging pipe: opens pages, presses keys, evaluates expressions."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import missing

_KEYS = {"Home": 36, "End": 35, "ArrowLeft": 37, "ArrowRight": 39, "PageUp": 33, "PageDown": 34, "Escape": 27}
_KEYS |= {"Enter": 13, "Tab": 9}
_TEXTS = {"Enter": "\r"}


class Browser:
    """One tab. Messages are JSON, each ended by a zero byte."""

    def __init__(self, messages: int, answers: int):
        self._messages, self._answers, self._rest, self._count, self._session = messages, answers, b"", 0, {}
        (target,) = [one for one in self._call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self._call("Page.enable")

    def _call(self, method, **arguments):
        self._count += 1
        message = {"id": self._count, "method": method, "params": arguments} | self._session
        os.write(self._messages, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self):
        while b"\0" not in self._rest:
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, address: str, *, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        """Load a page and wait until its scripts have run."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url="about:blank")  # else another fragment of the same page is not loaded anew
        self._call("Page.navigate", url=address)
        for _ in range(600):
            if self.value("location.href !== 'about:blank' && document.readyState") == "complete":
                return
            time.sleep(0.02)
        raise AssertionError(f"{address} did not load")

    def value(self, expression: str):
        """Evaluate an expression in the page; return its value."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, at what has the focus."""
        for key in keys:
            about = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
            text = {"text": _TEXTS[key]} if key in _TEXTS else {}
            self._call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
            self._call("Input.dispatchKeyEvent", type="keyUp", **about)

    def picture(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Start Chromium with a profile in a folder; end it afterwards. Skips the test where it is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("needs Chromium (Debian: apt install chromium)")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    (read_messages, messages), (answers, write_answers) = os.pipe(), os.pipe()
    # it reads from 3 and writes to 4
    start = f'exec "$@" 3<&{read_messages} 4>&{write_answers}'
    process = subprocess.Popen(
        ["bash", "-c", start, "bash", program, *flags, "about:blank"],
        pass_fds=(read_messages, write_answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(read_messages)
    os.close(write_answers)
    try:
        yield Browser(messages, answers)
    finally:
        os.close(messages)  # whereupon it ends
        os.close(answers)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
