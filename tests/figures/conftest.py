"""A real browser without a screen, and what a page does in it."""

import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Opened:
    """A page that is open, with all that went wrong in it and all that it asked for."""

    page: Page
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def ids(self) -> list[int]:
        """The functions that the tree has nodes for."""
        return self.page.evaluate(
            "document.getElementById('tree').data.filter((t) => t.meta === 'nodes').flatMap((t) => t.customdata)"
        )

    def place(self, function: int) -> tuple[float, float]:
        """Where the middle of a function's node is on the screen."""
        return self.page.evaluate(
            """(id) => {
                const tree = document.getElementById("tree"), shown = tree._fullLayout;
                const trace = tree.data.find((t) => t.meta === "nodes" && t.customdata.includes(id));
                const at = trace.customdata.indexOf(id), box = tree.getBoundingClientRect();
                return [box.x + shown.xaxis._offset + shown.xaxis.l2p(trace.x[at]),
                        box.y + shown.yaxis._offset + shown.yaxis.l2p(trace.y[at])];
            }""",
            function,
        )

    def hover(self, function: int) -> None:
        """Move to a function's node in the tree, until the page says what it is."""
        self.page.locator("#tree").scroll_into_view_if_needed()
        self.page.mouse.move(*self.place(function))
        told, end = "", time.monotonic() + 30
        # Asked again and again from here: Playwright's own waiting needs `eval`, which the page forbids.
        while not re.match(rf"function {function}(?!\d)", told):
            assert time.monotonic() < end, f"function {function} is not told of, but {told!r}"
            told = self.page.evaluate("document.querySelector('#tree .hoverlayer').textContent")


@pytest.fixture(scope="module")  # Playwright's event loop runs as long as it lives, and other tests have their own
def browser():
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"{found} does not start here: {error.message.splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture(scope="module")
def open_page(browser):
    """Open a file in a window of its own, `width` pixels wide."""
    contexts = []

    def open_file(path: Path, width: int = 1280, **options: Any) -> Opened:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        opened = Opened(contexts[-1].new_page())
        opened.page.on("console", lambda message: opened.troubles.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.troubles.append(str(error)))
        opened.page.on("dialog", lambda dialog: opened.troubles.append(dialog.message))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(path.as_uri(), timeout=120_000)
        return opened

    yield open_file
    for context in contexts:
        context.close()
