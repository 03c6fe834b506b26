"""Which model ``--model`` names, and which mistakes are told before anything runs."""

import os
import subprocess
import sys

import pytest

from chat_client import KEY, request
from chat_server import completion
from errors import UsageError
from search.connect import connect
from search.remote import RemoteModel

BUILTIN = object()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "--model builtin"),
        ({"OPENAI_API_KEY": "  "}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "two words"}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "localhost:8000"}, "OPENAI_BASE_URL"),
        ({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http:///v1"}, "OPENAI_BASE_URL"),
    ],
)
def test_a_remote_model_that_cannot_be_used_is_known_before_anything_runs(monkeypatch, environment, expected):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=expected) as caught:
        connect("gpt-4o-mini", builtin=BUILTIN)
    assert "two words" not in str(caught.value)


def test_a_key_with_a_line_end_is_taken_without_it(service, monkeypatch):
    _, seen = service(completion("text"))
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    RemoteModel("m").ask(request())
    assert seen.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_the_kinds_of_models(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert connect("builtin", builtin=BUILTIN) is BUILTIN
    assert connect("llama3:8b", builtin=BUILTIN).name == "llama3:8b"
    assert connect(f"manual:{tmp_path}", builtin=BUILTIN).name == f"manual:{tmp_path}"
    for typo in ("built-in", "bultin", "Builtin"):
        with pytest.raises(UsageError, match="did you mean builtin"):
            connect(typo, builtin=BUILTIN)
    for wrong, expected in ((f"replay:{tmp_path}", "no recording"), ("replay:", "recording"), ("manual:", "directory")):
        with pytest.raises(UsageError, match=expected):
            connect(wrong, builtin=BUILTIN)


def test_the_client_is_not_even_imported_before_the_first_request():
    code = (
        "import sys, search.connect; search.connect.connect('m', builtin=None); "
        "assert not {'openai', 'torch', 'reward_code', 'metaworld'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OPENAI_API_KEY": KEY})
