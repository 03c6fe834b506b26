"""A comparison as files: the figure, and its tables next to it."""

from collections.abc import Sequence
from pathlib import Path

from errors import UsageError
from figures import tables
from figures.curves import Comparison, compare, curve_of, protocol_of, read_published
from figures.drawing import draw
from runs.reading import Run


def compare_runs(
    runs: Sequence[Run], out: Path, metric: str = "success_rate", by: Sequence[str] = (), anchors: Path | None = None
) -> tuple[list[Path], str, list[Run]]:
    """Compare runs, grouped by the flags `by` and with the published curves in `anchors`, as the figure `out`.

    Returns:
        What was written, the tables as Markdown, and the runs that are left out because they were never evaluated.

    Raises:
        UsageError: no run was evaluated yet, or the output would overwrite `anchors`.
    """
    if anchors and anchors.resolve() in {path.resolve() for path in (out, *_tables(out))}:
        raise UsageError(f"--out {out} would overwrite {anchors}; give --out another name")
    found = [(run, curve_of(run, metric, by)) for run in runs]
    curves = [curve for _, curve in found if curve]
    if not curves:
        raise UsageError("there is nothing to draw yet: a run has a curve from its first evaluation on")
    published = []
    if anchors:
        tasks, until = {curve.task for curve in curves}, max(curve.env_steps[-1] for curve in curves)
        published = read_published(anchors, tasks, until)
    written, text = write(compare(curves, published), out, metric, protocol_of(runs))
    return written, text, [run for run, curve in found if curve is None]


def write(comparison: Comparison, out: Path, metric: str, remark: str = "") -> tuple[list[Path], str]:
    """Write the figure `out` and its tables as Markdown and CSV; return what was written, and the Markdown."""
    results = tables.results(comparison, success=metric.endswith("success_rate"))
    improvements = tables.improvements(comparison)
    text = "\n\n".join(tables.markdown(rows) for rows in (results, improvements) if rows)
    contents = [text + "\n", tables.comma_separated(results)]
    if improvements:
        contents.append(tables.comma_separated(improvements))
    files = dict(zip(_tables(out), contents, strict=False))
    # The same bytes each time: no dates or random names inside.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(out.suffix)
    draw(comparison, metric, remark).savefig(out, dpi=150, metadata=metadata)
    for path, content in files.items():
        path.write_text(content, encoding="utf-8")
    return [out, *files], text


def _tables(out: Path) -> list[Path]:
    """Return the paths of a figure's tables: as Markdown, as CSV, and the improvements as CSV."""
    return [out.with_suffix(".md"), out.with_suffix(".csv"), out.with_name(f"{out.stem}-improvement.csv")]
