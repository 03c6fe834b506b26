"""What is measured for each row of the speed table: two functions that take one sample each, figure and yardstick.

Every row is prepared in its own process, by the function of its name, and ends with that process.
"""

import contextlib
import itertools
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arguments import Arguments, parse_args
from benchmarks.yardsticks import bare_products, plain_updates, sb3_updates
from lares import LaRes
from learners import draw as draw_rows_and_noise
from population import Population
from replay_buffer import EXPLORATION, ReplayBuffer
from reward_code import RewardWorkers, check_source, extract
from reward_code.worker import Executable
from runs.interruption import Interruption
from sac import SacConfig
from search.choice import Chooser, known_functions
from search.fitting import Fitting
from search.reward_function import RewardFunction
from search.scoring import Experience
from task_specs import TASKS, get_task
from tasks.environment import TaskEnvironment, record_probe
from tasks.episode import Order
from thompson import ThompsonSampler
from workers.collectors import Collectors, PolicyShape
from workers.machine import cores
from workers.shared_table import SharedTable

Sample = Callable[[], float]
Sides = tuple[Sample, Sample | None]

ROOT = Path(__file__).parents[1]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TASK = "window-close"
AGENTS, BATCH = 5, 128
# Textbook SAC, as in the yardsticks; and our defaults.
PLAIN = Arguments("from_scratch", layer_norm=0, n_step=1, policy_delay=1, normalize_rewards=0, target_entropy=-1.0)
CONFIG, DEFAULT = (args.sac_config(obs_size=39, action_size=4) for args in (PLAIN, Arguments("from_scratch")))
MILLION = 1_000_000
UPDATES = {"cpu": 128, "cuda": 512}  # per sample, which takes one or two seconds

# --- the population: everything that depends on its interface --------------------------------------------------------


def new_population(buffer: ReplayBuffer, config: SacConfig, learners: int) -> Population:
    torch.set_num_threads(1)  # as a run does
    return Population(config, buffer, initial_seed=0, learning_seed=0, learners=learners)


def filled_buffer(device: torch.device, count: int, rows: int) -> ReplayBuffer:
    """A buffer that is full of noise."""
    task = get_task(TASK)
    buffer = ReplayBuffer(rows, task.obs_size, task.action_size, task.variable_width, count, device)
    block = min(rows, 10_000)
    generator = np.random.default_rng(0)
    drawn = ("obs", "action", "next_obs", "env_reward")
    noise = {name: generator.standard_normal(buffer.columns[name][:block].shape, np.float32) for name in drawn}
    while buffer.added < rows:
        for start, stop in buffer.add({**noise, "terminal": np.zeros(block, np.float32)}, 0, False):
            for agent in range(count):
                buffer.set_rewards(agent, start, stop, noise["env_reward"][: stop - start])
    return buffer


def learn(population: Population, updates: int) -> None:
    """Update all agents, drawing included, as training does."""
    population.learn(BATCH, updates)


def learn_uncaptured(population: Population, updates: int) -> None:
    """The same, with each kernel launched separately."""
    population._make = lambda step, agents, key: step()  # type: ignore[method-assign]
    population.learn(BATCH, updates)


def draw(population: Population, updates: int) -> None:
    """Draw batches and noise for so many updates of all agents."""
    for update, agent in itertools.product(range(updates), range(population.count)):
        rows, _ = draw_rows_and_noise(0, agent, update, population.buffer.size, BATCH, population.config.action_size)
        population.buffer.transitions.batch(rows, 0.99, 1, agent)


def begun_run(logs: str, device: torch.device) -> LaRes:
    """A run with default flags except for a shorter exploration, up to the moment at which learning begins."""
    flags = ["--model=builtin", f"--env-name={TASK}", f"--device={device}", f"--log-dir={logs}"]
    flags += ["--init-exploration-steps=600", f"--num_learners={cores()}", f"--num_workers={cores()}"]
    run = LaRes(parse_args(flags, "from_scratch"), Interruption(), prompts="from_scratch", human_agent=False)
    run.first_population()
    run.explore()
    return run


def learn_in(lares: LaRes, updates: int) -> None:
    """Do the part of an iteration that comes after collecting, for so many updates."""
    lares.updates_due = updates
    lares.learn()


# --- helpers ----------------------------------------------------------------------------------------------------------


def timed(function: Callable[..., Any], *arguments: Any, times: int = 1) -> float:
    """Seconds that the function takes, device included, divided by `times`."""
    began = time.perf_counter()
    function(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / times


@dataclass
class Learning:
    """A population and its buffer."""

    device: torch.device = CPU
    count: int = AGENTS
    config: SacConfig = CONFIG
    rows: int = 100_000
    learners: int = cores()

    def __post_init__(self) -> None:
        self._updates = UPDATES[self.device.type]
        buffer = filled_buffer(self.device, self.count, self.rows)
        self._population = new_population(buffer, self.config, self.learners)

    def update(self, how: Callable[[Population, int], None] = learn) -> float:
        """Seconds per update of all agents."""
        return timed(how, self._population, self._updates, times=self._updates)


class Neighbour:
    """A process that does what `make(*arguments)` returns, a given number of times whenever it is told to."""

    def __init__(self, make: Callable[..., Callable[[int], Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        context.Process(target=self._live, args=(theirs, make, arguments), daemon=True).start()

    def start(self, times: int) -> None:
        """Tell it to begin."""
        self._connection.send(times)

    def seconds(self) -> float:
        """Wait until it is done; return the seconds for one time."""
        return float(self._connection.recv())

    @staticmethod
    def _live(connection: Any, make: Callable[..., Callable[[int], Any]], arguments: tuple[Any, ...]) -> None:
        do = make(*arguments)
        with contextlib.suppress(EOFError):
            while True:
                times = connection.recv()
                connection.send(timed(do, times, times=times))


def together(neighbours: list[Neighbour], times: int) -> float:
    """Let all of them do it at once; return the seconds that the slowest takes for one time."""
    for neighbour in neighbours:
        neighbour.start(times)
    return max(neighbour.seconds() for neighbour in neighbours)


# --- updates ----------------------------------------------------------------------------------------------------------


def floor() -> Sides:
    update = Learning().update
    routes = bare_products(AGENTS, CONFIG, BATCH, cores())
    repetitions = UPDATES["cpu"]
    fastest = min(routes, key=lambda route: min(timed(route, repetitions) for _ in range(3)))
    return update, lambda: timed(fastest, repetitions, times=repetitions)


def default() -> Sides:
    return Learning(config=DEFAULT).update, Learning().update


def plain() -> Sides:
    agents = [Neighbour(plain_updates, CONFIG, BATCH) for _ in range(cores())]
    return Learning().update, lambda: together(agents, UPDATES["cpu"]) * AGENTS / len(agents)


def sb3() -> Sides:
    agent = Neighbour(sb3_updates, CONFIG, BATCH)
    return Learning().update, lambda: together([agent], UPDATES["cpu"]) * AGENTS


def busy() -> Sides:
    context = multiprocessing.get_context("spawn")
    switch, theirs = context.Pipe()
    context.Process(target=_spin, args=(theirs,), daemon=True).start()
    update = Learning().update

    def turn(busy: bool) -> None:
        switch.send(busy)
        switch.recv()

    def beside_busy() -> float:
        turn(True)
        seconds = update()
        turn(False)
        return seconds

    return beside_busy, update


def _spin(switch: Any) -> None:
    """Keep a core busy while the switch is on; each turn of it is confirmed."""
    busy = False
    with contextlib.suppress(EOFError):
        while True:
            if switch.poll(0 if busy else None):
                busy = switch.recv()
                switch.send(busy)
            sum(range(10_000))


def two_runs() -> Sides:
    # Not two whole short runs: most of a short run is its start, which does not use two cores and would flatter us.
    runs = [Neighbour(_updates) for _ in range(2)]
    updates = UPDATES["cpu"]
    return lambda: together(runs, updates), lambda: 2 * together(runs[:1], updates)


def _updates() -> Callable[[int], Any]:
    population = new_population(filled_buffer(CPU, AGENTS, 100_000), CONFIG, cores())
    return lambda updates: learn(population, updates)


def drawing() -> Sides:
    # In one process: each learner draws for its own agents, so the share of the time is that of the work.
    learning = Learning(rows=MILLION, learners=1)
    return lambda: learning.update(draw), learning.update


def drawn_arms() -> list[list[int]]:
    """The arms of some iterations, as Thompson sampling draws them while it knows nothing."""
    sampler = ThompsonSampler(AGENTS, 1000, seed=0)
    return [sampler.draw(range(AGENTS), AGENTS) for _ in range(8)]


# --- rewards ----------------------------------------------------------------------------------------------------------

# Numba cannot compile this use of text, which is harmless.
_NOT_FOR_NUMBA = """
def compute_reward(tcp_center, obj, target, action):
    parts = {
        "reach": 1.0 - np.tanh(5.0 * np.linalg.norm(obj - tcp_center)),
        "move": 3.0 * np.exp(-np.linalg.norm(obj - target) / 0.1),
        "effort": -0.01 * np.sum(action ** 2),
    }
    rounded = float(f"{sum(parts.values()):.6f}")
    return rounded, parts
"""


def language_model_rewards(count: int) -> list[str]:
    """Reward functions that a language model wrote for the task."""
    lines = (ROOT / "recordings" / f"{TASK}-v2" / "llm.jsonl").read_text(encoding="utf-8").splitlines()
    responses = [response for line in lines for response in json.loads(line)["texts"]]
    inputs = get_task(TASK).inputs
    return [check_source(extract(response).source, inputs) for response in responses[:count]]


def reward_workers(rows: int, sources: list[str]) -> tuple[RewardWorkers, list[str]]:
    """Workers with `rows` transitions, those of the probe repeated, that know the sources; and the checked sources."""
    task = get_task(TASK)
    probe = record_probe(task, seed=0)
    table = SharedTable.create(rows, {name: column.shape[1] for name, column in probe.items()})
    for name, column in probe.items():
        table.columns[name][:] = np.resize(column, (rows, column.shape[1]))
    pool = RewardWorkers(task.inputs, cores(), table)
    return pool, [verdict.source for verdict in pool.check(sources, probe)]


def interpreted_sample(sources: list[str], rows: int) -> Sample:
    """Seconds per row and function of the interpreted loop in this process."""
    task = get_task(TASK)
    probe = record_probe(task, seed=0)
    columns = {name: np.resize(column, (rows, column.shape[1])) for name, column in probe.items()}
    inputs = {name: [place.column, place.start, place.stop, place.shape] for name, place in task.inputs.items()}
    functions = [Executable(source, inputs, np.zeros(1, np.int64)) for source in sources]
    times = rows * len(functions)
    return lambda: timed(lambda: [function.interpreted(columns) for function in functions], times=times)


def relabel() -> Sides:
    pool, sources = reward_workers(MILLION, language_model_rewards(5))

    def one_after_the_other() -> None:
        for source in sources:
            pool.evaluate_rows([source], 0, MILLION)

    times = MILLION * len(sources)
    return lambda: timed(one_after_the_other, times=times), interpreted_sample(sources, 5_000)


def relabel_cold() -> Sides:
    pool, [source] = reward_workers(MILLION, language_model_rewards(1))
    probe = record_probe(get_task(TASK), seed=0)
    copies = 0

    def check_and_relabel() -> None:
        nonlocal copies
        copies += 1  # no worker knows this one
        [verdict] = pool.check([f"{source}\nNUMBER = {copies}\n"], probe)
        pool.evaluate_rows([verdict.source], 0, MILLION)

    return lambda: timed(check_and_relabel), None


def relabel_interpreted() -> Sides:
    rows = 20_000 * cores()
    pool, sources = reward_workers(rows, [_NOT_FOR_NUMBA])
    return lambda: timed(pool.evaluate_rows, sources, 0, rows, times=rows), interpreted_sample(sources, 20_000)


def round_parts() -> tuple[Sample, RewardWorkers, list[str], Experience]:
    """What every search round does; its workers, its candidates, and stored episodes to judge them by."""
    pool, sources = reward_workers(MILLION, language_model_rewards(4))
    probe = record_probe(get_task(TASK), seed=0)
    fresh = itertools.count()

    def check_and_relabel() -> None:
        texts = [f"{source}\nNUMBER = {next(fresh)}\n" for source in sources]  # no worker knows these
        pool.evaluate_rows([verdict.source for verdict in pool.check(texts, probe)[:2]], 0, MILLION)

    columns = {name: np.resize(column, (30_000, column.shape[1])) for name, column in probe.items()}
    random = np.random.default_rng(0)
    columns["variables"] += random.normal(0.0, 0.05, columns["variables"].shape).astype(np.float32)
    distance = random.uniform(0.0, 0.2, 200)
    experience = Experience(columns, [150] * 200, distance < 0.05, distance)
    return lambda: timed(check_and_relabel), pool, sources, experience


def scoring() -> Sides:
    rest, pool, sources, experience = round_parts()
    probe = record_probe(get_task(TASK), seed=0)

    def score() -> None:
        candidates = [
            RewardFunction(number, 1, [], source, "", [], accepted=True) for number, source in enumerate(sources)
        ]
        known = known_functions(candidates[:1], candidates[:1], "")
        list(Chooser(pool, probe, experience, known, lambda *_: None).best_first(candidates[1:], lambda: 2))

    return lambda: timed(score), rest


def fitting() -> Sides:
    rest, _, sources, experience = round_parts()

    def fit() -> None:
        with contextlib.closing(Fitting(get_task(TASK).inputs, experience)) as fitting:
            for source in sources[:3]:
                fitting.fit(source)

    return lambda: timed(fit), rest


def new_rewards() -> Sides:
    steps = 150
    rows = 100_000
    pool, sources = reward_workers(rows, language_model_rewards(6))
    environment = TaskEnvironment(get_task(TASK))
    generator = np.random.default_rng(0)
    first = 0

    iterations = [steps * len(arms) for arms in drawn_arms()]

    def store() -> None:
        nonlocal first
        for count in iterations:
            pool.evaluate_rows(sources, first, first + count)
            first = (first + count) % (rows - AGENTS * steps)

    def steps_alone() -> float:
        environment.reset(0)
        actions = generator.uniform(-1, 1, (steps, CONFIG.action_size))
        return timed(lambda: [environment.step(action) for action in actions], times=steps)

    return lambda: timed(store, times=sum(iterations)), steps_alone


# --- episodes ---------------------------------------------------------------------------------------------------------


def _collectors(workers: int) -> Collectors:
    task = get_task(TASK)
    shape = PolicyShape((task.obs_size, 256, 256, 256, 2 * task.action_size))
    collectors = Collectors(task, shape, AGENTS, workers)
    scale = np.random.default_rng(0).standard_normal((AGENTS, shape.parameters), np.float32)
    collectors.set_policies(0.02 * scale)
    return collectors


def _seconds_an_env_step(collectors: Collectors, rounds: list[list[Order]]) -> float:
    env_steps = sum(order.steps for orders in rounds for order in orders)
    return timed(lambda: [collectors.run(orders) for orders in rounds], times=env_steps)


def collection() -> Sides:
    rounds = [[Order(arm, 10 * i + arm, 150, noise_seed=i) for arm in arms] for i, arms in enumerate(drawn_arms())]
    many, one = _collectors(cores()), _collectors(1)
    return lambda: _seconds_an_env_step(many, rounds), lambda: _seconds_an_env_step(one, rounds)


def evaluation() -> Sides:
    orders = [[Order(arm, seed, 150) for arm in range(AGENTS) for seed in range(10)]]
    many, one = _collectors(cores()), _collectors(1)
    return lambda: _seconds_an_env_step(many, orders), lambda: _seconds_an_env_step(one, orders)


# --- the whole -------------------------------------------------------------------------------------------------------


def buffer_row() -> Sides:
    sizes = []
    for name in TASKS:
        task = get_task(name)
        with_human_agent = AGENTS + 1
        buffer = ReplayBuffer(1, task.obs_size, task.action_size, task.variable_width, with_human_agent, CPU)
        sizes.append(float(buffer.bytes_per_row))
    return lambda: max(sizes), None


class Loop:
    """A run in this process, with the buffer as full as it is halfway through a million env steps.

    Its parts are timed separately, and weighted by how often each occurs at default settings, so that a sample does not
    need 10,000 env steps.
    """

    def __init__(self, device: torch.device) -> None:
        self._logs = tempfile.TemporaryDirectory()
        self.lares = begun_run(self._logs.name, device)
        self._fill(MILLION // 2)
        self.updates = 2 * UPDATES[device.type]
        self.lares.collect()
        learn_in(self.lares, 1)
        self.lares.evaluate()
        # Once is enough: it happens once in 200,000 env steps, and takes seconds.
        self._search = timed(self.lares.search_round) / self.lares.args.search_interval

    def _fill(self, rows: int) -> None:
        buffer = self.lares.buffer
        there = {name: column[: buffer.size].copy() for name, column in buffer.columns.items()}
        rewards = there.pop("rewards")
        del there["collector"]
        while buffer.size < rows:
            for start, stop in buffer.add(there, EXPLORATION, False):
                for slot in self.lares.slots:
                    buffer.set_rewards(slot, start, stop, rewards[: stop - start, slot])

    def seconds(self) -> float:
        """Seconds per env step, everything included."""
        lares = self.lares
        before = lares.env_steps
        collecting = timed(lares.collect)
        collecting /= lares.env_steps - before
        learning = timed(learn_in, lares, self.updates, times=self.updates) * lares.args.update_cycles
        evaluating = timed(lares.evaluate) / lares.args.display_interval
        return collecting + learning + evaluating + self._search

    def seconds_of_update(self) -> float:
        """Seconds per env step of the updates alone."""
        return timed(learn, self.lares.population, self.updates, times=self.updates)


def whole_loop() -> Sides:
    loop = Loop(CPU)
    return loop.seconds, loop.seconds_of_update


# Runs an entry script, and announces when its first episodes are done.
_ANNOUNCED = """
import runpy, sys
from workers.collectors import Collectors
run = Collectors.run
def announced(collectors, orders):
    episodes = run(collectors, orders)
    print("the first env step is done", flush=True)
    return episodes
Collectors.run = announced
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start_up() -> Sides:
    """From the start of the process, with an exploration of one env step."""
    flags = ["--model=builtin", f"--env-name={TASK}", "--device=cpu", "--init-exploration-steps=1"]

    def seconds() -> float:
        with tempfile.TemporaryDirectory() as logs:
            command = [sys.executable, "-c", _ANNOUNCED, "lares_from_scratch.py", *flags, f"--log-dir={logs}"]
            began = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
                assert process.stdout is not None
                if not any("the first env step is done" in line for line in process.stdout):
                    raise RuntimeError("the run ended before its first env step")
                took = time.perf_counter() - began
                process.kill()
                process.stdout.close()
        return took

    return seconds, None


# --- on a GPU ---------------------------------------------------------------------------------------------------------


def gpu_capture() -> Sides:
    captured, uncaptured = Learning(CUDA), Learning(CUDA)
    return captured.update, lambda: uncaptured.update(learn_uncaptured)


def gpu_updates() -> Sides:
    learning = Learning(CUDA)
    return lambda: 1 / learning.update(), None


def gpu_loop() -> Sides:
    loop = Loop(CUDA)
    return lambda: 1 / loop.seconds(), None


def gpu_population() -> Sides:
    return Learning(CUDA, count=20).update, Learning(CUDA).update


# --- how the cost of an update grows ----------------------------------------------------------------------------------

SCALING: dict[str, Sequence[int]] = {
    "population": (1, 2, 5, 10, 20),
    "hidden size": (64, 128, 256, 512),
    "buffer rows": (10_000, 100_000, MILLION),
}


def scaling_samples(device: torch.device) -> dict[str, dict[int, Sample]]:
    """For each axis and each value on it, seconds per update; everything else is as in the table."""
    makes: dict[str, Callable[[int], Learning]] = {
        "population": lambda count: Learning(device, count=count),
        "hidden size": lambda width: Learning(device, config=replace(CONFIG, hidden_size=width)),
        "buffer rows": lambda rows: Learning(device, rows=rows),
    }
    return {axis: {value: makes[axis](value).update for value in values} for axis, values in SCALING.items()}
