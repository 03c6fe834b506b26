"""What tidying may change: how code looks, and never what it computes."""

import ast
import textwrap

import pytest

from task_specs import TASKS, get_task
from tasks.tidy_source import LINE_LENGTH, parse, tidy, to_source

CONSTANTS = ("goal", "obj")


def tidied(body):
    function = parse("def f(goal, obj):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ")).body[0]
    function.body, read = tidy(function.body, CONSTANTS)
    printed = "\n".join(to_source([function]).splitlines()[1:])
    return textwrap.dedent(printed).strip(), read


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = goal\nreturn x + obj", "return goal + obj"),
        ("x = goal.copy()\nreturn x + obj", "return goal + obj"),
        # A copy that is changed is no second name.
        ("x = goal.copy()\nx[0] = 1\nreturn x", "x = goal.copy()\nx[0] = 1\nreturn x"),
        ("x = goal\nif obj:\n    x = 1\nreturn x", "x = goal\nif obj:\n    x = 1\nreturn x"),
        ("x = obj - goal\nx = abs(x)\nreturn x + x", "x = abs(obj - goal)\nreturn x + x"),
        ("x = f(obj)\nx = x * x\nreturn x + x", "x = f(obj)\nx = x * x\nreturn x + x"),
        ("x = 1\ny = 2\nreturn x + obj", "x = 1\nreturn x + obj"),
        ("x = 1\nx += obj\ny = x\nreturn obj", "return obj"),
        ("x = 1\nx += obj\nreturn x", "x = 1\nx += obj\nreturn x"),
        ("x = 1\nif obj:\n    x = 2\nreturn x", "x = 1\nif obj:\n    x = 2\nreturn x"),
        ("x = 0\nif obj:\n    y = 2\nreturn x + 1", "x = 0\nreturn x + 1"),
        ("if True and False:\n    x = 1\nelse:\n    x = 2\nreturn x + x", "x = 2\nreturn x + x"),
        (
            "if obj and True:\n    x = 1\nelse:\n    x = 2\nreturn x + x",
            "if obj:\n    x = 1\nelse:\n    x = 2\nreturn x + x",
        ),
        ("x = 1\nif obj:\n    y = 2\nelse:\n    x = 2\nreturn x + x", "x = 1\nif not obj:\n    x = 2\nreturn x + x"),
        ("a, b = f(obj)\nreturn a", "a, b = f(obj)\nreturn a"),
    ],
)
def test_keeps_what_matters(before, after):
    assert tidied(before)[0] == after


def test_tells_what_is_read_from_outside():
    assert tidied("x = goal * scale\nreturn x + bias")[1] == {"goal", "scale", "bias"}


def test_comments_go_with_their_statement():
    body = """
        # MARK: Section----------

        # about x, which goes
        x = goal
        # about y
        y = f(x)  # behind y
        # y = 2

        # about nothing

        # about the return
        return y + y
    """
    assert tidied(body)[0] == (
        "# Section\n# about y\n# behind y\ny = f(goal)\n\n# about nothing\n\n# about the return\nreturn y + y"
    )


@pytest.mark.parametrize("name", TASKS)
def test_breaking_lines_changes_nothing(name):
    tree = ast.parse(get_task(name).human_reward.source)
    printed = to_source(tree.body)
    assert ast.dump(ast.parse(printed)) == ast.dump(tree)
    assert max(map(len, printed.splitlines())) <= LINE_LENGTH
