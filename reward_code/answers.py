"""Finds the code in a model's answer, however the answer is written."""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace

from reward_code import wrappings
from reward_code.fragments import functions_in, is_whole, with_helpers
from reward_code.normal_form import canonical
from reward_code.syntax import Code, Rejected, parse
from reward_code.wrappings import DEFINES

_REWARD = re.compile(r"^[ \t]*def[ \t]+compute_reward\b", re.MULTILINE)
_CODE_BEGINS = re.compile(r"[ \t]*(import |from \w|def |async def |class |@|[A-Za-z_]\w*\s*(:[^=]+)?= ?\S)")

_LONGEST_TEXT = 400_000
_MOST_TRIES = 40
_MOST_VERSIONS = 8  # of the function in one text; the last ones
_DEEPEST_WRAPPING = 4


def extract(text: str, known: Collection[str] = ()) -> Code:
    """Return the code in `text` that defines ``compute_reward``.

    It is the last complete function: one that is Python, returns something, and lacks no name. Fenced blocks take
    precedence over bare text, and what is in a thinking section counts only if nothing follows it. The functions and
    constants that it needs and lacks are taken from other blocks.

    Args:
        text: an answer, or a plain source.
        known: the :func:`~reward_code.normal_form.canonical` forms of functions that are passed over as long as there
            is another.

    Raises:
        Rejected: there is no such code, or it is not Python, or it is ambiguous which function counts.
    """
    if len(text) > _LONGEST_TEXT:
        raise Rejected("no-code", f"the answer has {len(text)} characters; it may have {_LONGEST_TEXT}")
    text = wrappings.without_markdown_escapes(wrappings.plain(text))
    if not text.strip():
        raise Rejected("no-code", "the answer is empty")
    reading = _Reading(known)
    passed_over: list[Code] = []
    for part in wrappings.behind_thinking(text):
        for code in _whole_ones_first(reading.codes(part)):
            if not known or canonical(code.tree) not in known:
                note = ("a function that is already known, after it",) if passed_over else ()
                return replace(code, unwrapped=(*code.unwrapped, *note))
            passed_over.append(code)
    if passed_over:
        return passed_over[0]
    raise reading.problem or _no_function(text)


def _whole_ones_first(codes: Iterator[Code]) -> Iterator[Code]:
    fragments = []
    for code in codes:
        if not is_whole(code):
            fragments.append(code)
        elif fragments:
            yield replace(code, unwrapped=(*code.unwrapped, "an incomplete function, after it"))
        else:
            yield code
    yield from fragments


class _Reading:
    """One answer as it is read; the first problem is remembered, in case nothing is found."""

    def __init__(self, known: Collection[str]) -> None:
        self.problem: Rejected | None = None
        self._known = known
        self._python: dict[str, Code | None] = {}  # what each block is, once it has been tried

    def codes(self, text: str, depth: int = 0) -> Iterator[Code]:
        """Yield each function in `text` by precedence: those of the last block first, those in bare text at the end."""
        blocks = wrappings.blocks(text, self._is_python)
        defining = [number for number, block in enumerate(blocks) if DEFINES.search(block)][-_MOST_VERSIONS:]
        for number in reversed(defining):
            others = [*blocks[:number][::-1], *blocks[number + 1 :]]
            for code in self._codes_in(blocks[number], depth, fenced=True):
                yield with_helpers(code, map(self._as_python, others))
        for number in defining:
            text = text.replace(blocks[number], "")
        if DEFINES.search(text):
            yield from self._codes_in(text, depth, fenced=False)

    def _codes_in(self, text: str, depth: int, fenced: bool) -> list[Code]:
        """Return the functions that `text` holds as it is, or else those of the first wrapping with a complete one."""
        found: list[Code] = []
        for codes in self._readings(text, depth, fenced):
            if any(map(is_whole, codes)):
                return codes
            found = found or codes
        return found

    def _readings(self, text: str, depth: int, fenced: bool) -> Iterator[list[Code]]:
        """Yield `text` read as code, as wrapped code, and as code between prose, the likeliest first."""
        as_it_is = not wrappings.has_entities(text)
        if as_it_is:
            yield self._functions_of_python(text) if fenced else self._functions_between_prose(text)
        if depth < _DEEPEST_WRAPPING:
            yield from self._unwrapped(text, depth, fenced)
        if as_it_is and fenced:
            yield self._functions_between_prose(text)

    def _unwrapped(self, text: str, depth: int, fenced: bool) -> Iterator[list[Code]]:
        if strings := wrappings.strings_in_json(text):
            yield self._only_one([code for string in strings for code in self._inside(string, "a JSON value", depth)])
        if fenced and any(map(DEFINES.search, wrappings.blocks(text, self._is_python))):
            yield self._inside(text, "Markdown within a block", depth)
        for inner, wrapping in wrappings.unwrapped(text):
            if inner != text:
                yield self._inside(inner, wrapping, depth)

    def _inside(self, text: str, wrapping: str, depth: int) -> list[Code]:
        codes = self.codes(wrappings.plain(text), depth + 1)
        return [replace(code, unwrapped=(wrapping, *code.unwrapped)) for code in codes]

    def _only_one(self, codes: list[Code]) -> list[Code]:
        """Return `codes` if all of them that are not known are the same. Raises Rejected."""
        forms = {canonical(code.tree) for code in codes if is_whole(code)}.difference(self._known)
        if len(forms) > 1:
            raise Rejected("no-code", f"the JSON holds {len(forms)} different functions compute_reward; give one")
        return codes

    def _is_python(self, block: str) -> bool:
        return self._as_python(block) is not None

    def _as_python(self, block: str) -> Code | None:
        """Return `block` in its first spelling that is Python."""
        if block not in self._python:
            self._python[block] = next(self._tried(wrappings.spellings(block)), None)
        return self._python[block]

    def _tried(self, spellings: Iterator[tuple[str, str]]) -> Iterator[Code]:
        tried = set()
        for spelling, note in spellings:
            source = spelling.strip("\n") + "\n"
            if source not in tried:
                tried.add(source)
                try:
                    yield Code(source, parse(source), (note,) if note else ())
                except Rejected as rejected:
                    if DEFINES.search(source):
                        self.problem = self.problem or rejected

    def _functions_of_python(self, block: str) -> list[Code]:
        code = self._as_python(block)
        return [*functions_in(code)] if code else []

    def _functions_between_prose(self, text: str) -> list[Code]:
        """Return the functions in a text without fences, the last one first."""
        lines = text.split("\n")
        places = [number for number, line in enumerate(lines) if _REWARD.match(line)]
        found: list[Code] = []
        for end in [None, *places[:0:-1]][:_MOST_VERSIONS] if places else []:
            for spelling, note in wrappings.characters("\n".join(lines[:end])):
                code = self._without_prose(spelling, note)
                if code is not None:
                    found += functions_in(code)
                    break
        return found

    def _without_prose(self, text: str, note: str) -> Code | None:
        """Return the last function and what is left around it once the lines at which parsing fails are cut off."""
        lines = text.split("\n")
        reward = max(number for number, line in enumerate(lines) if _REWARD.match(line))
        indent = lines[reward][: len(lines[reward]) - len(lines[reward].lstrip())]
        lines = [line.removeprefix(indent) for line in lines]
        begins = [number for number in range(reward) if _CODE_BEGINS.match(lines[number])]
        starts = [*begins[: _MOST_TRIES // 2], reward]
        end = len(lines)
        for _ in range(_MOST_TRIES):
            source = "\n".join(lines[starts[0] : end]).strip("\n") + "\n"
            try:
                return Code(source, parse(source), (note,) if note else ())
            except Rejected as rejected:
                self.problem = self.problem or rejected
                stumbled = starts[0] + (rejected.line or 1) - 1
            if stumbled > reward:  # in the prose after the code, or in the code itself, which is then given up
                behind = range(reward + 1, min(stumbled + 1, end))
                prose = [number for number in behind if re.match(r"[^\s)#]", lines[number])]
                if not prose:
                    return None
                end = prose[-1]
            elif len(starts) > 1:
                starts = [number for number in starts[1:] if number > stumbled] or [reward]
            else:
                return None
        return None


def _no_function(text: str) -> Rejected:
    if DEFINES.search(text):
        return Rejected(
            "no-code",
            "the answer names compute_reward, but no Python code with it can be read from it; "
            "put the code into one fenced block, outside of any JSON",
        )
    others = re.findall(r"^[ \t]*def[ \t]+(\w+)", text, re.MULTILINE)
    named = f"; it defines {', '.join(list(dict.fromkeys(others))[:3])}" if others else ""
    return Rejected("no-code", f"the answer has no function named compute_reward{named}")
