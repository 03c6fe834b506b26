"""The shared buffer: rows stay together, rewards belong to their agent, old and new rows agree on the scale."""

import gc
import os

import numpy as np
import pytest
import torch

from replay_buffer import EXPLORATION, ReplayBuffer, Transitions
from workers.shared_table import SharedTable

CPU = torch.device("cpu")
OBS, ACTION, VARIABLES = 3, 2, 4


def make(capacity=50, agents=3, shared=True):
    return ReplayBuffer(capacity, OBS, ACTION, VARIABLES, agents, CPU, shared)


def episode(first, count):
    """Transitions whose every number says which transition it is: `first`, first + 1, ..."""
    serial = np.arange(first, first + count, dtype=np.float32)
    return {
        "obs": np.repeat(serial[:, None], OBS, 1),
        "action": np.repeat(serial[:, None] + 0.25, ACTION, 1),
        "next_obs": np.repeat(serial[:, None] + 1, OBS, 1),
        "variables": np.repeat(serial[:, None] + 0.5, VARIABLES, 1),
        "env_reward": serial * 2,
        "terminal": (serial % 7 == 0).astype(np.float32),
    }


def reward_of(agent, serial):
    return serial * 10 + agent


def fill(buffer, first, count, collector=0, success=False):
    for start, stop in buffer.add(episode(first, count), collector, success):
        for agent in range(buffer.agents):
            buffer.set_rewards(agent, start, stop, reward_of(agent, buffer.columns["obs"][start:stop, 0]))


def draw(buffer, size, generator):
    return buffer.transitions.batch(buffer.draw_rows(size, generator), 0.9)


def test_a_batch_is_made_of_whole_rows_with_each_agents_own_reward():
    buffer = make()
    fill(buffer, 0, 40)
    batch = draw(buffer, 64, torch.Generator().manual_seed(0))
    serial = batch.obs[..., 0]
    assert serial.shape == (3, 64)
    torch.testing.assert_close(batch.action, (serial + 0.25)[..., None].expand(-1, -1, ACTION))
    torch.testing.assert_close(batch.next_obs, (serial + 1)[..., None].expand(-1, -1, OBS))
    torch.testing.assert_close(batch.discount, 0.9 * (serial % 7 != 0).float())
    for agent in range(3):
        torch.testing.assert_close(batch.reward[agent], reward_of(agent, serial[agent]))
    assert not torch.equal(serial[0], serial[1])  # each agent draws for itself
    assert serial.min() >= 0
    assert serial.max() < 40


def test_every_row_is_drawn_equally_often():
    buffer = make()
    fill(buffer, 0, 20)
    drawn = draw(buffer, 20_000, torch.Generator().manual_seed(1)).obs[0, :, 0].long()
    counts = torch.bincount(drawn, minlength=20)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_the_oldest_rows_go_when_the_ring_is_full():
    buffer = make(capacity=50)
    for first in range(0, 130, 13):
        fill(buffer, first, 13)
    assert buffer.size == 50
    held = np.sort(buffer.columns["obs"][:, 0])
    np.testing.assert_array_equal(held, np.arange(80, 130))
    np.testing.assert_array_equal(buffer.columns["rewards"][:, 2], reward_of(2, buffer.columns["obs"][:, 0]))
    assert buffer.add(episode(130, 25), 0, False) == [(30, 50), (0, 5)]


def test_episode_means_skip_episodes_that_are_partly_overwritten():
    buffer = make(capacity=50)
    for number, first in enumerate(range(0, 70, 14)):
        fill(buffer, first, 14, success=number == 3)
    np.testing.assert_allclose(buffer.episode_means(buffer.columns["obs"][:, 0]), [28 + 6.5, 42 + 6.5, 56 + 6.5])
    assert buffer.episode_success().tolist() == [False, True, False]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_rescaling_maps_a_new_column_onto_the_best_one_as_it_is_trained_on(kind):
    buffer = make(capacity=400, agents=2)
    fill(buffer, 0, 300)
    generator = np.random.default_rng(2)
    buffer.set_rewards(0, 0, 300, generator.normal(5, 2, 300).astype(np.float32))
    buffer.scale[0], buffer.shift[0] = 3.0, -4.0  # the best column has been rescaled itself
    buffer.set_rewards(1, 0, 300, generator.normal(-100, 0.1, 300).astype(np.float32))
    buffer.rescale(1, 0, kind)
    best, new = buffer.trained_rewards(0), buffer.trained_rewards(1)
    raw = buffer.columns["rewards"][:300, 1]
    if kind == 0:
        np.testing.assert_array_equal(new, raw)
    else:
        assert new.std() == pytest.approx(best.std(), rel=1e-3)
        assert new.mean() == pytest.approx(best.mean() if kind == 2 else raw.mean() * buffer.scale[1], rel=1e-3)
    batch = draw(buffer, 32, torch.Generator().manual_seed(3))
    rows = batch.obs[1, :, 0].long().numpy()
    np.testing.assert_allclose(batch.reward[1].numpy(), new[rows], rtol=1e-5)


def test_a_constant_column_keeps_its_scale():
    buffer = make(agents=2)
    fill(buffer, 0, 30)
    buffer.set_rewards(1, 0, 30, np.full(30, 7, np.float32))
    assert buffer.rescale(1, 0, 2) == "its own rewards are the same in all transitions, so its scale is 1"
    assert buffer.scale[1] == 1
    assert np.allclose(buffer.trained_rewards(1), buffer.trained_rewards(0).mean())


@pytest.mark.parametrize("constant", [0, 0.1, -7, 1e9, 1e30])
def test_a_constant_best_column_does_not_flatten_others(constant):
    buffer = make(agents=2)
    fill(buffer, 0, 30)
    raw = buffer.columns["rewards"][:30, 1].copy()
    buffer.set_rewards(0, 0, 30, np.full(30, constant, np.float32))
    assert "the best function's rewards are the same" in buffer.rescale(1, 0, 1)
    np.testing.assert_array_equal(buffer.trained_rewards(1), raw)


@pytest.mark.parametrize(("spread", "scale"), [(1e-5, 1e3), (1e5, 1e-3)])
def test_the_scale_is_bounded_and_says_so(spread, scale):
    buffer = make(agents=2)
    fill(buffer, 0, 30)
    for agent, factor in ((0, 1.0), (1, spread)):
        buffer.set_rewards(agent, 0, 30, np.linspace(-1, 1, 30, dtype=np.float32) * np.float32(factor))
    said = buffer.rescale(1, 0, 2)
    assert buffer.scale[1] == pytest.approx(scale)
    assert said == f"its scale would be {1 / spread:.3g}, and is bounded to {scale:g}"
    assert buffer.rescale(0, 0, 2) is None


@pytest.mark.parametrize("name", ["obs", "action", "next_obs", "variables", "env_reward", "terminal"])
def test_a_transition_that_is_not_finite_is_refused(name):
    buffer = make()
    fill(buffer, 0, 10)
    spoiled = episode(10, 10)
    spoiled[name][3] = np.nan
    with pytest.raises(ValueError, match=f"{name} of a transition is not finite"):
        buffer.add(spoiled, 0, False)
    assert buffer.size == buffer.added == 10
    assert len(buffer.episode_success()) == 1


def test_a_surviving_column_means_the_same_before_and_after_later_rounds():
    buffer = make(capacity=100)
    fill(buffer, 0, 30)
    buffer.rescale(1, 0, 2)
    before = buffer.trained_rewards(1).copy()
    fill(buffer, 30, 30)  # new transitions move every column's mean and spread
    buffer.set_rewards(2, 0, 60, np.linspace(-3, 3, 60, dtype=np.float32))
    buffer.rescale(2, 0, 2)  # and a later round replaces another function
    np.testing.assert_array_equal(buffer.trained_rewards(1)[:30], before)
    old, new = buffer.trained_rewards(1)[29], buffer.trained_rewards(1)[30]
    raw = buffer.columns["rewards"][29:31, 1]
    assert new - old == pytest.approx((raw[1] - raw[0]) * buffer.scale[1], rel=1e-4)


def test_without_sharing_each_agent_draws_what_it_collected_and_the_exploration():
    buffer = make(capacity=100, shared=False)
    fill(buffer, 0, 10, EXPLORATION)
    for agent in range(3):
        fill(buffer, 10 + 20 * agent, 20, agent)
    batch = draw(buffer, 500, torch.Generator().manual_seed(4))
    for agent in range(3):
        own = set(range(10)) | set(range(10 + 20 * agent, 30 + 20 * agent))
        assert set(batch.obs[agent, :, 0].long().tolist()) == own


def test_without_sharing_an_agent_whose_rows_are_all_overwritten_draws_from_every_row():
    buffer = make(capacity=40, shared=False)
    fill(buffer, 0, 10, EXPLORATION)
    fill(buffer, 10, 10, 1)
    fill(buffer, 20, 40, 0)
    batch = draw(buffer, 2000, torch.Generator().manual_seed(4))
    for agent in range(3):
        assert set(batch.obs[agent, :, 0].long().tolist()) == set(range(20, 60))


def test_a_buffer_that_is_gone_holds_no_file_open():
    """A sweep makes one for each run that it plans."""
    before = set(os.listdir("/proc/self/fd"))
    buffer = ReplayBuffer(1, 2, 2, 2, 2, torch.device("cpu"))
    rows = buffer.reward_table
    assert len(set(os.listdir("/proc/self/fd")) - before) > 2
    del buffer
    gc.collect()
    assert os.fstat(rows.fd)  # whoever still has a part of it can hand it on
    del rows
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_reward_workers_see_what_is_stored_and_nothing_else():
    buffer = make()
    table = SharedTable.attach(*buffer.reward_table.address)
    fill(buffer, 0, 40)
    assert table.columns.keys() == {"next_obs", "action", "variables"}
    for name, expected in (("next_obs", 1.0), ("action", 0.25), ("variables", 0.5)):
        np.testing.assert_array_equal(table.columns[name][:40, 0], np.arange(40) + expected)
    with pytest.raises(ValueError, match="read-only"):
        table.columns["action"][0] = 0.0


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("shared", [True, False])
def test_a_process_that_attaches_the_memory_makes_the_same_batches(shared):
    buffer = make(100, shared=shared)
    elsewhere = Transitions([SharedTable.attach(*table.address) for table in buffer.transitions.tables], shared)
    for collector in range(4):
        fill(buffer, 20 * collector, 20, collector)
    buffer.rescale(1, 0, 2)
    for agent in range(3):
        own = [transitions.own_rows(agent, buffer.size) for transitions in (buffer.transitions, elsewhere)]
        if shared:
            assert own == [None, None]
            rows = torch.arange(50)[None]
        else:
            torch.testing.assert_close(*own)
            assert set(buffer.columns["collector"][own[0].numpy()]) == {agent}
            rows = own[0][None]
        batches = [transitions.batch(rows, 0.9, 1, agent) for transitions in (buffer.transitions, elsewhere)]
        torch.testing.assert_close(*batches)
        np.testing.assert_array_equal(batches[0].reward[0], buffer.trained_rewards(agent)[rows[0]])


@pytest.mark.parametrize("n_step", [1, 3, 20])
def test_rewards_of_n_decisions_are_summed_up_to_the_end_of_their_episode(n_step):
    buffer, gamma = make(25, agents=2), 0.9
    ends = {}  # serial number of each transition: that of its episode's last
    for first, count in ((0, 7), (7, 10), (17, 12)):  # the ring comes round in the third
        fill(buffer, first, count)
        buffer.columns["terminal"][:] = buffer.columns["obs"][:, 0] == 16  # the second ends in a terminal state
        ends |= dict.fromkeys(range(first, first + count), first + count - 1)
    buffer.rescale(1, 0, 2)
    rows = torch.arange(25).expand(2, -1)
    batch = buffer.transitions.batch(rows, gamma, n_step)
    for row, serial in enumerate(buffer.columns["obs"][:, 0].astype(int)):
        last = min(serial + n_step - 1, ends[serial])
        for agent in range(2):
            rewards = reward_of(agent, np.arange(serial, last + 1)) * buffer.scale[agent] + buffer.shift[agent]
            total = sum(gamma**step * reward for step, reward in enumerate(rewards))
            assert batch.reward[agent, row].item() == pytest.approx(total, rel=1e-5)
            discount = 0.0 if last == 16 else gamma ** (last - serial + 1)
            assert batch.discount[agent, row].item() == pytest.approx(discount)
            assert batch.next_obs[agent, row, 0].item() == last + 1


def test_normalized_returns_have_a_spread_of_one_whatever_the_unit_of_the_reward():
    buffer, gamma = make(25, agents=3), 0.8
    for first, count in ((0, 7), (7, 10), (17, 6)):
        fill(buffer, first, count)
    buffer.set_rewards(1, 0, 23, buffer.columns["rewards"][:23, 0] * 1000)
    buffer.set_rewards(2, 0, 23, np.zeros(23, np.float32))  # returns that do not vary have no spread
    returns = []
    for first, last in ((0, 6), (7, 16), (17, 22)):
        for start in range(first, last + 1):
            returns += [sum(gamma**step * reward_of(0, start + step) for step in range(last + 1 - start))]
    buffer.normalize(gamma)
    spread = np.std(returns)
    np.testing.assert_allclose(buffer.spread, [spread, 1000 * spread, 1.0], rtol=1e-5)
    batch = buffer.transitions.batch(torch.arange(23).expand(3, -1), gamma)
    torch.testing.assert_close(batch.reward[0], batch.reward[1])
    torch.testing.assert_close(batch.reward[0], reward_of(0, batch.obs[0, :, 0]) / spread, check_dtype=False)


def test_a_restored_buffer_goes_on_as_the_saved_one():
    one, two = make(), make()
    for first in range(0, 91, 13):
        fill(one, first, 13, success=first == 26)
    one.rescale(1, 0, 2)
    two.load_state_dict(one.state_dict())
    for buffer in (one, two):
        fill(buffer, 200, 9)
    for ours, theirs in zip(
        draw(one, 99, torch.Generator().manual_seed(5)), draw(two, 99, torch.Generator().manual_seed(5)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    means = [buffer.episode_means(buffer.columns["obs"][:, 0]) for buffer in (one, two)]
    np.testing.assert_array_equal(*means)
    np.testing.assert_array_equal(one.episode_success(), two.episode_success())
