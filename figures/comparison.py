"""Several runs compared: curves, results, and the flags in which they differ."""

from collections.abc import Sequence
from typing import Any

from figures import charts, conversation, page, tables
from figures.curves import compare, curve_of, protocol_of
from runs.reading import Run
from runs.wording import duration

_NAMES_OF_RUNS = {"exp_name", "log_dir", "resume"}  # flags that say where a run is, not what it is


def comparison(runs: Sequence[Run]) -> str:
    """Return a page that compares runs."""
    found = compare([curve for run in runs if (curve := curve_of(run, "success_rate"))])
    figures = charts.panels(found)
    names = [run.name for run in runs]
    return page.render(
        "comparison.html",
        {
            "runs": runs,
            "summaries": [_summary(run) for run in runs],
            "panels": {f"panel{number}": name for number, name in enumerate(figures)},
            "tables": [rows for rows in (tables.results(found), tables.improvements(found)) if rows],
            "cell": tables.cell,
            "protocol": protocol_of(runs),
            "names": names,
            "flags": differing_flags(runs),
            "data": {
                "charts": {f"panel{number}": page.chart(figure) for number, figure in enumerate(figures.values())}
            },
        },
    )


def differing_flags(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the flags that are not the same in all runs, each with its value in every run."""
    names = sorted({name for run in runs for name in run.flags} - _NAMES_OF_RUNS)
    values = {name: [run.flags.get(name) for run in runs] for name in names}
    return {name: given for name, given in values.items() if any(value != given[0] for value in given)}


def _summary(run: Run) -> dict[str, str]:
    """Return a run's line in the table of runs."""
    low, high = run.summary.get("final_success_interval") or (None, None)
    final, last = run.summary.get("final_success_rate"), run.evaluations[-1] if run.evaluations else {}
    spent = conversation.spent_by_round(run)
    return {
        "task": run.task,
        "setting": str(run.flags["setting"]).replace("_", " "),
        "model": str(run.flags["model"]),
        "seed": str(run.flags["seed"]),
        "status": run.status,
        "env steps": f"{run.env_steps:,}",
        "final success": "–" if final is None else f"{final:.0%} ({low:.0%} to {high:.0%})",
        "last evaluation": f"{last['best']['success_rate']:.0%}" if last else "–",
        "time": duration(run.summary.get("wall_time") or last.get("wall_time", 0)),
        "tokens": f"{sum(row['tokens_in'] + row['tokens_out'] for row in spent):,}",
        "cost": f"{sum(row['cost'] for row in spent):.2f}",
    }
