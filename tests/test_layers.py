"""Imports run downward: what each part of the project may know of the others."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("search", "reward_code", "tasks", "workers", "runs", "figures", "sweeps")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
}
ENTRY_SCRIPTS = {"lares_from_scratch", "lares_with_init"}
LEARNING = {"lares", "roster", "population", "learners", "sac", "models", "replay_buffer", "thompson"}


def exported(room: str) -> set[str]:
    """What the face of a room hands out."""
    tree = ast.parse(FILES[room].read_text(encoding="utf-8")) if room in ROOMS else ast.Module([], [])
    return {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def exported_modules(face: ast.Module) -> set[str]:
    """The modules of a room from which its face hands out names."""
    modules = {node.module or "" for node in ast.walk(face) if isinstance(node, ast.ImportFrom)}
    return {module.split(".")[1] for module in modules if "." in module}


def imported(module: str) -> set[str]:
    """The project's modules that a module imports, within functions too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                part = f"{node.module}.{alias.name}"
                found.add(part if part in FILES and alias.name not in exported(node.module) else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in FILES} - {module}


def rooms_of(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


def test_no_circles():
    list(TopologicalSorter({module: imported(module) for module in FILES}).static_order())


def test_only_the_entry_scripts_run_the_loop():
    for module in FILES:
        assert not imported(module) & ENTRY_SCRIPTS
        if "lares" in imported(module):
            assert module in ENTRY_SCRIPTS


@pytest.mark.parametrize(
    ("part", "may_know"),
    [
        ("models", set()),
        ("sac", {"models"}),
        ("reward_utils", {"errors"}),
        ("workers", {"errors", "tasks", "task_specs"}),
        ("tasks", {"errors", "task_specs"}),
        ("reward_code", {"errors", "reward_utils", "workers", "tasks", "task_specs"}),
        ("search", {"errors", "arguments", "reward_code", "tasks", "task_specs"}),
        ("figures", {"errors", "arguments", "runs"}),
        ("sweeps", {"errors", "arguments", "runs", "figures", "search", "tasks", "task_specs", "workers"}),
    ],
)
def test_parts_know_only_what_lies_below_them(part, may_know):
    for module in FILES:
        if module.split(".")[0] == part:
            assert rooms_of(imported(module)) <= may_know | {part}, module


def test_the_rooms_know_nothing_of_the_loop():
    for module in FILES:
        if module.split(".")[0] in ROOMS and not module.startswith("runs."):
            assert not imported(module) & LEARNING, module


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_names_what_others_use(room):
    face = ast.parse(FILES[room].read_text(encoding="utf-8"))
    words = set(re.findall(r"\w+", ast.get_docstring(face) or "")) | exported_modules(face)
    for module in FILES:
        if module.split(".")[0] != room:
            used = {name.split(".")[1] for name in imported(module) if name.startswith(f"{room}.")}
            assert used <= words, f"{module} uses what the face of {room} does not name: {used - words}"


def test_the_root_shows_the_algorithm():
    assert len(list(ROOT.glob("*.py"))) <= 18
    for module, path in FILES.items():
        lines = path.read_text(encoding="utf-8").count("\n")
        assert lines <= 400 or module == "task_specs", f"{module} has {lines} lines"
