"""The code in a model's answer, however the answer is written."""

import ast
import re
from collections.abc import Iterator

from reward_code.check import Rejected, parse

_FENCE = re.compile(r"(?P<indent>[ \t>]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)")
_END_OF_THINKING = re.compile(r"</\s*(think|thinking|thought|reasoning|analysis|scratchpad|reflection)\s*>", re.I)
_CODE_BEGINS = re.compile(r"[ \t]*(import |from \w|def |async def |@|[A-Za-z_]\w*\s*(:[^=]+)?= ?\S)")
_REWARD = re.compile(r"^[ \t]*def[ \t]+compute_reward\b", re.MULTILINE)

# What word processors and chat windows put in the place of plain characters.
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060\u00ad"))
_SPACES = dict.fromkeys(
    map(ord, "\u00a0\u1680\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"), " "
)
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′`´", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—―−﹣－", "-"),
        **dict.fromkeys("×∗⋅·", "*"),
        **dict.fromkeys("÷∕⁄", "/"),
        "\u2028": "\n",
        "≤": "<=",
        "≥": ">=",
        "≠": "!=",
        "…": "...",
    }
)

_LONGEST_TEXT = 400_000
_MOST_TRIES = 40


def extract(text: str) -> str:
    """The code in `text` that defines ``compute_reward``, with plain characters and line ends.

    In this order: the last fenced block that defines the function and is Python, with the helpers that it needs from
    the other blocks; the bare text. What stands in a thinking section counts only if nothing stands behind it.

    Raises:
        Rejected: there is no such code, or it is not Python.
    """
    if len(text) > _LONGEST_TEXT:
        raise Rejected("no-code", f"the answer has {len(text)} characters; it may have {_LONGEST_TEXT}")
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_INVISIBLE).translate(_SPACES)
    if not text.strip():
        raise Rejected("no-code", "the answer is empty")
    thought = list(_END_OF_THINKING.finditer(text))
    parts = [text[thought[-1].end() :], text] if thought else [text]
    problem: Rejected | None = None
    for part in parts:
        blocks = list(_blocks(part))
        for number in reversed(range(len(blocks))):
            if _REWARD.search(blocks[number]):
                try:
                    return _with_helpers(_python(blocks[number]), blocks, number)
                except Rejected as rejected:
                    problem = problem or rejected
        if _REWARD.search(part) and not any(_REWARD.search(block) for block in blocks):
            try:
                return _bare(part)
            except Rejected as rejected:
                problem = problem or rejected
    raise problem or _no_function(text)


def _blocks(text: str) -> Iterator[str]:
    """The contents of the fenced blocks, in order. One that is never closed ends at the next, or with the text."""
    fence, indent, lines = "", "", []
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if not (mark and mark["fence"].startswith(fence) and "`" not in line[mark.end() :]):
            lines.append(line)
            continue
        if fence:
            yield _body(lines, indent)
        closes = fence and not mark["language"]
        fence, indent, lines = "" if closes else mark["fence"], mark["indent"], []
    if fence:
        yield _body(lines, indent)


def _body(lines: list[str], indent: str) -> str:
    if ">" in indent:  # a quotation: every line begins with the mark
        lines = [re.sub(r"^[ \t]*>[ \t]?", "", line) for line in lines]
    return "\n".join(lines)


def _python(code: str) -> str:
    """`code` in the first spelling of it that is Python; raises Rejected with what is wrong with the first."""
    problem: Rejected | None = None
    spaced = [code.expandtabs(4), code.expandtabs(8)]
    for spelling in dict.fromkeys([code, *map(_dedented, [code, *spaced, spaced[0].translate(_PLAIN)])]):
        try:
            parse(spelling)
            return spelling.strip("\n") + "\n"
        except Rejected as rejected:
            problem = problem or rejected
    assert problem is not None
    raise problem


def _dedented(code: str) -> str:
    """Without the indentation of the first line, where the later lines have at least that or nothing."""
    lines = code.strip("\n").split("\n")
    width = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[width:] if not line[:width].strip() else line for line in lines)


def _with_helpers(code: str, blocks: list[str], place: int) -> str:
    """`code`, the block at `place`, behind those of the others that define what it or they use and do not define.

    Of two that define the same, the nearest before it counts, then the first behind it.
    """
    helpers: dict[int, str] = {}
    providers: dict[str, int] = {}
    for number in [*range(place)[::-1], *range(place + 1, len(blocks))]:
        try:
            helper = _python(blocks[number])
            defined = _defined(parse(helper))
        except Rejected:
            continue
        if "compute_reward" not in defined:
            helpers[number] = helper
            for name in defined:
                providers.setdefault(name, number)
    chosen: set[int] = set()
    needed = _undefined(code)
    while needed:
        number = providers.get(needed.pop(), place)
        if number not in {place, *chosen}:
            chosen.add(number)
            needed |= _undefined(helpers[number])
    return "\n\n".join([*(helpers[number] for number in sorted(chosen)), code])


def _defined(tree: ast.Module) -> set[str]:
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names.update(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
    return names


def _undefined(code: str) -> set[str]:
    used: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(parse(code)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef):
            bound.add(node.name)
    return used - bound


def _bare(text: str) -> str:
    """The code in a text without fences: what is left when the lines at which Python stumbles are cut off."""
    problem: Rejected | None = None
    for spelling in dict.fromkeys([text, text.expandtabs(4), text.expandtabs(4).translate(_PLAIN)]):
        lines = spelling.split("\n")
        reward = max(number for number, line in enumerate(lines) if _REWARD.match(line))
        indent = lines[reward][: len(lines[reward]) - len(lines[reward].lstrip())]
        lines = [line.removeprefix(indent) for line in lines]
        starts = [
            *[number for number in range(reward) if _CODE_BEGINS.match(lines[number])][: _MOST_TRIES // 2],
            reward,
        ]
        end = len(lines)
        for _ in range(_MOST_TRIES):
            code = "\n".join(lines[starts[0] : end])
            try:
                parse(code)
                return code.strip("\n") + "\n"
            except Rejected as rejected:
                problem = problem or rejected
                stumbled = starts[0] + (rejected.line or 1) - 1
            if stumbled > reward:  # in the prose behind the code, or in the code itself, which is then given up
                prose = [
                    number
                    for number in range(reward + 1, min(stumbled + 1, end))
                    if re.match(r"[^\s)#]", lines[number])
                ]
                if not prose:
                    break
                end = prose[-1]
            elif len(starts) > 1:
                starts = [number for number in starts[1:] if number > stumbled] or [reward]
            else:
                break
    assert problem is not None
    raise problem


def _no_function(text: str) -> Rejected:
    others = re.findall(r"^[ \t]*def[ \t]+(\w+)", text, re.MULTILINE)
    named = f"; it defines {', '.join(list(dict.fromkeys(others))[:3])}" if others else ""
    return Rejected("no-code", f"the answer has no function named compute_reward{named}")
