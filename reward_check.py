"""From a model's answer to the source of a reward function that is worth trying."""

import ast
import re
from collections.abc import Mapping
from typing import Any

from errors import nearest


class Rejected(Exception):
    """A candidate that cannot be used.

    Attributes:
        kind: a short word to count by.
        reason: one line for the log and for the model.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def extract(text: str) -> str:
    """The code in `text` that defines ``compute_reward``. Raises Rejected."""
    text = text.replace("\r\n", "\n")
    blocks = re.findall(r"```[^\n]*\n(.*?)```", text, re.DOTALL) or [text]
    for block in reversed(blocks):
        if "def compute_reward" in block:
            return block
    raise Rejected("no-code", "the answer has no function named compute_reward")


def check_source(source: str, inputs: Mapping[str, Any]) -> str:
    """The cleaned `source`. Raises Rejected."""
    source = re.sub(r"^\s*(import|from) .*$", "", source, flags=re.MULTILINE)
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise Rejected("syntax", str(error)) from None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "compute_reward":
            for argument in node.args.args:
                if argument.arg not in inputs:
                    raise Rejected("signature", f"no variable {argument.arg}{nearest(argument.arg, inputs)}")
            return source
    raise Rejected("no-code", "the answer has no function named compute_reward")
