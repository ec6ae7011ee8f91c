"""A headless Chromium, driven over its DevTools pipe: no driver, no further package."""

import base64
import itertools
import json
import os
import subprocess
import time


class Browser:
    """One page of a browser.

    Args:
        command: str, the browser's program.
        folder: a folder for its profile.
    """

    def __init__(self, command, folder):
        to_read, self._to_write = os.pipe()
        self._to_read, to_write = os.pipe()

        def as_three_and_four():
            # Moved up first: one of them may be 3 or 4 already.
            above = os.dup(to_read), os.dup(to_write)
            os.dup2(above[0], 3)
            os.dup2(above[1], 4)

        self._process = subprocess.Popen(
            [
                *(command, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-dev-shm-usage", "--remote-debugging-pipe", "--window-size=900,1000"),
                *(f"--user-data-dir={folder}", "about:blank"),
            ],
            preexec_fn=as_three_and_four,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._numbers, self._rest, self._session = itertools.count(1), b"", None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def _call(self, method, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                part = os.read(self._to_read, 1 << 16)
                assert part, "the browser has ended"
                self._rest += part
            found, self._rest = self._rest.split(b"\0", 1)
            found = json.loads(found)
            if found.get("id") == number:
                assert "error" not in found, found
                return found["result"]

    def open(self, url):
        self._call("Page.navigate", url=url)

    def run(self, script):
        """The value of a JavaScript expression."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def wait(self, condition, seconds=60):
        """Waits until a JavaScript expression is true, and returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(condition)):
            assert time.monotonic() < end, (
                f"{condition} did not come true: {self.run('document.body.innerText')}"
            )
            time.sleep(0.1)
        return value

    def type(self, text):
        """Types into what has the focus."""
        self._call("Input.insertText", text=text)

    def screenshot(self, path):
        data = self._call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        self._process.terminate()
        self._process.wait(20)
        os.close(self._to_write)
        os.close(self._to_read)
