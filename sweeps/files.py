"""The sweep's own JSON files: written whole, and read even where there is none."""

import json
from pathlib import Path
from typing import Any


def write(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one where there is no file or something else in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
