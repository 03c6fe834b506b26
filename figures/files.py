"""A comparison as files: the figure, and its tables beside it."""

from pathlib import Path

from figures import tables
from figures.curves import Comparison
from figures.drawing import draw


def write(comparison: Comparison, out: Path, metric: str, remark: str = "") -> tuple[list[Path], str]:
    """Write the figure `out` and its tables as Markdown and CSV; return what was written, and the Markdown."""
    results = tables.results(comparison, success=metric.endswith("success_rate"))
    improvements = tables.improvements(comparison)
    text = "\n\n".join(tables.markdown(rows) for rows in (results, improvements) if rows)
    files = {out.with_suffix(".md"): text + "\n", out.with_suffix(".csv"): tables.comma_separated(results)}
    if improvements:
        files[out.with_name(f"{out.stem}-improvement.csv")] = tables.comma_separated(improvements)
    # The same bytes each time: neither a date nor random names within.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(out.suffix)
    draw(comparison, metric, remark).savefig(out, dpi=150, metadata=metadata)
    for path, content in files.items():
        path.write_text(content, encoding="utf-8")
    return [out, *files], text
