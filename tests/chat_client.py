"""A remote model in front of `chat_server`, and what it is asked."""

import time
from contextlib import contextmanager

from chat_server import serving
from search.protocol import Request
from search.remote import RemoteModel

KEY = "sk-secret-0123456789abcdef"
MESSAGES = [{"role": "system", "content": "You answer."}, {"role": "user", "content": "Say something."}]


def request(count=1, seconds=20.0, **fields):
    """A request for `count` texts that ends in `seconds`."""
    return Request(MESSAGES, count, time.monotonic() + seconds, **fields)


@contextmanager
def starting(monkeypatch):
    """Yields start(behaviour or answer, address="/v1", **options) -> (model, what the server saw)."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    opened = []

    def start(behaviour, address="/v1", **options):
        context = serving(behaviour if callable(behaviour) else lambda body, number: behaviour)
        url, seen = context.__enter__()
        opened.append(context)
        monkeypatch.setenv("OPENAI_BASE_URL", url.removesuffix("/v1") + address)
        return RemoteModel("some-model", **options), seen

    try:
        yield start
    finally:
        for context in opened:
            context.__exit__(None, None, None)
