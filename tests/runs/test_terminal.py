"""What a run shows on a terminal, in a file, and with --quiet."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runs.log import RunLog

ROOT = Path(__file__).parents[2]
COST = {"tokens_in": 1200, "tokens_out": 34, "cost": 0.5}
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from runs.output import keep_output
from runs.log import RunLog
keep_output()
log = RunLog(sys.argv[1], "run", {{"quiet": {quiet}}})
log.say("it begins [bold]here[/bold] :smile:")
log.begin_progress(0, 1000)
for step in (100, 200):
    log.progress(step, 0.25, 0.5, {cost})
log.say("warning: beware")
log.progress(300, 0.75, 0.5, {cost})
log.say("it is over", final=True)
log.close()
"""


def on_a_terminal(tmp_path, quiet):
    """What a terminal of 200 columns gets, as the lines that it shows in the end, and all that was written to it."""
    ours, theirs = pty.openpty()
    program = PROGRAM.format(root=str(ROOT), quiet=quiet, cost=COST)
    hidden = ("WANDB_API_KEY", "WANDB_MODE", "NO_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"TERM": "xterm", "COLUMNS": "200", "LINES": "40"}
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=theirs, env=environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            written += os.read(ours, 4096)
        except OSError:  # its other end is closed
            break
    assert process.wait(60) == 0
    os.close(ours)
    text = written.decode()
    return screen(text), text


def screen(text):
    """The lines on a terminal after `text`, as far as it moves up, clears lines and returns."""
    lines, row = [""], 0
    for code, plain in re.findall(r"\x1b\[([?\d;]*[A-Za-z])|([^\x1b]+)", text):
        if code == "2K":
            lines[row] = ""
        elif code.endswith("A"):
            row -= int(code[:-1])
        for part in re.split(r"([\r\n])", plain):
            if part == "\r":
                continue
            if part == "\n":
                row += 1
                lines += [""] * (row == len(lines))
            else:
                lines[row] += part
    return [line for line in lines if line]


def kept(tmp_path):
    return [line[20:] for line in (tmp_path / "run" / "run.log").read_text("utf-8").splitlines()]


def test_progress_stays_in_one_line_below_what_is_said(tmp_path):
    shown, written = on_a_terminal(tmp_path, quiet=False)
    begins, warns, progress, ends = shown
    assert begins == "it begins [bold]here[/bold] :smile:"
    assert (warns, ends) == ("warning: beware", "it is over")
    assert "300 of 1,000 env steps, " in progress
    assert "success now 75%, best so far 50%" in progress
    assert "1,200 tokens in, 34 out, cost 0.50" in progress
    assert written.count(" of 1,000 env steps") >= 3
    first, *rest = kept(tmp_path)
    assert first == begins
    assert re.fullmatch(r"100 of 1,000 env steps, .* left, success now 25%, best so far 50%, .*", rest[0])
    assert rest[1:] == ["warning: beware", "it is over"]  # the other progress came within ten seconds


def test_quiet_shows_warnings_and_the_end_and_keeps_the_rest(tmp_path):
    shown, _ = on_a_terminal(tmp_path, quiet=True)
    assert shown == ["warning: beware", "it is over"]
    assert len(kept(tmp_path)) == 4


@pytest.mark.parametrize("quiet", [False, True])
def test_into_a_file_progress_is_a_line(tmp_path, monkeypatch, capsys, quiet):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    log = RunLog(tmp_path, "run", {"quiet": quiet})
    log.begin_progress(0, 1000)
    log.progress(100, None, None, {"tokens_in": 0, "tokens_out": 0, "cost": 0.0})
    log.progress(200, 0.25, 0.5, COST)
    log.say("two\nlines")
    log.close()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in kept(tmp_path)] == ["100 of 1", "two", "lines"]
    assert "success now not known yet, best so far not known yet" in kept(tmp_path)[0]
    assert printed == ([] if quiet else kept(tmp_path))
