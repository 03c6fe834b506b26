"""Flags as fields of a dataclass, and the parser that is built from them.

The help and the range of a flag are next to its default, once. A flag may be written with either of ``-`` and ``_``
and with one dash or two, so that ``-damp``, ``--damp``, ``--action_repeat`` and ``--action-repeat`` all work.
"""

import argparse
import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

from errors import nearest

HELP_WIDTH = 112
T = TypeVar("T")
Converter = Callable[[str], Any]


@dataclass(frozen=True)
class Flag:
    """What a field says about its flag besides name and default."""

    help: str
    values: Converter | None
    unit: str
    heading: str
    shorthands: Mapping[str, Any]


def flag(
    default: T,
    help: str,
    values: Converter | None = None,
    *,
    unit: str = "",
    heading: str = "",
    shorthands: Mapping[str, T] = MappingProxyType({}),
) -> T:
    """Return a dataclass field that is a flag.

    Args:
        default: the value when the flag is not given.
        help: what ``--help`` says.
        values: converts the text after the flag, or raises argparse.ArgumentTypeError. Without it, the field's type is
            a Literal with the choices, or bool for a flag without a value.
        unit: what the value counts, shown in the help.
        heading: the title of the help group that begins with this flag.
        shorthands: additional flags, without a value, with the value that each sets.
    """
    return field(default=default, metadata={"flag": Flag(help, values, unit, heading, shorthands)})


def flags_of(table: type) -> dict[str, tuple[Field[Any], Flag]]:
    """Return the fields of the dataclass `table` that are flags, by name."""
    return {row.name: (row, row.metadata["flag"]) for row in fields(table) if "flag" in row.metadata}


# --- what may follow a flag -------------------------------------------------------------------------------------------


def whole(low: int, high: float = math.inf) -> Converter:
    """Return a converter to an integer in [low, high]; it accepts 1000000, 1_000_000 and 1e6 alike."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            number = _number(text)
            value = int(number) if number.is_integer() else low - 1
        if low <= value <= high:
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {_range(low, high)}")

    return convert


def real(low: float, high: float = math.inf, *, above: bool = False) -> Converter:
    """Return a converter to a finite float in [low, high], or with `above` in (low, high]."""

    def convert(text: str) -> float:
        value = _number(text)
        if low <= value <= high and math.isfinite(value) and not (above and value == low):
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {_range(low, high, above)}")

    return convert


def name(text: str) -> str:
    """Convert text that must not be empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it must not be empty")
    return text


def path(text: str) -> str:
    """Convert the name of a file or directory; whether it exists is checked where it is read."""
    return name(text)


def file(text: str) -> str:
    """Convert the name of a file to an absolute path, since it must be found again from another directory."""
    return os.path.abspath(name(text))


def directory_name(text: str) -> str:
    """Convert the plain name of one directory, which must not contain a path."""
    if text in {"", ".", ".."} or re.search(r"[/\\\0]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain name; --log-dir sets the directory that holds it")
    return text


def json_object(text: str) -> dict[str, Any]:
    """Convert a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object, such as '{{\"top_p\": 0.9}}'")
    return value


def success_rule(text: str) -> str | int:
    """Convert the rule for when an episode counts as solved: "any", "last", or a number of decisions."""
    if text in {"any", "last"}:
        return text
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not any, last, or a whole number of at least 1")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _range(low: float, high: float, above: bool = False) -> str:
    if low == -math.inf:
        return "that is finite"
    if high == math.inf:
        return f"above {low:g}" if above else f"of at least {low:g}"
    return f"above {low:g} and up to {high:g}" if above else f"from {low:g} to {high:g}"


# --- the parser -------------------------------------------------------------------------------------------------------


class FlagParser(argparse.ArgumentParser):
    """Parses command lines into the values of the flags of `table`.

    On a usage error, it prints one line and exits with status 2.

    Args:
        table: the dataclass whose fields are flags.
        prog: the program's name in messages.
        description: what the program does.
        epilog: what the help says below the flags, shown verbatim.
        hyphenated: the flags shown with hyphens; the others are shown with underscores.
        ignored: flags that are accepted without effect, with what to use instead.
    """

    def __init__(
        self,
        table: type,
        prog: str,
        description: str,
        epilog: str,
        hyphenated: Sequence[str],
        ignored: Mapping[str, str],
    ) -> None:
        super().__init__(
            prog=prog,
            usage="%(prog)s [--flag value ...]",
            description=description,
            epilog=epilog,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=32, width=HELP_WIDTH
            ),
            allow_abbrev=False,
        )
        shown = {_plain(word): f"--{word}" for word in hyphenated}
        group: Any = self
        self._ignored = ignored
        self._takes_value = dict.fromkeys(ignored, False)  # by flag as the help shows it; ignored ones need none
        for row, meaning in flags_of(table).values():
            group = self.add_argument_group(meaning.heading) if meaning.heading else group
            spelling = shown.get(_plain(row.name), f"--{row.name}")
            self._takes_value[spelling] = row.type is not bool
            group.add_argument(spelling, dest=row.name, **_value(row, meaning), help=_help(row, meaning))
            for word, value in meaning.shorthands.items():
                self._takes_value[word] = False
                constant = {"action": "store_const", "const": value, "default": argparse.SUPPRESS}
                group.add_argument(word, dest=row.name, **constant, help=f"the same as {spelling} {value}")
        group = self.add_argument_group("accepted for compatibility, without effect")
        for word, instead in ignored.items():
            group.add_argument(word, nargs="?", action=_Ignore, default=argparse.SUPPRESS, metavar="X", help=instead)
        self.set_defaults(ignored_flags=())

    def spell(self, words: Sequence[str]) -> list[str]:
        """Return the words with every flag as the help shows it, and joined by ``=`` to its value if it takes one.

        An unknown flag ends the program.
        """
        known = {_plain(flag): flag for flag in ("-h", "--help", *self._takes_value)}
        spelled: list[str] = []
        for word in words:
            flag, equals, value = word.partition("=")
            if flag.startswith("-") and math.isnan(_number(word)):
                if _plain(flag) not in known:
                    suggested = [flag for flag in ("--help", *self._takes_value) if flag not in self._ignored]
                    self.error(f"there is no flag {flag}{nearest(flag, suggested)}")
                spelled.append(known[_plain(flag)] + equals + value)
            elif spelled and self._takes_value.get(spelled[-1]):
                spelled[-1] += f"={word}"
            else:
                spelled.append(word)
        return spelled

    def values(self, words: Sequence[str]) -> dict[str, Any]:
        """Return every flag's value by the name of its field, and ``ignored_flags``, those given without effect."""
        found, rest = self.parse_known_args(words)
        if rest:
            self.error(f"{rest[0]!r} follows no flag; put each value after its flag, as in --seed 1 or --seed=1")
        return vars(found)

    def error(self, message: str) -> NoReturn:
        """Print the message as one line and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def wrapped(text: str) -> list[str]:
    """Return the text as indented lines, no wider than the help, for an epilog."""
    return textwrap.wrap(
        text, HELP_WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
    )


class _Ignore(argparse.Action):
    """Accepts a value or none, and records only that the flag was given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        namespace.ignored_flags = (*namespace.ignored_flags, option)


def _plain(flag: str) -> str:
    return flag.lstrip("-").replace("_", "-")


def _value(row: Field[Any], meaning: Flag) -> dict[str, Any]:
    if row.type is bool:
        return {"action": "store_true"}
    if get_origin(row.type) is Literal:
        choices = get_args(row.type)
        return {"default": row.default, "type": type(choices[0]), "choices": choices}
    placeholders: dict[Any, str] = {int: "N", float: "X", float | None: "X", success_rule: "RULE"}
    placeholders |= {path: "PATH", file: "PATH", json_object: "JSON"}
    placeholder = placeholders.get(row.type) or placeholders.get(meaning.values, "NAME")
    return {"default": row.default, "type": meaning.values, "metavar": placeholder}


def _help(row: Field[Any], meaning: Flag) -> str:
    if row.default is None:
        default = "not set"
    elif row.type is bool:
        default = "off"
    else:
        default = f"{row.default:g}" if isinstance(row.default, float) else str(row.default)
    return f"{meaning.help} ({meaning.unit and meaning.unit + '; '}default: {default})".replace("%", "%%")
