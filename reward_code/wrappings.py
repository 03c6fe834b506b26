"""What code comes wrapped in when a model has written it, and the text inside: fences, JSON, web pages, prompts, diffs.

Each function gives texts that may be the code, in the order in which they should be tried; Python's own parser decides
whether one is (`reward_code.answers`).
"""

import ast
import html
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

from reward_code.syntax import Rejected, parse

# What word processors and chat windows put in the place of plain characters.
_INVISIBLE = dict.fromkeys(
    map(ord, "\0\ufeff\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\u00ad")
)
_SPACES = dict.fromkeys(
    map(ord, "\u00a0\u1680\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"), " "
)
_QUOTES = str.maketrans({**dict.fromkeys("‘’‚‛′`´", "'"), **dict.fromkeys("“”„‟″«»", '"')})
_TYPOGRAPHIC = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("×∗⋅·", "*"),
        **dict.fromkeys("÷∕⁄", "/"),
        **dict.fromkeys("≤⩽≦", "<="),
        **dict.fromkeys("≥⩾≧", ">="),
        "\u2028": "\n",
        "→": "->",
        "≠": "!=",
        "…": "...",
    }
)
# Full-width, small and Chinese punctuation and digits, as ASCII.
_FULL_WIDTH = str.maketrans(
    {
        **{
            character: narrow
            for character in map(chr, [*range(0xFF01, 0xFF5F), *range(0xFE50, 0xFE6C)])
            if len(narrow := unicodedata.normalize("NFKC", character)) == 1
            and narrow.isascii()
            and not narrow.isalpha()
        },
        **{"、": ",", "。": ".", "【": "[", "】": "]", "〔": "[", "〕": "]"},
        **dict.fromkeys("「」『』", '"'),
    }
)

_FENCE = re.compile(r"(?P<indent>[ \t>]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)")
_THINKING = r"(?:think|thinking|thought|reasoning|analysis|scratchpad|reflection)"
_END_OF_THINKING = re.compile(
    rf"</\s*{_THINKING}\s*>|\[/\s*{_THINKING}\s*\]|◁/{_THINKING}▷|<\|end_of_{_THINKING}\|>|<\|/{_THINKING}\|>"
    r"|<\|channel\|>\s*final\s*<\|message\|>|</details>",
    re.I,
)
DEFINES = re.compile(r"def(?:[ \t]|&nbsp;|<[^<>\n]{0,100}>){1,20}compute_reward\b")
_ENTITY = re.compile(r"&(lt|gt|amp|quot|apos|nbsp|#\d{1,6}|#[xX][\da-fA-F]{1,5});")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,300}>|<!--|-->|<!\[CDATA\[|\]\]>")
_OF_STRUCTURE = re.compile(
    r"</?(html|head|body|main|article|section|div|p|pre|code|br|li|td|tr|answer|CDATA)\b[^<>\n]{0,300}>[ \t]*", re.I
)
_PROMPT = re.compile(r"^[ \t]*(>>>|>|In \[\d*\]:) ?", re.MULTILINE)
_ANY_PROMPT = re.compile(r"^[ \t]*(>>>|>|In \[\d*\]:|\.\.\.:?)( |$)")
_NUMBER = re.compile(r"^[ \t]*\d{1,3}(?:[ \t]?[|:.)])?[ \t]?")
_NUMBERED = re.compile(rf"{_NUMBER.pattern}def[ \t]+compute_reward\b", re.MULTILINE)
_MARKDOWN_ESCAPE = re.compile(r"\\([_*\[\]<>#~|()])")
_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|◁[^▷\n]{1,40}▷")
_ESCAPE = re.compile(r"""\\([nrt"'\\])""")
_MOST_TRIES = 20


def plain(text: str) -> str:
    """Return `text` with line ends and spaces that Python accepts, and without invisible characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u0085", "\n")
    return text.translate(_INVISIBLE).translate(_SPACES)


def without_markdown_escapes(text: str) -> str:
    """Return `text` without the backslashes that escape characters in Markdown, if the function's name has one."""
    return _MARKDOWN_ESCAPE.sub(r"\1", text) if r"compute\_reward" in text else text


def behind_thinking(text: str) -> list[str]:
    """Return what follows the last thinking section, and the whole text, which counts if nothing follows."""
    ends = list(_END_OF_THINKING.finditer(text))
    return [text[ends[-1].end() :], text] if ends else [text]


def blocks(text: str, is_python: Callable[[str], bool]) -> list[str]:
    """Return the contents of the fenced blocks, in order.

    A block that is never closed ends at the next, or with the text. A fence inside a string of the code ends nothing:
    where a block that defines the function is not Python up to the next fence, and is up to a later one, it ends there.
    """
    lines = text.split("\n")
    marks = [(number, mark) for number, line in enumerate(lines) if (mark := _fence(line))]
    found = []
    place = 0
    while place < len(marks):
        start, opening = marks[place]
        following = range(place + 1, len(marks))
        ends = (later for later in following if marks[later][1]["fence"].startswith(opening["fence"]))
        end = next(ends, len(marks))
        same_line = DEFINES.search(lines[start])  # of the fence and the code's first line
        first = [lines[start][same_line.start() :]] if same_line else []
        body = _body(first + lines[start + 1 : marks[end][0] if end < len(marks) else None], opening["indent"])
        if DEFINES.search(body) and not is_python(body):
            for later in itertools.islice(ends, _MOST_TRIES):
                longer = _body(first + lines[start + 1 : marks[later][0]], opening["indent"])
                if is_python(longer):
                    body, end = longer, later
                    break
        found.append(body)
        closes = end < len(marks) and not marks[end][1]["language"]
        place = end + 1 if closes else end
    return found


def _fence(line: str) -> re.Match[str] | None:
    mark = _FENCE.match(line)
    return mark if mark and "`" not in line[mark.end() :] else None


def _body(lines: list[str], indent: str) -> str:
    if ">" in indent:  # a quotation: every line begins with the mark
        lines = [re.sub(r"^[ \t]*>[ \t]?", "", line) for line in lines]
    return re.sub(r"(`{3,}|~{3,})\s*\Z", "", "\n".join(lines))  # a fence that closes after code on the same line


def spellings(code: str) -> Iterator[tuple[str, str]]:
    """Yield `code` as it is, without its indentation, and in plain characters; with each, what was done to it."""
    yield code, ""
    for layout in (code, code.expandtabs(4), code.expandtabs(8)):
        yield _dedented(layout), ""
    yield from ((_dedented(spelling), note) for spelling, note in characters(code) if note)


def characters(code: str) -> Iterator[tuple[str, str]]:
    """Yield `code` as it is, and with Python's characters in place of others that look or mean the same."""
    yield code, ""
    spaced = code.expandtabs(4)
    yield spaced, ""
    plain = spaced.translate(_TYPOGRAPHIC)  # but for quotation marks, which may stand in a string of the code
    yield plain, "typographic characters"
    yield plain.translate(_QUOTES), "typographic characters"
    yield plain.translate(_QUOTES).translate(_FULL_WIDTH), "full-width punctuation"


def _dedented(code: str) -> str:
    """Return `code` without the indentation of its first line; lines that are indented less stay as they are."""
    lines = code.strip("\n").split("\n")
    width = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[width:] if not line[:width].strip() else line for line in lines)


def unwrapped(text: str) -> Iterator[tuple[str, str]]:
    """Yield what `text` may be a wrapping of (fences and JSON aside), each with the name of the wrapping."""
    if _ENTITY.search(text) or _TAG.search(text):
        for page in _page(text):
            yield page, "a page of HTML or XML"
    if _TOKEN.search(text):
        yield _TOKEN.sub("\n", text), "special tokens"
    if re.search(r"`def[ \t]", text):
        yield text.replace("`", "\n"), "code between backticks"
    if _PROMPT.search(text):
        lines = text.split("\n")
        marked = [line for line in lines if _ANY_PROMPT.match(line)]
        for kept in (marked, lines):  # lines without a mark are output, or belong to a function with only one mark
            yield "\n".join(_ANY_PROMPT.sub("", line) for line in kept), "prompt marks"
    if _NUMBERED.search(text):
        yield "\n".join(_NUMBER.sub("", line) for line in text.split("\n")), "line numbers"
    if re.search(r"def[ \t]+compute_reward\b[^\n]*\\n", text):
        yield _without_escapes(text), "escaped line ends"
    if re.search(r"^\+[ \t]*def[ \t]+compute_reward\b|^@@|^[-+]{3} ", text, re.MULTILINE):
        yield from ((side, "the new side of a diff") for side in _new_sides(text))


def has_entities(text: str) -> bool:
    """Return whether `text` spells characters as HTML does, which means something else in Python."""
    return _ENTITY.search(text) is not None


def _without_escapes(text: str) -> str:
    text = text.strip()
    if text[:1] == text[-1:] and text[:1] in ("'", '"'):
        text = text[1:-1]
    return _ESCAPE.sub(lambda escape: {"n": "\n", "r": "", "t": "\t"}.get(escape[1], escape[1]), text)


def _page(text: str) -> Iterator[str]:
    """Yield the text of a page without the tags that structure it or that begin or end a line, then without any."""
    text = _OF_STRUCTURE.sub("\n", text)
    tags = f"(?:{_TAG.pattern}){{1,20}}"
    lines = [re.sub(rf"^(\s*){tags}|{tags}\s*$", r"\1", line) for line in text.split("\n")]
    for page in ("\n".join(lines), _TAG.sub("", text)):
        yield plain(html.unescape(page))


def _new_sides(text: str) -> Iterator[str]:
    """Yield the new text that the only hunk of a diff gives."""
    lines = text.split("\n")
    if sum(line.startswith("@@") for line in lines) <= 1:
        heads = ("@@", "---", "+++", "-", "diff ", "index ", "\\")
        yield "\n".join(line[1:] if line[:1] in ("+", " ") else line for line in lines if not line.startswith(heads))


def strings_in_json(text: str) -> list[str]:
    """Return the strings in the JSON values, or in the literals of Python, of `text` that define the function."""
    decoder = json.JSONDecoder(strict=False)  # models put unescaped line breaks into strings
    found: list[str] = []
    end = tries = 0
    for mark in re.finditer(r"""[\[{"]""", text):
        if mark.start() < end or (mark[0] == '"' and text[: mark.start()].strip()):
            continue
        tries += 1
        if tries > _MOST_TRIES:
            break
        try:
            value, end = decoder.raw_decode(text, mark.start())
            found += _strings(value)
        except (ValueError, RecursionError):
            continue
    return found or _python_strings(text)


def _python_strings(text: str) -> list[str]:
    """Return the strings that define the function in a Python literal, which may be surrounded by prose."""
    start, end = re.search(r"[\[{]", text), max(text.rfind("]"), text.rfind("}")) + 1
    for literal in (text, text[start.start() : end] if start else ""):
        try:
            strings = [node.value for node in ast.walk(parse(literal)) if isinstance(node, ast.Constant)]
        except Rejected:
            continue
        if found := [string for string in strings if isinstance(string, str) and DEFINES.search(string)]:
            return found
    return []


def _strings(value: Any) -> list[str]:
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        joined = "\n".join(part.rstrip("\n") for part in value)
        value = joined if len(list(DEFINES.finditer(joined))) == 1 else value  # else each is a function of its own
    if isinstance(value, str):
        return [value] if DEFINES.search(value) else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [string for part in parts for string in _strings(part)]
