"""The charts of a report, as Plotly figures; the page, which may be dark, sets the colours of text and grid."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.curves import NAMES, Comparison, Group
from figures.lineage import Life
from runs.reading import Row, Run

COLOURS = ("#3d85c6", "#e08a1e", "#2a9d6f", "#c8589a", "#8c7ae6", "#a0672d", "#4fb0c6", "#d1495b", "#8a9a2b", "#7a8599")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_PATTERNS = ("", "/", "\\", "x", "-", "|", "+", ".")
_GREY = "#8a8f98"
_ROUND_LABELS = 15  # up to so many search rounds, each is labelled
_ROUND_WIDTH, _LANE_HEIGHT = 56, 42  # pixels of the family tree
_REJECTED_ABREAST = 4


def plain(text: object) -> str:
    """Return text escaped so that Plotly shows it as it is; it treats some HTML as markup."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def colour(number: int) -> str:
    """Return the colour of an agent or of a group."""
    return COLOURS[number % len(COLOURS)]


def curves(run: Run) -> dict[str, go.Figure]:
    """Return a figure of all agents for each quantity that evaluations measured, by its name."""
    measured = {name for row in run.evaluations for figures in row.get("agents", {}).values() for name in figures}
    return {name: _curve(run, name) for name in NAMES if name in measured}


def _curve(run: Run, name: str) -> go.Figure:
    figure = _figure(NAMES[name], run.rounds())
    for agent in run.agents:
        rows = _rows_of(run, agent, name)
        figure.add_scatter(
            x=[row["env_steps"] for row in rows],
            y=[row["agents"][str(agent)][name] for row in rows],
            name=run.agent_name(agent),
            mode="lines+markers",
            line=_line(agent),
            marker={"size": 5, "symbol": agent},
        )
    best = [row for row in run.evaluations if row.get("best", {}).get(name) is not None]
    figure.add_scatter(
        x=[row["env_steps"] for row in best],
        y=[row["best"][name] for row in best],
        name="best agent",
        mode="lines",
        line={"color": _GREY, "width": 9},
        opacity=0.35,
        hoverinfo="skip",
    )
    if name.endswith("success_rate"):
        figure.update_yaxes(range=[-0.04, 1.04], tickformat=".0%")
    return figure


def thompson(run: Run) -> go.Figure | None:
    """Return whose policies collected between evaluations, above the windows' content; None if it was not logged."""
    if not any("window_episodes" in figures for row in run.evaluations for figures in row.get("agents", {}).values()):
        return None
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.4, 0.6])
    for agent in run.agents:
        rows = _rows_of(run, agent, "window_episodes")
        arms = [row["agents"][str(agent)] for row in rows]
        totals = [0, *(arm["collected_episodes"] for arm in arms)]
        steps, shown = [row["env_steps"] for row in rows], run.agent_name(agent)
        figure.add_bar(
            x=steps,
            y=[after - before for before, after in pairwise(totals)],
            name=shown,
            legendgroup=shown,
            marker={"color": colour(agent), "pattern": {"shape": _PATTERNS[agent % len(_PATTERNS)], "solidity": 0.25}},
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=steps,
            y=[arm["thompson"] for arm in arms],
            name=shown,
            legendgroup=shown,
            showlegend=False,
            mode="lines+markers",
            line=_line(agent),
            marker={"size": 5, "symbol": agent},
            customdata=[[arm["window_successes"], arm["window_episodes"]] for arm in arms],
            hovertemplate="%{y:.0%}: %{customdata[0]} of %{customdata[1]} solved in the window",
            row=2,
            col=1,
        )
    _lay_out(figure, run.rounds(), height=520)
    figure.update_layout(barmode="stack", bargap=0.15)
    figure.update_yaxes(title_text="episodes collected", row=1, col=1)
    figure.update_yaxes(title_text="posterior mean", range=[-0.04, 1.04], tickformat=".0%", row=2, col=1)
    figure.update_xaxes(title_text="env steps", row=2, col=1)
    return figure


def tokens(spent: Sequence[Row]) -> go.Figure:
    """Return the tokens of each round, rows of `conversation.spent_by_round`, as bars."""
    figure = _figure("tokens", [])
    for number, (name, shown) in enumerate((("tokens_in", "tokens in"), ("tokens_out", "tokens out"))):
        figure.add_bar(
            x=[row["round"] for row in spent],
            y=[row[name] for row in spent],
            name=shown,
            marker={"color": colour(number), "pattern": {"shape": _PATTERNS[number], "solidity": 0.25}},
        )
    figure.update_layout(barmode="group", height=280)
    figure.update_xaxes(title_text="search round", dtick=1 if len(spent) <= _ROUND_LABELS else None)
    return figure


def places(family: Sequence[Life], slots: int) -> dict[int, tuple[float, float]]:
    """Return each function's place in the family tree: in its slot's lane, or below all lanes if it got none."""
    found: dict[int, tuple[float, float]] = {}
    rejected: dict[int, int] = {}
    for life in family:
        if life.slot is not None:
            found[life.id] = float(life.round), float(life.slot)
            continue
        number = rejected[life.round] = rejected.get(life.round, -1) + 1
        row, column = divmod(number, _REJECTED_ABREAST)
        found[life.id] = round(life.round + 0.18 * column, 3), slots + 0.1 + 0.5 * row
    return found


def family_tree(family: Sequence[Life], slots: int) -> go.Figure:
    """Return the functions over search rounds: lanes are slots, lines lead from parents to what was made of them.

    Traces with the meta "nodes" hold one point for each function, its id as customdata; "lineage" and "selection" are
    empty, for the page to fill.
    """
    at = places(family, slots)
    last = max((life.round for life in family), default=0) + 1
    taken, rest = [life for life in family if life.slot is not None], [life for life in family if life.slot is None]
    by_id = {life.id: life for life in family}
    figure = go.Figure()
    figure.add_scatter(**_segments([(_lane(life, last)) for life in taken], width=7, opacity=0.3), hoverinfo="skip")
    descents = [_descent(by_id[parent], life) for life in taken for parent in life.parents if parent in by_id]
    figure.add_scatter(**_segments(descents, width=1.5, opacity=0.9), hoverinfo="skip")
    figure.add_scatter(**_segments([], width=3.5, opacity=1), meta="lineage", hoverinfo="skip")
    elites = [(round, life.slot) for life in taken for round in life.elite]
    figure.add_scatter(
        x=[x for x, _ in elites],
        y=[y for _, y in elites],
        mode="markers",
        name="kept as an elite",
        marker={"symbol": "diamond", "size": 11, "color": "#e0b03c", "line": {"color": "#7a5c10", "width": 1}},
        hoverinfo="skip",
    )
    deaths = [life for life in taken if life.ended is not None]
    figure.add_scatter(
        x=[life.ended - 0.2 for life in deaths if life.ended is not None],
        y=[life.slot for life in deaths],
        mode="markers",
        name="replaced",
        marker={"symbol": "line-ns-open", "size": 13, "color": _GREY, "line": {"width": 2}},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[at[life.id][0] for life in taken],
        y=[at[life.id][1] for life in taken],
        mode="markers+text",
        name="in the population",
        meta="nodes",
        text=[str(life.id) for life in taken],
        textfont={"size": 11, "color": ["#ffffff" if (life.success_rate or 0) < 0.6 else "#111111" for life in taken]},
        marker={
            "size": 25,
            "color": [life.success_rate or 0.0 for life in taken],
            "cmin": 0,
            "cmax": 1,
            "colorscale": "Cividis",
            "line": {"color": _GREY, "width": 1},
            "colorbar": {"title": {"text": "best<br>success"}, "tickformat": ".0%", "thickness": 10, "len": 0.8},
        },
        customdata=[life.id for life in taken],
        hovertext=[_told(life) for life in taken],
        hoverinfo="text",
        showlegend=False,
    )
    figure.add_scatter(
        x=[at[life.id][0] for life in rest],
        y=[at[life.id][1] for life in rest],
        mode="markers",
        name="rejected or not needed",
        meta="nodes",
        marker={"symbol": "x", "size": 8, "color": _GREY},
        customdata=[life.id for life in rest],
        hovertext=[_told(life) for life in rest],
        hoverinfo="text",
    )
    figure.add_scatter(
        x=[], y=[], mode="markers+text", meta="selection", textposition="top center",
        hoverinfo="skip", showlegend=False,
        marker={"size": 32, "symbol": "circle-open", "line": {"width": 3}},
    )  # fmt: skip
    bottom = max([slots, *(y for _, y in at.values())]) + 0.5
    _lay_out(figure, [], height=int(130 + _LANE_HEIGHT * (bottom + 1)))
    lanes = sorted({life.slot for life in taken if life.slot is not None})
    figure.update_layout(dragmode=False, hovermode="closest", margin={"l": 56})
    figure.update_yaxes(
        range=[bottom, -0.8], fixedrange=True, tickvals=lanes, ticktext=[f"slot {slot}" for slot in lanes]
    )
    figure.update_xaxes(range=[-0.5, last - 0.1], fixedrange=True, title_text="search round", dtick=1, tick0=0)
    return figure


def tree_width(family: Sequence[Life]) -> int:
    """Return the least width of the tree in pixels."""
    return 190 + _ROUND_WIDTH * (1 + max((life.round for life in family), default=0))


def _told(life: Life) -> str:
    """Return what hovering over a function shows, in lines that fit a phone."""
    lines = [f"function {life.id}", *([f"from {', '.join(map(str, life.parents))}"] if life.parents else [])]
    if life.success_rate is not None:
        lines.append(f"success {life.success_rate:.0%} at best")
    fate = plain(life.fate)
    return "<br>".join([*lines, *(fate[start : start + 60] for start in range(0, min(len(fate), 240), 60))])


def _lane(life: Life, last: int) -> Row:
    end = last - 0.3 if life.ended is None else life.ended - 0.2
    return {"x": (life.round, end), "y": (life.slot, life.slot)}


def _descent(parent: Life, child: Life) -> Row:
    """Return the line from the parent's lane to the child; it leaves the lane where the previous round ended."""
    if parent.slot is None:
        return {"x": (parent.round, child.round), "y": (child.slot, child.slot)}
    end = child.round if parent.ended is None else min(parent.ended, child.round)
    return {"x": (max(parent.round, end - 0.6), child.round), "y": (parent.slot, child.slot)}


def _segments(lines: Iterable[Row], width: float, opacity: float) -> dict[str, Any]:
    """Return one trace of many separate lines."""
    x: list[Any] = []
    y: list[Any] = []
    for line in lines:
        x += [*line["x"], None]
        y += [*line["y"], None]
    return {
        "x": x,
        "y": y,
        "mode": "lines",
        "line": {"width": width, "color": _GREY},
        "opacity": opacity,
        "showlegend": False,
    }


def _rows_of(run: Run, agent: int, name: str) -> list[Row]:
    return [row for row in run.evaluations if row.get("agents", {}).get(str(agent), {}).get(name) is not None]


def _line(number: int) -> dict[str, Any]:
    return {"color": colour(number), "width": 2, "dash": _DASHES[number % len(_DASHES)]}


def _figure(title: str, rounds: Sequence[int]) -> go.Figure:
    figure = go.Figure()
    _lay_out(figure, rounds, height=400)
    figure.update_xaxes(title_text="env steps")
    figure.update_yaxes(title_text=title)
    return figure


def _lay_out(figure: go.Figure, rounds: Sequence[int], height: int) -> None:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 62, "r": 12, "t": 36, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="x unified",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        shapes=[_round_line(number, env_steps, len(rounds)) for number, env_steps in enumerate(rounds, 1)],
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)


def _round_line(number: int, env_steps: int, rounds: int) -> Row:
    """Return the line that marks a search round; they are set all at once, since Plotly is slow to add them singly."""
    line = {"color": _GREY, "width": 1, "dash": "dot"}
    shape = {"type": "line", "x0": env_steps, "x1": env_steps, "yref": "paper", "y0": 0, "y1": 1, "line": line}
    if rounds <= _ROUND_LABELS:
        shape["label"] = {"text": str(number), "textposition": "end", "textangle": 0, "font": {"size": 10}}
    return shape


def panels(comparison: Comparison) -> dict[str, go.Figure]:
    """Return a figure for each task, and for all together: runs as thin lines, their groups as in `figures.drawing`."""
    found = {}
    for panel in comparison.panels:
        figure = found[panel] = _figure(NAMES["success_rate"], [])
        for group in (group for group in comparison.groups if group.task == panel):
            _add_group(figure, group, comparison.labels.index(group.label))
        figure.update_layout(showlegend=True)
        figure.update_yaxes(range=[-0.04, 1.04], tickformat=".0%")
    return found


def _add_group(figure: go.Figure, group: Group, number: int) -> None:
    steps, mean, bounds = group.line()
    shared = {"legendgroup": group.label, "hoverinfo": "skip", "showlegend": False}
    for curve in group.curves if len(group.curves) > 1 else ():
        figure.add_scatter(
            x=curve.env_steps.tolist(), y=curve.values.tolist(), mode="lines", opacity=0.3,
            line={"color": colour(number), "width": 1}, **shared,
        )  # fmt: skip
    if bounds:
        low, high = (bound.tolist() for bound in bounds)
        figure.add_scatter(
            x=[*steps.tolist(), *steps[::-1].tolist()], y=[*high, *low[::-1]], fill="toself", mode="lines", opacity=0.2,
            line={"width": 0, "color": colour(number)}, **shared,
        )  # fmt: skip
    figure.add_scatter(
        x=steps.tolist(), y=mean.tolist(), name=plain(f"{group.label} ({len(group.curves)})"), legendgroup=group.label,
        mode="lines+markers", line=_line(number), marker={"size": 5, "symbol": number},
    )  # fmt: skip
