"""Whatever a person would call good code is accepted, in any style, and compilation changes no value."""

import numpy as np
import pytest

from good_answers import ANSWERS
from reward_code import Evaluation, RewardWorkers, Verdict
from reward_rows import INPUTS, rows


@pytest.fixture(scope="module")
def workers():
    with RewardWorkers(INPUTS, count=2) as workers:
        yield workers


@pytest.fixture(scope="module")
def verdicts(workers):
    return dict(zip(ANSWERS, workers.check([*ANSWERS.values()], rows(200)), strict=True))


def test_there_are_enough_styles():
    assert len(ANSWERS) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("style", ANSWERS)
def test_good_answer_is_accepted_and_compiled_unchanged(style: str, workers: RewardWorkers, verdicts):
    verdict: Verdict = verdicts[style]
    assert verdict.accepted, verdict.reason
    assert verdict.compiled, verdict.note
    fresh = rows(2000, seed=1)  # rows that the proof has not seen
    compiled = workers.evaluate([verdict.source], fresh)[0]
    interpreted = workers.evaluate([verdict.source], fresh, components=True)[0]
    assert isinstance(compiled, Evaluation)
    assert isinstance(interpreted, Evaluation)
    np.testing.assert_allclose(compiled.rewards, interpreted.rewards, rtol=1e-6, atol=1e-7)
    assert np.std(interpreted.rewards) > 0
    if '"final"' in ANSWERS[style].replace("“", '"'):
        assert "final" in interpreted.components
