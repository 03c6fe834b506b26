"""The report of one run: its result, how it got there, and what was tried on the way."""

from typing import Any

from figures import charts, code, conversation, page
from figures.curves import NAMES
from figures.film import Film
from figures.lineage import Life, lives
from runs.reading import Row, Run
from runs.wording import duration


def report(run: Run, film: Film) -> str:
    """Return the report of a run as a page."""
    family = lives(run)
    spent = conversation.spent_by_round(run)
    slots = int(run.flags.get("pop_size", 1))
    figures = {
        "thompson": charts.thompson(run),
        "tree": charts.family_tree(family, slots) if family else None,
        "tokens": charts.tokens(spent) if any(row["tokens_in"] + row["tokens_out"] for row in spent) else None,
    }
    curves = charts.curves(run)
    at = charts.places(family, slots)
    data = {
        "charts": {name: page.chart(figure) for name, figure in figures.items() if figure is not None},
        "curves": {name: page.chart(figure) for name, figure in curves.items()},
        "functions": [_function(run, life, at[life.id]) for life in family],
        "shown": _first_shown(run, family),
    }
    return page.render(
        "run.html",
        {
            "run": run,
            "headline": _headline(run),
            "facts": _facts(run, family, spent),
            "film": film,
            "video": page.embedded(film.path) if film.path else None,
            "curves": {name: NAMES[name] for name in curves},
            "charts": data["charts"],
            "family": family,
            "tree_width": charts.tree_width(family),
            "in_population": [life for life in family if life.slot is not None],
            "rounds": conversation.by_round(run, family),
            "spent": spent,
            "flags": _flags(run),
            "data": data,
        },
    )


def _headline(run: Run) -> str:
    summary = run.summary
    if summary.get("final_success_rate") is not None:
        low, high = summary["final_success_interval"]
        episodes = summary.get("protocol", {}).get("episodes")
        return (
            f"{summary['final_success_rate']:.0%} final success (95% interval {low:.0%} to {high:.0%}) "
            f"over {episodes} fresh episodes"
        )
    if not run.evaluations:
        return "no policy has been evaluated yet"
    last = run.evaluations[-1]
    now, so_far = last["best"]["success_rate"], last.get("best_so_far")  # which older runs did not write
    best = "" if so_far is None else f", best so far {so_far:.0%}"
    return f"{now:.0%} success now{best}; the final one is still to come"


def _facts(run: Run, family: list[Life], spent: list[Row]) -> list[tuple[str, str]]:
    """Return the figures below the headline, each with its label."""
    wall_time = run.summary.get("wall_time") or (run.evaluations[-1]["wall_time"] if run.evaluations else 0)
    accepted = sum(life.slot is not None for life in family)
    facts = [
        (f"{run.env_steps:,} of {int(run.flags['total_timesteps']):,}", "env steps"),
        (duration(wall_time), run.status),
        (str(len(run.rounds())), "search rounds"),
        (f"{accepted} of {len(family)}", "reward functions taken"),
        (f"{sum(row['tokens_in'] + row['tokens_out'] for row in spent):,}", "tokens"),
    ]
    if cost := sum(row["cost"] for row in spent):
        facts.append((f"{cost:.2f}", "cost, at the given prices"))
    chosen = run.summary.get("chosen_agent")
    if chosen is not None:
        function = run.summary.get("chosen_function")
        source = "the human reward" if function is None else f"function {function}"
        facts.append((source, f"taught the chosen policy, {run.agent_name(chosen)}"))
    return facts


def _function(run: Run, life: Life, place: tuple[float, float]) -> dict[str, Any]:
    """Return what the page's script shows about a selected function."""
    row = life.row
    taken = life.slot is not None
    origin = "the human reward" if run.flags.get("setting") == "with_init" else "the task alone"
    facts = {
        "from": ", ".join(f"function {parent}" for parent in life.parents) or origin,
        "fate": life.fate,
        "success, by round": ", ".join(
            f"{int(round)}: {scores['success_rate']:.0%}" for round, scores in row.get("scores", {}).items()
        ),
        "order": "" if row.get("order") is None else f"{row['order']:.0%} of solved episodes above every unsolved one",
        "scale": f"{row['scale']:.4g} · reward {'−' if row['shift'] < 0 else '+'} {abs(row['shift']):.4g}"
        if taken
        else "",
        "runs as": ("machine code" if row.get("compiled") else "interpreted Python") if taken else "",
    }
    return {
        "id": life.id,
        "label": _label(life),
        "round": life.round,
        "parents": life.parents,
        "at": place,
        "facts": [(name, text) for name, text in facts.items() if text],
        "lines": code.lines((row.get("source") or "").rstrip("\n")),
        "components": row.get("components") or {},
    }


def _label(life: Life) -> str:
    rate = "" if life.success_rate is None else f", {life.success_rate:.0%}"
    return f"{life.id}: round {life.round}, " + ("rejected" if life.slot is None else f"slot {life.slot}{rate}")


def _first_shown(run: Run, family: list[Life]) -> list[int]:
    """Return the two functions that the page shows at first: the best one with a parent, and that parent."""
    ids = {life.id for life in family}
    taken = [life for life in family if life.slot is not None]
    chosen = run.summary.get("chosen_function")
    order = sorted(taken, key=lambda life: (life.id == chosen, life.success_rate or 0, life.id), reverse=True)
    for life in order:
        if parents := [parent for parent in life.parents if parent in ids]:
            return [parents[0], life.id]
    return [life.id for life in order[:2]] if len(order) > 1 else [life.id for life in family[:1]] * 2


def _flags(run: Run) -> list[tuple[str, Any, bool]]:
    """Return the flags: name, value, and whether it differs from the default."""
    from arguments import Arguments

    defaults = vars(Arguments(run.flags.get("setting", "from_scratch")))
    return [(name, value, value != defaults.get(name, value)) for name, value in sorted(run.flags.items())]
