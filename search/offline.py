"""Models without a service: the recording of an earlier run, and a person who puts answers into files."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from errors import UsageError
from search.protocol import BudgetSpent, Reply, Request, ServiceAway, Usage, text_of

POLL_INTERVAL = 0.25  # seconds between two looks at what is waited for

SETTLED = 1.0  # seconds for which a manual answer must have stayed the same to be complete

NEXT_ANSWER = "----- next answer -----"


class ReplayModel:
    """Gives what a run recorded, round by round, as it came: the same texts, the same failures, free of cost.

    Args:
        directory: a run directory, or any directory with an ``llm.jsonl``.

    Raises:
        UsageError: there is no recording, or it cannot be read.
    """

    def __init__(self, directory: str) -> None:
        self.name = f"replay:{directory}"
        self.usage = Usage()
        path = Path(directory) / "llm.jsonl"
        self._rounds: dict[int, list[dict[str, Any]]] = {}
        for row in _read_rows(path):
            self._rounds.setdefault(row["round"], []).append(row)

    def ask(self, request: Request) -> Reply:
        """The round's next recorded reply; ServiceAway when there are no more."""
        rows = self._rounds.get(request.round)
        if not rows:
            raise ServiceAway(f"the recording {self.name[7:]} has no more answers for search round {request.round}")
        row = rows.pop(0)
        if row.get("error"):
            kind = BudgetSpent if row["error"]["kind"] == "BudgetSpent" else ServiceAway
            raise kind(row["error"]["message"])
        texts = [text_of(text) for text in row["texts"]]
        return Reply(texts, row.get("parents", []), row.get("cut_off", []), row.get("notes", []))


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except OSError as error:
        raise UsageError(
            f"there is no recording {path} ({error.strerror}); expected a run directory, or one of recordings/"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text, and so no recording") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not _is_exchange(row):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise UsageError(f"{path}, line {number}: this is no recorded exchange with a model") from None
        rows.append(row)
    return rows


def _is_exchange(row: dict[str, Any]) -> bool:
    """Whether a row has what a replay gives. Raises LookupError, TypeError or AttributeError for some that have not."""
    texts, error = row["texts"], row.get("error")
    parents, cut_off, notes = row.get("parents", []), row.get("cut_off", []), row.get("notes", [])
    return (
        isinstance(row["round"], int)
        and all(isinstance(part, list) for part in (texts, parents, cut_off, notes, *parents))
        and all(isinstance(text, str) for text in (*texts, *notes))
        and all(isinstance(number, int) for numbers in (cut_off, *parents) for number in numbers)
        and len(parents) in (0, len(texts))
        and (error is None or (isinstance(error["kind"], str) and isinstance(error["message"], str)))
    )


class ManualModel:
    """Writes each prompt to a file and waits for the answer in a file beside it.

    The files are ``0001_prompt.txt`` and ``0001_answer.txt``, and so on; numbers that an earlier run used are skipped.
    An answer file may hold several answers, with the line `NEXT_ANSWER` between them.

    Args:
        directory: where the files lie; made if it is not there.
        log: takes one line that says which file is waited for.
    """

    def __init__(self, directory: str, log: Callable[[str], None]) -> None:
        if not directory:
            raise UsageError("--model manual: names no directory; give it as in --model manual:prompts_here")
        self.name = f"manual:{directory}"
        self.usage = Usage()
        self.directory = Path(directory)
        self.log = log

    def ask(self, request: Request) -> Reply:
        """What stands in the answer file; ServiceAway when it is not there by the deadline."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            used = [int(path.name[:4]) for path in self.directory.glob("[0-9][0-9][0-9][0-9]_*.txt")]
            stem = f"{max(used, default=0) + 1:04d}"
            prompt = self.directory / f"{stem}_prompt.txt"
            answer = self.directory / f"{stem}_answer.txt"
            prompt.write_text(_manual_prompt(request, answer.name), encoding="utf-8")
        except OSError as error:
            raise ServiceAway(f"no prompt can be written to {self.directory}: {error.strerror}") from None
        self.usage.add(calls=1)
        self.log(f"{prompt} waits for an answer in {answer.name}")
        seen, since = (0, 0), 0.0
        while not (why := request.out_of_time()):
            try:
                state = answer.stat()
                if (state.st_size, state.st_mtime_ns) != seen:  # whoever writes it may not be done yet
                    seen, since = (state.st_size, state.st_mtime_ns), time.monotonic()
                elif state.st_size and time.monotonic() - since >= SETTLED:
                    texts = answer.read_text(encoding="utf-8-sig", errors="replace").split(NEXT_ANSWER)
                    return Reply([text.strip() + "\n" for text in texts if text.strip()])
            except FileNotFoundError:
                pass
            except OSError as error:
                raise ServiceAway(f"{answer} cannot be read: {error.strerror}") from None
            time.sleep(min(POLL_INTERVAL, max(request.deadline - time.monotonic(), 0.0)))
        raise ServiceAway(f"no answer was in {answer} when {why}")


def _manual_prompt(request: Request, answer: str) -> str:
    head = (
        f"Give everything below the line to a language model, and put its answer into {answer} beside this file.\n"
        f"{request.count} independent answers are wanted; fewer will do. Between two answers put the line\n"
        f"{NEXT_ANSWER}\n{'_' * 80}\n"
    )
    if len(request.messages) == 2:  # what is said once, to begin with, reads best as one text
        return head + "\n" + "\n".join(message["content"] for message in request.messages)
    return head + "".join(f"\n[{message['role']}]\n\n{message['content']}" for message in request.messages)
