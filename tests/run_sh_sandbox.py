"""A copy of run.sh in a directory of its own, with stand-ins for Python, pip and uv that do nothing heavy."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent

# Answers `-m venv` and `-m pip` itself, and leaves the rest to the real interpreter. With FAKE_VERSION it claims to be
# another one.
PYTHON = """#!/bin/bash
echo "${0##*/} $*" >> "$CALLS"
case "$1 ${2:-}" in
    "-m venv")
        [ -z "${VENV_FAILS:-}" ] || { echo no ensurepip >&2; exit 1; }
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip")
        [ -z "${PIP_FAILS:-}" ] || { echo no network >&2; exit 1; } ;;
    "-m "*) ;;
    "-c "*)
        if [ -n "${FAKE_VERSION:-}" ]; then echo "$FAKE_VERSION"; [[ $FAKE_VERSION == 3.1[0-3].* ]]
        else exec REAL "$@"; fi ;;
    *)
        exec REAL "$@" ;;
esac
"""

UV = """#!/bin/bash
echo "uv $*" >> "$CALLS"
case $1 in
    pip) exit "${UV_PIP_EXIT:-0}" ;;
    venv) for last; do :; done; mkdir -p "$last/bin" && cp "${0%/*}/../python3" "$last/bin/python" ;;
esac
"""


class Sandbox:
    """A project directory (with a space in its path) and a PATH on which only the stand-ins and basic tools lie."""

    def __init__(self, root: Path):
        self.project = root / "my project"
        self.path = root / "bin"
        self.calls_file = root / "calls"
        self.project.mkdir()
        self.path.mkdir()
        for name in ("run.sh", "requirements.txt"):
            shutil.copy(PROJECT / name, self.project / name)
        for tool in "bash cat chmod cksum cp dirname env mkdir rm sleep".split():
            (self.path / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        self.write(self.path / "python3", PYTHON.replace("REAL", shlex.quote(sys.executable)))
        self.environment = {"PATH": str(self.path), "CALLS": str(self.calls_file), "HOME": str(root)}

    @staticmethod
    def write(path: Path, text: str) -> Path:
        path.write_text(text)
        path.chmod(0o755)
        return path

    def add_uv(self) -> None:
        (self.path / "tools").mkdir()
        self.write(self.path / "tools" / "uv", UV)
        self.environment["PATH"] += f":{self.path / 'tools'}"

    def command(self, *words: str) -> list[str]:
        return [str(self.path / "bash"), str(self.project / "run.sh"), *words]

    def run(self, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment | environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def calls(self, pattern: str) -> list[str]:
        """The calls of the stand-ins since the last look that match `pattern`, as one line each."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [line for line in lines if re.search(pattern, line)]

    def forget_calls(self) -> None:
        self.calls_file.unlink(missing_ok=True)
