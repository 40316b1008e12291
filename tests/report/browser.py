"""A headless Chromium, driven through its debugging pipe: no other package is needed."""

import base64
import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from shutil import which

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)

_KEYS = {"Enter": ("\r", 13), " ": (" ", 32), "Tab": ("\t", 9)}


class Page:
    """One tab; what its console and its network said stands in ``complaints``."""

    def __init__(self, send, receive):
        self._send, self._receive = send, receive
        self._last = 0
        self._session = None
        self._loaded = False
        self.complaints = []
        self.requests = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Ask the browser for something; its events until the answer are noted."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._send(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._receive())
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        kind, params = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"])
        elif kind == "Runtime.consoleAPICalled":
            self.complaints.append(params["args"])
        elif kind == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        elif kind == "Page.loadEventFired":
            self._loaded = True
        elif kind == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, path, fragment="", width=1280, height=900, dark=False):
        """Load a file at a size of the window, in light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        for address in ("about:blank", Path(path).as_uri() + fragment):
            self._loaded = False
            self.call("Page.navigate", url=address)
            while not self._loaded:
                self._note(json.loads(self._receive()))

    def run(self, expression):
        """The value of an expression in the page, after two frames."""
        frames = "new Promise(d => requestAnimationFrame(() => requestAnimationFrame(d)))"
        self.call("Runtime.evaluate", expression=frames, awaitPromise=True)
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, *keys):
        """Press keys, one after the other."""
        for key in keys:
            text, code = _KEYS.get(key, ("", 0))
            facts = {"key": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **facts)
            self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def write(self, text):
        """Type a text where the focus is."""
        self.call("Input.insertText", text=text)

    def click(self, selector):
        """Click at the middle of an element, as a mouse does."""
        at = self.run(
            f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
            e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();
            return [b.x + b.width / 2, b.y + b.height / 2]; }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1
            )

    def picture(self, path, *, full=False):
        """Save a screenshot; ``full`` beyond what is in sight."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=full)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def pdf(self, path):
        """Print to a file."""
        data = self.call("Page.printToPDF", printBackground=True)["data"]
        Path(path).write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser():
    """A page of a browser of its own, which ends with the block."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    def place():
        """Give the pipe the numbers that Chromium reads: 3 and 4."""
        first, second = os.dup(to_read), os.dup(from_write)
        high = os.dup2(first, 10, inheritable=True), os.dup2(second, 11, inheritable=True)
        os.dup2(high[0], 3, inheritable=True)
        os.dup2(high[1], 4, inheritable=True)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}"]
        process = subprocess.Popen(
            command,
            preexec_fn=place,  # noqa: PLW1509 - no threads are running that hold a lock
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        buffer = bytearray()

        def receive():
            while (end := buffer.find(b"\0")) < 0:
                chunk = os.read(from_read, 1 << 20)
                assert chunk, "the browser ended"
                buffer.extend(chunk)
            message = bytes(buffer[:end])
            del buffer[: end + 1]
            return message

        def send(message):
            while message:
                message = message[os.write(to_write, message) :]

        try:
            yield Page(send, receive)
        finally:
            os.close(to_write)
            os.close(from_read)
            process.terminate()
            process.wait(20)
