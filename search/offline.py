"""Models without a service: the recording of an earlier run, and a person who puts answers into files."""

import codecs
import contextlib
import difflib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from errors import WARNING, UsageError, plain_line
from search.protocol import LanguageModel, Reply, Request, ServiceAway, Usage, recorded_reply

POLL_INTERVAL = 0.25  # seconds between two checks for an answer

SETTLED = 1.0  # seconds that a manual answer must stay unchanged to count as complete

QUIET = 60.0  # seconds after the last answer file until the run goes on with fewer than wanted

NEXT_ANSWER = "----- next answer -----"

_FUNCTION = re.compile(r"^\s*def compute_reward\b", re.MULTILINE)

# A rule or a heading, such as people put between two answers, and models inside one.
_MAYBE_SEPARATOR = re.compile(r"[-=_*~#\u2010-\u2015\s]{3,}|\W*answer\W*\d+\W*", re.IGNORECASE)


class ReplayModel(LanguageModel):
    """Replays what a run recorded, round by round: the same texts, the same failures, at no cost.

    Args:
        directory: a run directory, or any directory with an ``llm.jsonl``.
        about: what the recording must be of, by the fields of its rows; rows without these fields are accepted.

    Raises:
        UsageError: there is no recording, it cannot be read, or it is of something else.
    """

    def __init__(self, directory: str, about: Mapping[str, str] | None = None) -> None:
        self.name = f"replay:{directory}"
        self.usage = Usage()
        path = Path(directory) / "llm.jsonl"
        self._rounds: dict[int, list[dict[str, Any]]] = {}
        self._given: dict[int, int] = {}
        for row in _read_rows(path):
            for name, expected in (about or {}).items():
                if expected and row.get(name, expected) != expected:
                    raise UsageError(
                        f"{path} was recorded for {name} {plain_line(str(row[name]))}, this run is for "
                        f"{expected}; give --model replay-any:{directory} if that is meant"
                    )
            self._rounds.setdefault(row["round"], []).append(row)

    def ask(self, request: Request) -> Reply:
        """Return the round's next recorded reply; ServiceAway when there are no more."""
        rows, given = self._rounds.get(request.round, []), self._given.get(request.round, 0)
        if given >= len(rows):
            raise ServiceAway(f"the recording {self.name[7:]} has no more answers for search round {request.round}")
        row = rows[given]
        self._given[request.round] = given + 1
        return recorded_reply(row)

    def state_dict(self) -> dict[str, Any]:
        """Return how many replies of each round were given."""
        return {"given": [[round, given] for round, given in self._given.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the replies that were given."""
        self._given = dict(state["given"])


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except OSError as error:
        raise UsageError(
            f"there is no recording {path} ({error.strerror}); expected a run directory, or one of recordings/"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text, and so not a recording") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not _is_exchange(row):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise UsageError(f"{path}, line {number}: this is not a recorded exchange with a model") from None
        rows.append(row)
    return rows


def _is_exchange(row: dict[str, Any]) -> bool:
    """Whether a row has what a replay needs. Raises LookupError, TypeError or AttributeError for some that do not."""
    texts, error = row["texts"], row.get("error")
    parents, notes = row.get("parents", []), row.get("notes", [])
    places = [row.get("cut_off", []), row.get("refused", [])]
    return (
        isinstance(row["round"], int)
        and all(isinstance(part, list) for part in (texts, parents, notes, *places, *parents))
        and all(isinstance(text, str) for text in (*texts, *notes))
        and all(isinstance(number, int) for numbers in (*places, *parents) for number in numbers)
        and len(parents) in (0, len(texts))
        and (error is None or (isinstance(error["kind"], str) and isinstance(error["message"], str)))
    )


class ManualModel(LanguageModel):
    """Writes each prompt to a file and waits for the answers in files beside it.

    The prompt is ``0001_prompt.txt``, and so on; numbers that an earlier run used are skipped. Answers go together into
    ``0001_answer.txt``, with the line `NEXT_ANSWER` between them, or into files of their own, ``0001_answer_1.txt`` and
    so on. What became of them is written to ``0001_verdict.txt``.

    Args:
        directory: where the files are; created if it does not exist.
    """

    costs = True

    def __init__(self, directory: str) -> None:
        if not directory:
            raise UsageError("--model manual: names no directory; give it as in --model manual:prompts_here")
        self.name = f"manual:{directory}"
        self.usage = Usage()
        self.directory = Path(directory)
        self._number = 0  # of the last prompt
        self._resumed = False
        self._places: list[str] = []  # of the last answers: the file, and the number in it if it has several

    def ask(self, request: Request) -> Reply:
        """Return what is in the answer files; ServiceAway when there is nothing by the deadline."""
        try:
            stem = self._write_prompt(request)
        except OSError as error:
            raise ServiceAway(f"no prompt can be written to {self.directory}: {error.strerror}") from None
        self.usage.add(calls=1)
        request.log(
            f"{self.directory / stem}_prompt.txt waits until {_clock(request)} for {request.count} answers, in "
            f"{stem}_answer.txt or one each in {stem}_answer_1.txt and so on"
        )
        answers = _AnswerFiles(self.directory, stem, request)
        while not (why := request.out_of_time()):
            if answers.complete():
                break
            time.sleep(min(POLL_INTERVAL, max(request.deadline - time.monotonic(), 0.0)))
        texts = [(place, text) for path in answers.settled() for place, text in answers.texts(path)]
        if not texts:
            raise ServiceAway(f"no answer was in {self.directory / stem}_answer.txt when {why}")
        self._places = [place for place, _ in texts]
        return Reply([text for _, text in texts])

    def told(self, outcomes: Sequence[tuple[str, str]]) -> None:
        """Write what became of the last answers beside the prompt, unless they came from before the run was resumed."""
        if not self._places:
            return
        lines = [
            f"{place}: {kind}{': ' if reason else ''}{plain_line(reason)}\n"
            for place, (kind, reason) in zip(self._places, outcomes, strict=False)
        ]
        self._places = []
        with contextlib.suppress(OSError):  # the log has it all
            (self.directory / f"{self._number:04d}_verdict.txt").write_text("".join(lines), encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the last prompt that was answered or given up."""
        return {"number": self._number}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the prompt that was open when the run ended, with the answers that have come since."""
        self._number, self._resumed = state["number"], True

    def _write_prompt(self, request: Request) -> str:
        """Write the next prompt, and return the prefix of its files' names."""
        self.directory.mkdir(parents=True, exist_ok=True)
        conversation = _conversation(request)
        number, reopened = self._number + 1, self.directory / f"{self._number + 1:04d}_prompt.txt"
        if not (self._resumed and reopened.exists() and reopened.read_text("utf-8").endswith(conversation)):
            used = [int(path.name[:4]) for path in self.directory.glob("[0-9][0-9][0-9][0-9]_*.txt")]
            number = max(used, default=0) + 1
        self._number, self._resumed = number, False
        stem = f"{number:04d}"
        head = (
            "Give everything below the line to a language model, and put its answers beside this file before\n"
            f"{_clock(request)}, when the run goes on without them. {request.count} independent answers are wanted;\n"
            f"fewer will do. Either all of them go into {stem}_answer.txt, with this line between two answers\n"
            f"{NEXT_ANSWER}\n"
            f"or each goes into a file of its own, {stem}_answer_1.txt, {stem}_answer_2.txt and so on; of fewer than\n"
            f"{request.count} of these, the run takes what is there {QUIET:.0f} s after the last one. What became of "
            f"them will\nstand in {stem}_verdict.txt.\n{'_' * 80}\n"
        )
        (self.directory / f"{stem}_prompt.txt").write_text(head + conversation, encoding="utf-8")
        return stem


class _AnswerFiles:
    """The files in which the answers to one prompt appear, and what is in them."""

    def __init__(self, directory: Path, stem: str, request: Request) -> None:
        self.directory = directory
        self.stem = stem
        self.request = request
        self._seen: dict[Path, tuple[tuple[int, int], float]] = {}  # size and mtime, and since when they are so
        self._said: set[tuple[Path, tuple[int, int]]] = set()
        self._said_count = 0

    def complete(self) -> bool:
        """Look at the files, and return whether there is nothing left to wait for."""
        now = time.monotonic()
        for path in self.directory.glob(f"{self.stem}_answer*.txt"):
            try:
                state = path.stat().st_size, path.stat().st_mtime_ns
            except OSError:  # it has just been removed
                continue
            if path not in self._seen or self._seen[path][0] != state:  # whoever writes it may not be done yet
                self._seen[path] = state, now
        settled = self.settled()
        found = {path: self.texts(path) for path in settled}
        for path, texts in found.items():
            if not texts:
                self._say_empty(path)
        if len(settled) < len(self._seen) or not any(found.values()):
            return False
        if any(texts and self._place(path) == 0 for path, texts in found.items()):
            return True
        count = sum(map(len, found.values()))
        quiet = now - max(since for _, since in self._seen.values())
        if count < self.request.count and count != self._said_count:
            self._said_count = count
            self.request.log(
                f"{count} of {self.request.count} answers to {self.stem}_prompt.txt are there; the run goes on with "
                f"them in {QUIET:.0f} s, unless more come"
            )
        return count >= self.request.count or quiet >= QUIET

    def settled(self) -> list[Path]:
        """Return the files that nobody seems to be writing any more, in the order of their numbers."""
        now = time.monotonic()
        return sorted((path for path, (_, since) in self._seen.items() if now - since >= SETTLED), key=self._place)

    def texts(self, path: Path) -> list[tuple[str, str]]:
        """Return the answers in a file, each after its place."""
        try:
            answers = split_answers(_decoded(path.read_bytes()))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ServiceAway(f"{path} cannot be read: {error.strerror}") from None
        if len(answers) == 1:
            return [(path.name, answers[0])]
        return [(f"{path.name}, answer {number}", answer) for number, answer in enumerate(answers, 1)]

    def _place(self, path: Path) -> int:
        """The number in a file's name; 0 for the one that holds all answers."""
        return int("".join(re.findall(r"\d", path.name[len(self.stem) :])) or 0)

    def _say_empty(self, path: Path) -> None:
        key = path, self._seen[path][0]
        if key not in self._said:
            self._said.add(key)
            self.request.log(
                f"{WARNING}{path} holds no answer; the run still waits for one, until {_clock(self.request)}"
            )


def split_answers(text: str) -> list[str]:
    """Return the answers in a text, which the line `NEXT_ANSWER` separates, or what somebody typed for it.

    A rule without words, or a heading like "answer 2", separates two answers only where there is a whole function on
    either side, since answers have rules and headings of their own.
    """
    answers = []
    for _, section in _split_at(text, _is_separator):
        whole = ""
        for line, part in _split_at(section, _MAYBE_SEPARATOR.fullmatch):
            if _FUNCTION.search(whole) and _FUNCTION.search(part):
                answers.append(whole)
                whole = part
            else:
                whole += line + part
        answers.append(whole)
    return [answer.strip() + "\n" for answer in answers if re.search(r"\w", answer)]


def _split_at(text: str, parts: Callable[[str], object]) -> Iterator[tuple[str, str]]:
    """The stretches of a text between the lines for which `parts` holds, each with the line before it."""
    before, stretch = "", ""
    for line in text.splitlines(keepends=True):
        if parts(line.strip()):
            yield before, stretch
            before, stretch = line, ""
        else:
            stretch += line
    yield before, stretch


def _is_separator(line: str) -> bool:
    """Whether a line is `NEXT_ANSWER`, or so much like it that nothing else can be meant."""
    words = re.sub(r"[^a-z]", "", line.lower())
    typed = difflib.SequenceMatcher(None, words, "nextanswer").ratio() >= 0.8
    return typed and len(line) <= 2 * len(NEXT_ANSWER) and bool(re.match(r"[^\w\s]|next\W*answer\W*$", line, re.I))


def _decoded(content: bytes) -> str:
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as some editors save it
    return content.decode("utf-16" if utf_16 else "utf-8-sig", "replace")


def _clock(request: Request) -> str:
    """The deadline as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + request.deadline - time.monotonic()))


def _conversation(request: Request) -> str:
    if len(request.messages) == 2:  # an opening reads best as one text
        return "\n" + "\n".join(message["content"] for message in request.messages)
    return "".join(f"\n[{message['role']}]\n\n{message['content']}" for message in request.messages)
