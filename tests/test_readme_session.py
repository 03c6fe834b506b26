"""A newcomer's session: the README's commands, one after the other, in a fresh clone and a new shell."""

import os
import re
import site
import subprocess
import venv
from pathlib import Path

import pytest

from chat_server import completion, serving

ROOT = Path(__file__).parents[1]
RUN = (
    "--total-timesteps=400 --init-exploration-steps=120 --episode-length=40 --LLM_freq=200 --display-interval=200 "
    "--eval-episodes=2 --final_episodes=4 --hidden-size=16 --batch-size=16 --pop_size=3 --elite_num=2 --device=cpu "
    "--num_workers=1 --num_learners=1"
)
SHORTER = {  # what each command gets behind its own words, since later flags win
    "quickstart": RUN,
    "--resume": "--total-timesteps=500",
    "lares_": RUN,
    "evaluate.py": "--episodes=2 --video-episodes=1 --workers=1",
    "run.sh test": "tests/test_errors.py",
    "run.sh from_scratch": "window-close-v2 door-close-v2",
}
ANSWER = """```python
def compute_reward(tcp_center, obj, target):
    return -{} * np.linalg.norm(tcp_center - obj) - np.linalg.norm(obj - target)
```"""


@pytest.fixture
def clone(tmp_path):
    """What git has of the project, as somebody else gets it."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def with_environment(clone):
    """Give a clone a .venv of its own that finds this one's packages, which saves their installation."""
    venv.create(clone / ".venv", with_pip=False)
    [packages] = (clone / ".venv" / "lib").glob("python*/site-packages")
    (packages / "shared.pth").write_text("\n".join(site.getsitepackages()))
    stamp = subprocess.check_output(["cksum"], stdin=(clone / "requirements.txt").open(), text=True)
    (clone / ".venv" / "lares-stamp").write_text(stamp)
    return clone


def commands(clone):
    """Every command of the README's shell blocks, in order; files that it shows are written."""
    readme = (clone / "README.md").read_text(encoding="utf-8")
    for name, source in re.findall(r"```python\n(?=# (\S+\.py)\n)(.*?)```", readme, re.DOTALL):
        (clone / name).write_text(source, encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [re.split(r"\s+#", line)[0].strip() for line in lines if line]


def shorter(command):
    for word, flags in SHORTER.items():
        if word in command:
            return f"{command} {flags}"
    return command


def session(clone, lines, seconds, **more):
    """Type the lines into one shell, in which no environment is active; returns what it printed."""
    hidden = ("VIRTUAL_ENV", "PYTHONPATH", "OPENAI_API_KEY", "OPENAI_BASE_URL", "WANDB_API_KEY", "WANDB_MODE")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    places = os.environ["PATH"].split(os.pathsep)
    environment["PATH"] = os.pathsep.join(p for p in places if not (Path(p).parent / "pyvenv.cfg").exists())
    script = "\n".join(["set -ex", *lines])
    done = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment | more, stdin=subprocess.DEVNULL, timeout=seconds,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Traceback" not in done.stdout
    return done.stdout


def test_the_readme_leads_from_nothing_to_a_policy_and_its_report(clone):
    wanted = ["bash run.sh quickstart", "source .venv/bin/activate", "python evaluate.py"]
    lines = [line for line in commands(with_environment(clone)) if line in wanted]
    assert lines == wanted
    printed = session(clone, map(shorter, lines), 240, MUJOCO_GL="disable")  # so that the report has no film
    assert re.search(r"^final success rate \d", printed, re.MULTILINE)
    assert re.search(r"^success rate +\d\.\d\d \(95% interval", printed, re.MULTILINE)
    [run] = (path.parent for path in (clone / "logs").glob("*/summary.json"))
    assert (run / "report.html").stat().st_size > 10_000
    changed = subprocess.check_output(["git", "status", "--porcelain"], cwd=clone, text=True)
    assert changed.split() == ["??", "my_tasks.py"]


@pytest.mark.soak
def test_every_command_of_the_readme_works(clone):
    """Each in the README's order, its environment installed by the first one; only the runs are shorter."""

    def answer(body, number):
        return completion(*(ANSWER.format(1 + number + place / 10) for place in range(body.get("n", 1))))

    with serving(answer) as (url, seen):
        lines = [shorter(line).replace("http://localhost:11434/v1", url) for line in commands(clone)]
        printed = session(clone, lines, 3000, OPENAI_BASE_URL=url, FLAGS=RUN)
    assert "set-up complete" in printed
    assert {body["model"] for body in seen.bodies} == {"gpt-4o-mini", "qwen2.5-coder"}
    assert (clone / "policy.mp4").stat().st_size > 1000
    assert len(list((clone / "logs").glob("**/summary.json"))) == 14
