"""report.py as it is used: on a real run, in a real browser."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from figures.comparison import comparison
from figures.film import Film, film_of
from figures.report import report
from runs.reading import read_run

ROOT = Path(__file__).parents[2]
HOSTILE = (
    "</script><script>window.hacked = 1; alert('hacked')</script><img src=x onerror=\"window.hacked = 1\">'\"<b>&amp;"
)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_page(out, run, film=None):
    out.write_text(report(run, film or Film(None, "no video")), encoding="utf-8")
    return out


def copy_run(run, to, without=()):
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("tensorboard", "checkpoint", *without))
    return to


@pytest.fixture(scope="module")
def page_file(finished_run, tmp_path_factory):
    """What the command writes."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    command = [sys.executable, str(ROOT / "report.py"), str(finished_run), "--no-video", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=out.parent)
    assert (done.returncode, done.stdout) == (0, f"the report is in {out}\n"), done.stderr
    return out


@pytest.fixture(scope="module")
def opened(open_page, page_file):
    return open_page(page_file)


@pytest.fixture
def functions(finished_run):
    return json.loads((finished_run / "population.json").read_text())


def test_nothing_leaves_the_page_and_nothing_goes_wrong(opened, page_file, finished_run):
    assert opened.troubles == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert opened.page.inner_text("h1") == "drawer-close"
    summary = json.loads((finished_run / "summary.json").read_text())
    assert f"{summary['final_success_rate']:.0%} final success" in opened.page.inner_text(".headline")


def test_the_tree_has_a_node_for_each_function(opened, functions):
    assert sorted(opened.ids()) == [row["id"] for row in functions]
    drawn = opened.page.evaluate(
        """document.getElementById("tree").calcdata.filter((t) => t[0].trace.meta === "nodes")
            .map((t) => t[0].node3.selectAll("path.point").size()).reduce((a, b) => a + b)"""
    )
    assert drawn == len(functions)


def test_clicking_two_functions_shows_what_changed(opened, functions):
    child = next(row for row in functions if row["slot"] is not None and row["parents"])
    parent = functions[child["parents"][0]]
    for row in (parent, child):
        opened.hover(row["id"])
        opened.page.mouse.click(*opened.place(row["id"]))
    assert opened.page.input_value("#before") == str(parent["id"])
    assert opened.page.input_value("#after") == str(child["id"])
    lines = opened.page.eval_on_selector_all(
        "#code > div", "all => all.map((line) => [line.className, line.textContent])"
    )
    for skipped, row in (("in", parent), ("out", child)):
        assert "\n".join(text[2:] for kind, text in lines if kind != skipped) == row["source"].rstrip()
    assert {kind for kind, _ in lines} >= {"in", "out"}
    assert opened.page.locator("#code mark").count() > 0

    cells = opened.page.eval_on_selector_all(
        "#components tbody tr", "all => all.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert {name for name, *_ in cells} == parent["components"].keys() | child["components"].keys()
    for name, before, _, after, *_ in cells:
        for shown, row in ((before, parent), (after, child)):
            if name in row["components"]:
                assert float(shown) == pytest.approx(row["components"][name][0], rel=6e-3)
            else:
                assert shown == ""


def test_functions_are_chosen_by_keyboard(opened, functions):
    opened.page.focus("#after")
    opened.page.keyboard.press("Home")
    opened.page.keyboard.press("ArrowDown")
    assert opened.page.input_value("#after") == "1"
    assert "function 1:" in opened.page.inner_text("#facts-after")
    opened.page.focus("#swap")
    opened.page.keyboard.press("Enter")
    assert opened.page.input_value("#before") == "1"
    opened.page.focus(f"#scales [data-pick='{functions[0]['id']}']")
    opened.page.keyboard.press("Space")
    assert "function 0:" in opened.page.inner_text("#facts-after")
    child = next(row for row in functions if row["parents"])
    opened.page.select_option("#after", str(child["id"]))
    opened.page.click("#parent")
    assert opened.page.input_value("#before") == str(child["parents"][0])


def test_curves_end_where_metrics_end(opened, finished_run):
    last = rows(finished_run / "metrics.jsonl")[-1]
    for quantity in ("env_return", "temperature", "success_rate"):
        opened.page.select_option("#quantity", quantity)
        traces = opened.page.evaluate(
            "document.getElementById('curves').data.map((t) => [t.name, t.x.at(-1), t.y.at(-1)])"
        )
        expected = {f"agent {agent}": figures[quantity] for agent, figures in last["agents"].items()}
        expected["best agent"] = last["best"][quantity]
        assert {name: y for name, _, y in traces} == expected
        assert {x for _, x, _ in traces} == {last["env_steps"]}


def test_a_phone_and_the_dark_show_all_of_it(opened, open_page, page_file):
    phone = open_page(page_file, width=390, color_scheme="dark", has_touch=True)
    phone.page.eval_on_selector_all("details", "all => all.forEach((each) => { each.open = true; })")
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.troubles == []
    ink = [
        shown.page.evaluate(
            "[getComputedStyle(document.body).color, document.getElementById('curves').layout.font.color]"
        )
        for shown in (opened, phone)
    ]
    assert ink[0][0] != ink[1][0]
    assert ink[0][1] != ink[1][1]


def test_text_of_others_stays_text(open_page, finished_run, tmp_path):
    directory = copy_run(finished_run, tmp_path / 'it\'s "<i>quoted</i>" & more')
    functions = json.loads((directory / "population.json").read_text())
    for row in functions:
        row["source"] = f"# {HOSTILE}\n{row['source']}"
        row["components"] = {HOSTILE: [1.0, 0.0, 2.0], **row["components"]}
        if row["slot"] is None:
            row["kind"], row["reason"] = HOSTILE, HOSTILE
    (directory / "population.json").write_text(json.dumps(functions))
    exchanges = rows(directory / "llm.jsonl")
    for row in exchanges:
        row["texts"] = [HOSTILE + text for text in row["texts"]]
        row["notes"], row["error"] = [HOSTILE], {"kind": "ServiceAway", "message": HOSTILE}
        row["messages"][0]["content"] += HOSTILE
    (directory / "llm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in exchanges))
    config = json.loads((directory / "config.json").read_text())
    config["flags"]["model"] = HOSTILE
    (directory / "config.json").write_text(json.dumps(config))

    shown = open_page(write_page(tmp_path / "one.html", read_run(directory)))
    shown.page.eval_on_selector_all("details", "all => all.forEach((each) => { each.open = true; })")
    assert directory.name in shown.page.inner_text("header .path")
    assert HOSTILE in shown.page.inner_text("#code")
    assert HOSTILE in shown.page.inner_text("#components")
    assert HOSTILE in shown.page.text_content("#conversation")
    shown.hover(next(row["id"] for row in functions if row["slot"] is None))
    assert "<script>" in shown.page.text_content("#tree .hoverlayer")

    both = tmp_path / "both.html"
    both.write_text(comparison([read_run(directory), read_run(finished_run)]))
    compared = open_page(both)
    assert directory.name in compared.page.inner_text("#flags")
    assert HOSTILE in compared.page.inner_text("#flags")
    for page in (shown, compared):
        assert page.page.evaluate("window.hacked") is None
        assert page.troubles == []
        assert len([url for url in page.requests if not url.startswith("data:")]) == 1


def test_what_is_injected_all_the_same_is_not_run(open_page, page_file, tmp_path):
    """The page's policy names the hashes of its two scripts, so that no other one runs and nothing is loaded."""
    changed = tmp_path / "changed.html"
    injected = "<script>window.hacked = 1</script><img src='https://example.org/x.png'>"
    changed.write_text(page_file.read_text().replace("<main>", f"<main>{injected}"))
    shown = open_page(changed)
    assert shown.page.evaluate("window.hacked") is None
    assert len(shown.troubles) == 2
    assert all("Content Security Policy" in trouble for trouble in shown.troubles)


def test_fifty_rounds_are_quick(open_page, finished_run, tmp_path):
    """The run's last round again and again, up to fifty."""
    directory = copy_run(finished_run, tmp_path / "long")
    functions = json.loads((directory / "population.json").read_text())
    evaluations, exchanges = rows(directory / "metrics.jsonl"), rows(directory / "llm.jsonl")
    last = max(row["round"] for row in functions)
    repeated = [row for row in functions if row["round"] == last]
    for round in range(last + 1, 51):
        before = functions[-len(repeated) :]
        for row, old in zip(repeated, before, strict=True):
            taken = {"replaced": old["id"], "parents": [old["id"]]} if row["slot"] is not None else {}
            scores = {str(round): figures for figures in row["scores"].values()}
            functions.append({**row, "id": len(functions), "round": round, "scores": scores, **taken})
        evaluations.append({**evaluations[-1], "env_steps": evaluations[-1]["env_steps"] + 300, "round": round})
        exchanges.append({**exchanges[-1], "round": round})
    (directory / "population.json").write_text(json.dumps(functions))
    for name, kept in (("metrics.jsonl", evaluations), ("llm.jsonl", exchanges)):
        (directory / name).write_text("".join(json.dumps(row) + "\n" for row in kept))

    out = write_page(tmp_path / "long.html", read_run(directory))
    assert out.stat().st_size < 8e6
    began = time.monotonic()
    shown = open_page(out, width=390)
    assert sorted(shown.ids()) == list(range(len(functions)))
    assert time.monotonic() - began < 20  # two seconds on an idle machine
    began = time.monotonic()
    shown.page.select_option("#after", str(len(functions) - 1))
    assert time.monotonic() - began < 5
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert shown.troubles == []


def test_runs_that_have_not_ended_are_shown_as_far_as_they_are(open_page, finished_run, tmp_path):
    killed = copy_run(finished_run, tmp_path / "killed", ["summary.json"])
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 99')
    shown = open_page(write_page(tmp_path / "killed.html", read_run(killed)))
    assert "success now, best so far" in shown.page.inner_text(".headline")
    assert "unfinished" in shown.page.inner_text(".facts")
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(finished_run / "config.json", begun)
    first = open_page(write_page(tmp_path / "begun.html", read_run(begun)))
    assert "no policy has been evaluated yet" in first.page.inner_text(".headline")
    assert shown.troubles == first.troubles == []


def test_runs_are_compared(open_page, finished_run, tmp_path):
    other = copy_run(finished_run, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["flags"] |= {"seed": 2, "hidden_size": 32, "exp_name": "other"}
    (other / "config.json").write_text(json.dumps(config))
    out = tmp_path / "page.html"
    command = [sys.executable, str(ROOT / "report.py"), str(finished_run), str(other), "--out", str(out)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    shown = open_page(out, width=390)
    assert shown.troubles == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390
    flags = shown.page.eval_on_selector_all(
        "#flags tbody tr", "all => all.map((r) => [...r.cells].map((c) => c.textContent))"
    )
    assert flags == [["hidden_size", "16", "32"], ["seed", "1", "2"]]
    curve = shown.page.evaluate("document.getElementById('panel0').data.at(-1)")
    found = rows(finished_run / "metrics.jsonl")
    assert curve["x"] == [row["env_steps"] for row in found]
    assert curve["y"] == [row["best"]["success_rate"] for row in found]
    assert len(shown.page.query_selector_all("#runs tbody tr")) == 2


def test_a_video_in_the_directory_is_part_of_the_page(open_page, finished_run, tmp_path):
    directory = copy_run(finished_run, tmp_path / "run")
    (directory / "policy.mp4").write_bytes(b"a film")
    film = film_of(read_run(directory), may_render=False)
    assert film == Film(directory.absolute() / "policy.mp4")
    shown = open_page(write_page(tmp_path / "page.html", read_run(directory), film))
    assert shown.page.get_attribute("#policy video", "src") == "data:video/mp4;base64,YSBmaWxt"
    os.utime(directory / "policy.mp4", (0, 0))
    assert film_of(read_run(directory), may_render=False).remark == "The video is older than the policy."


def test_without_a_renderer_a_sentence_says_what_to_install(finished_run, tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    film = film_of(read_run(copy_run(finished_run, tmp_path / "run")), may_render=True)
    assert film.path is None
    assert "apt-get install libosmesa6" in film.remark
