"""What TensorBoard gets: figures by quantity, and reward code that stays text."""

import math
import os
import subprocess
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from runs.boards import Boards, grouped

ROW = {
    "env_steps": 600,
    "round": 1,
    "best": {"agent": 1, "success_rate": 0.5},
    "best_so_far": 0.75,
    "agents": {0: {"success_rate": 0.25, "q_value": math.nan}, 1: {"success_rate": 0.5, "q_value": 2.0}},
    "out": {2: "its networks are unusable"},
    "llm": {"tokens_in": 10, "rounds": [{"tokens_in": 10}]},
    "protocol": {"episodes": 4},
}


def test_figures_are_grouped_by_quantity():
    assert grouped(ROW) == {
        "success_rate/agent_0": 0.25,
        "success_rate/agent_1": 0.5,
        "success_rate/best": 0.5,
        "q_value/agent_1": 2.0,
        "agent/best": 1.0,
        "llm/tokens_in": 10.0,
        "run/env_steps": 600.0,
        "run/round": 1.0,
        "run/best_so_far": 0.75,
    }


def test_tensorboard_has_the_figures_and_the_code(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    boards = Boards(tmp_path, {})
    boards.reward_code(2, "def compute_reward(obj):\n    return '```<script>'\n", 1)
    boards.evaluation(600, ROW)
    boards.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(grouped(ROW))
    [point] = events.Scalars("success_rate/agent_0")
    assert (point.step, point.value) == (600, pytest.approx(0.25))
    [text] = events.Tensors("reward_code/slot_2/text_summary")
    assert text.step == 1
    # Indented by four, so that Markdown shows it as it is.
    assert text.tensor_proto.string_val[0].decode() == "    def compute_reward(obj):\n        return '```<script>'"


def test_a_video_goes_where_the_run_is_watched(tmp_path):
    program = "import sys; from pathlib import Path; from runs.boards import show_video; print(show_video(*map(Path, "
    program += "sys.argv[1:]), 600))"
    video = tmp_path / "policy.gif"
    imageio.mimsave(video, [np.full((8, 8, 3), shade, np.uint8) for shade in (0, 255)])
    told = []
    for _ in range(2):  # without a place there, then with one
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), str(video)],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"WANDB_MODE": "offline", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(done.stdout.strip())
        (tmp_path / ".wandb_id").write_text("0123abcd")
    assert told[0] == ""
    assert told[1].startswith("Weights & Biases is offline; ")
    [shown] = tmp_path.glob("wandb/offline-run-*-0123abcd/files/media/videos/video_*.gif")
    assert shown.read_bytes() == video.read_bytes()
