"""Source code as a page shows it: lines of highlighted tokens, which can be compared for differences."""

from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES

Line = list[tuple[str, str]]
"""The tokens of a line: (class of the highlighting, text)."""

_LIGHT, _DARK = "default", "github-dark"


def lines(source: str) -> list[Line]:
    """Return the tokens of each line of Python source."""
    found: list[Line] = [[]]
    for kind, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(source):
        for number, piece in enumerate(text.split("\n")):
            if number:
                found.append([])
            if piece:
                found[-1].append((_class(kind), piece))
    return found


def style_sheet() -> str:
    """Return the colours of the classes, for light pages and for dark ones."""
    light = HtmlFormatter(style=_LIGHT).get_style_defs(".code")
    dark = HtmlFormatter(style=_DARK).get_style_defs(".code")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"


def _class(kind: object) -> str:
    """Return the short name of a kind of token, or of its nearest ancestor that has one."""
    while kind not in STANDARD_TYPES:
        kind = kind.parent  # type: ignore[attr-defined]
    return STANDARD_TYPES[kind]
