"""What the README shows works as it stands there."""

import json
import re
import shlex
from pathlib import Path

import pytest

from arguments import parse_args
from test_entry_scripts import run

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def commands(script):
    """Every command of the README that starts this script, as words, environment assignments left out."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line.split(script)[1]) for line in lines if script in line]


def test_the_readmes_task_trains(tmp_path):
    [source] = re.findall(r"```python\n(# my_tasks.py\n.*?)```", README, re.DOTALL)
    (tmp_path / "my_tasks.py").write_text(source, encoding="utf-8")
    [words] = [words for words in commands("lares_from_scratch.py") if "--task_file" in words]
    small = "--total-timesteps=600 --init-exploration-steps=150 --LLM_freq=200 --display-interval=200 --eval-episodes=2"
    small += " --final_episodes=4 --hidden-size=16 --batch-size=16 --pop_size=3 --elite_num=2 --device=cpu"
    code, _, err = run("lares_from_scratch.py", " ".join(words), tmp_path, small)
    assert code == 0, err
    [directory] = (tmp_path / "logs").iterdir()
    assert json.loads((directory / "summary.json").read_text())["status"] == "finished"
    assert "fingertip" in (directory / "Iter_0_Reward_Code_0.py").read_text()


@pytest.mark.parametrize("setting", ["from_scratch", "with_init"])
def test_the_readmes_commands_parse(setting):
    found = commands(f"lares_{setting}.py")
    assert found
    for words in found:
        if "--resume" not in words:  # which reads the flags of a run
            parse_args(words, setting)


def test_every_file_that_the_readme_names_is_there():
    root = Path(__file__).parents[1]
    for name in set(re.findall(r"[\w/]+\.(?:py|sh|md)\b", README)) - {"my_tasks.py", "best_reward.py"}:
        if "Iter_" not in name:
            assert (root / name).exists(), name
