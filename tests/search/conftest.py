import pytest

from chat_client import starting


@pytest.fixture
def service(monkeypatch):
    """Starts a server with a behaviour and gives (model, what the server saw)."""
    with starting(monkeypatch) as start:
        yield start
