"""Self-contained pages: what a run's report and a comparison have in common.

A page may load nothing and run only its own two scripts: its content security policy names their hashes. All text goes
through Jinja2's escaping, and data for the scripts is in JSON blocks that no text can break out of.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from plotly.offline import get_plotlyjs

from figures.code import style_sheet

_TEMPLATES = Path(__file__).parent / "templates"
_MEDIA = {".mp4": "video/mp4", ".gif": "image/gif"}


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return the page that a template makes from `context`."""
    scripts = [get_plotlyjs(), (_TEMPLATES / "report.js").read_text(encoding="utf-8")]
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    page = _environment().get_template(template)
    return page.render(
        **context,
        scripts=scripts,
        policy=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; media-src data:",
        styles=[(_TEMPLATES / "report.css").read_text(encoding="utf-8"), style_sheet()],
    )


def chart(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as plain data, arrays as lists."""
    shown: dict[str, Any] = figure.to_plotly_json()
    return {"data": shown["data"], "layout": shown["layout"]}


def embedded(path: Path) -> dict[str, str]:
    """Return a video for embedding in a page: its media type and a data URL."""
    media = _MEDIA[path.suffix]
    return {"type": media, "url": f"data:{media};base64,{base64.b64encode(path.read_bytes()).decode()}"}


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "number": _number, "count": _count}
    return environment


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _share(value: Any) -> str:
    return f"{value:.0%}" if isinstance(value, int | float) else "–"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–"


def _count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else "–"
