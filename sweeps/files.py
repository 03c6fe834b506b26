"""The sweep's own JSON files: written atomically, and read as empty where there is none."""

import json
from pathlib import Path
from typing import Any


def write(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one if there is no file or something else in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
