"""A user's task file: run with the modules next to it, from any directory and whatever they are called.

A module next to the file may have the name of one of ours (``models.py``, a folder ``tasks``), which are in use by
then. So the modules of such a directory are loaded into a package of their own, and `import` looks in that package
first, in their code only.
"""

import builtins
import functools
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import machinery
from importlib.machinery import ModuleSpec as Spec
from pathlib import Path
from types import ModuleType
from typing import Any

from errors import FAILURES, UsageError, one_line

_ROOT = Path(__file__).resolve().parents[1]

_directories: dict[str, Path] = {}  # by the names of the packages that stand for them


@functools.cache
def load_task_file(path: str) -> Mapping[str, Any]:
    """Run a Python file; return its ``TASKS``.

    Raises:
        UsageError: it cannot be run, or has no such dict.
    """
    try:
        own = getattr(_run(Path(path).resolve()), "TASKS", None)
    except FAILURES as error:
        raise UsageError(f"the task file {path} cannot be run: {one_line(error)}") from error
    if not isinstance(own, dict) or not all(isinstance(name, str) for name in own):
        raise UsageError(f"the task file {path} defines no dict TASKS from a task's name to its entry")
    return own


def _run(path: Path) -> ModuleType:
    name = f"{_package(path.parent)}.{path.stem.replace('.', '_')}"
    loader = _Loader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _package(directory: Path) -> str:
    """Return the name of the package that stands for a directory."""
    known = next((name for name, beside in _directories.items() if beside == directory), None)
    if known:
        return known
    name = f"_beside_{len(_directories)}"
    _directories[name] = directory
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(directory)]
    return name


class _Loader(machinery.SourceFileLoader):
    """Runs a module in such a directory."""

    def get_code(self, fullname: str) -> Any:
        """Return the compiled source; never bytecode from an earlier run, which could be stale."""
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        """Run it, with its `import` bound to its own directory."""
        package = module.__name__.partition(".")[0]
        if package not in _directories:  # it was imported by its name in a string
            package = next(name for name, beside in _directories.items() if Path(self.path).is_relative_to(beside))
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": functools.partial(_import, package)}
        super().exec_module(module)


class _InPackages:
    """Finds the modules of the packages that stand for directories; asked first."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Spec | None:
        """Return where a module is, None for all others; see `importlib.abc.MetaPathFinder`."""
        return _find(fullname, path) if path and fullname.partition(".")[0] in _directories else None


class _ByName:
    """Finds what is imported by its name in a string, such as a registered environment's entry point; asked last."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Spec | None:
        """Return where a module is, None for all others; see `importlib.abc.MetaPathFinder`."""
        return None if path else _find(fullname, map(str, _directories.values()))


sys.meta_path.insert(0, _InPackages)
sys.meta_path.append(_ByName)


def _find(name: str, directories: Iterable[str]) -> Spec | None:
    loaders = (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES), (_Loader, machinery.SOURCE_SUFFIXES)
    specs = (machinery.FileFinder(directory, *loaders).find_spec(name) for directory in directories)
    return next((spec for spec in specs if spec is not None), None)


def _import(
    package: str, name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] = (), level: int = 0
) -> ModuleType:
    """What `import` calls in the modules of `package`, in place of ``__import__``."""
    top = name.partition(".")[0]
    if level == 0 and _is_beside(_directories[package], top):
        module = builtins.__import__(f"{package}.{name}", globals, locals, fromlist)
        return module if fromlist else sys.modules[f"{package}.{top}"]
    return builtins.__import__(name, globals, locals, fromlist, level)


def _is_beside(directory: Path, name: str) -> bool:
    """Return whether `name` is a module in `directory`; a bare folder is one unless a real module has its name."""
    if directory == _ROOT:
        return False
    spec = _find(name, [str(directory)])
    if spec is None or spec.loader is not None:
        return spec is not None
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() not in (_ROOT, directory)]
    other = machinery.PathFinder.find_spec(name, elsewhere)
    return other is None or other.loader is None
