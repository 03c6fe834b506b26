"""The prompts: complete, the same contract in both settings, and true to what is really allowed and needed."""

import re

import numpy as np
import pytest

from errors import UsageError
from reward_utils import __all__ as helpers
from search import prompting
from search.builtin import ProgramSearch
from search.feedback import AgentReport
from search.rounds import RewardSearch
from search_doubles import FakeWorkers, ScriptedModel, make_task
from task_specs import get_task
from tasks.environment import PROBE_STARTS, TaskEnvironment, record_probe
from tasks.measures import Measures

SETTINGS = ("from_scratch", "with_init")
SHARED = ("course", "population", "gone", "earlier")  # what is told of a round, the same in both
REPORT = AgentReport(0.25, 10.0, 20.0, (0.03, 0.2), {"reach": (0.5, 0.25, 0.75)})


def make_search(setting, task=None, model=None, **options):
    task = task or make_task()
    builtin = ProgramSearch(task, 1)
    return RewardSearch(
        task, model or builtin, FakeWorkers(), {}, builtin=builtin, setting=setting, log=lambda line: None, **options
    )


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    """A copy of the prompts that may be edited."""
    for setting in SETTINGS:
        (tmp_path / setting).mkdir()
        for path in (prompting.DIRECTORY / setting).glob("*.txt"):
            (tmp_path / setting / path.name).write_text(path.read_text())
    monkeypatch.setattr(prompting, "DIRECTORY", tmp_path)
    return tmp_path


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_first_prompt_says_what_a_reward_needs(setting):
    task = make_task()
    text = make_search(setting, task, episode_length=137).feedback.opening[1]["content"]
    assert task.description in text
    assert task.success in text
    assert (task.success_expression if setting == "from_scratch" else task.human_reward.success_source) in text
    assert "137 steps" in text
    assert "called once for each of the 137 steps" in text
    for variable in task.variables:
        shape = re.escape(str(variable.shape)) if variable.shape else "a number"
        assert re.search(rf"^- {variable.name} \(.*{shape}, in {variable.unit}\): {variable.meaning}$", text, re.M)
    assert "- obs (array of shape (39,))" in text
    assert "- action (array of shape (4,))" in text


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_field_stays_open(setting, tmp_path):
    (tmp_path / "feedback.txt").write_text("Watch the {wrist}.")
    model = ScriptedModel([["nothing"], ["```python\ndef compute_reward(obj):\n    return 1.0\n```"], [], []])
    search = make_search(setting, model=model, human_feedback=str(tmp_path / "feedback.txt"))
    search.check_order = lambda source: 0.5
    (best,) = search.initial(1)
    list(search.improve(1, best, REPORT, [], 1))
    if setting == "with_init":
        list(search.improve(2, None, REPORT, [], 1))
    texts = [message["content"] for request in model.requests for message in request.messages]
    assert len(model.requests) >= 3
    assert {field for text in texts for field in re.findall(r"\{\w+\}", text)} == {"{wrist}"}
    assert not any("\n\n\n\n" in text for text in texts)


@pytest.mark.parametrize("name", [*SHARED, "system", "scene", "observation", "rejected", "order", "human_feedback"])
def test_both_settings_state_the_same_contract(name):
    one, other = ((prompting.DIRECTORY / setting / f"{name}.txt").read_text() for setting in SETTINGS)
    assert one == other


def test_the_helpers_that_are_named_are_there():
    text = (prompting.DIRECTORY / "from_scratch" / "system.txt").read_text()
    named = re.findall(r"(\w+)\(", text.split("from reward_utils")[1].split(". ")[0])
    assert named
    assert set(named) <= set(helpers)


def test_code_in_a_prompt_needs_no_escapes(prompts):
    path = prompts / "from_scratch" / "system.txt"
    path.write_text('Return {"a": 1}, {}, {i + 1} or f"{x:.2f}".')
    system = make_search("from_scratch").feedback.opening[0]["content"]
    assert system == 'Return {"a": 1}, {}, {i + 1} or f"{x:.2f}".'


def test_an_unknown_field_is_named_before_anything_runs(prompts):
    path = prompts / "with_init" / "task.txt"
    path.write_text(path.read_text() + "\n{descripton}")
    make_search("from_scratch")
    with pytest.raises(UsageError, match=r"task\.txt.*\{descripton\}; did you mean description"):
        make_search("with_init")


def test_from_scratch_has_no_field_for_what_the_human_reward_gave(prompts):
    path = prompts / "from_scratch" / "feedback.txt"
    path.write_text(path.read_text() + "\n{env_return}")
    with pytest.raises(UsageError, match="env_return"):
        make_search("from_scratch")


def test_a_missing_prompt_is_named(prompts):
    (prompts / "from_scratch" / "order.txt").unlink()
    with pytest.raises(UsageError, match=r"order\.txt cannot be read"):
        make_search("from_scratch")


def test_prompts_of_ones_own_take_the_place_of_ours(tmp_path):
    for path in (prompting.DIRECTORY / "from_scratch").glob("*.txt"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "system.txt").write_text("In verse, please. {scene}")
    search = make_search("from_scratch", prompts=str(tmp_path))
    assert search.feedback.opening[0]["content"].startswith("In verse, please. ")
    assert "verse" not in make_search("from_scratch").feedback.opening[0]["content"]


def test_all_prompts_that_are_missing_are_named_at_once(tmp_path):
    for path in (prompting.DIRECTORY / "from_scratch").glob("*.txt"):
        if path.name not in {"order.txt", "scene.txt"}:
            (tmp_path / path.name).write_text(path.read_text())
    with pytest.raises(UsageError) as told:
        make_search("from_scratch", prompts=str(tmp_path))
    ours = prompting.DIRECTORY / "from_scratch"
    assert str(told.value) == f"--prompts {tmp_path} lacks scene.txt, order.txt; begin with a copy of {ours}"


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_scene_is_the_tasks_own(setting):
    """No robot arm in the prompt of a maze."""

    def system(**changes):
        return make_search(setting, make_task(**changes)).feedback.opening[0]["content"]

    assert "An action is 4 numbers from -1 to 1." in system()
    assert "A maze of {8} rooms." in system(scene="A maze of {8} rooms.")
    for text in (system(), system(scene="A maze.")):
        assert "gripper" not in text
        assert " arm" not in text
    metaworld = get_task("window-close")
    assert "two-finger gripper" in system(environment_class=metaworld.environment_class)


@pytest.mark.parametrize("repeat", [1, 5])
def test_the_prompt_of_a_real_task_says_what_its_figures_are_measured_by(repeat):
    task = get_task("drawer-open")
    probe = record_probe(task, 0, action_repeat=repeat)
    starts = {name: column[:PROBE_STARTS] for name, column in probe.items()}
    system, user = prompting.Prompts("from_scratch").opening(task, 150, repeat, "last", starts)
    assert f"by about {0.01 * repeat:g} from one call" in system["content"]
    assert "with its weight" in system["content"]
    calls = "150 steps" if repeat == 1 else "30 decisions of an episode, each one action over 5 steps"
    assert f"called once for each of the {calls}" in user["content"]
    assert "at its last step" in user["content"]
    places = {name: Measures(task).column(name, starts) for name in ("tcp_center", "obj", "target")}
    for one, other in (("tcp_center", "obj"), ("obj", "target")):
        distances = [np.linalg.norm(a - b) for a, b in zip(places[one], places[other], strict=True)]
        low, high = f"{min(distances):.2g}", f"{max(distances):.2g}"
        said = low if low == high else f"{low} to {high}"
        assert f"- {one} is {said} m from {other}\n" in user["content"]


def test_the_layout_of_the_observation_is_the_environments():
    text = (prompting.DIRECTORY / "from_scratch" / "observation.txt").read_text()
    places = {name: (int(first), int(last)) for first, last, name in re.findall(r"\[(\d+):(\d+)\] the (\w+)", text)}
    environment = TaskEnvironment(get_task("drawer-open"))
    environment.reset(0)
    before = environment.obs.copy()
    environment.step(np.ones(4))
    values = environment.values()
    for said, name in (("hand", "hand"), ("object", "obj"), ("target", "target")):
        np.testing.assert_allclose(environment.obs[slice(*places[said])], values[name])
    assert environment.obs[3] == values["gripper_opening"]
    np.testing.assert_array_equal(environment.obs[18:36], before[:18])
    assert not environment.obs[11:18].any()
