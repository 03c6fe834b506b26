"""Runs on the nodes of a Ray cluster: each is a Ray task, which sees it through on the node that Ray picks.

Nodes share the project, its Python, and the sweep's directory, all under the same paths. A language model's key is
taken from each node's own environment; it never travels through Ray.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from errors import RunError, UsageError, one_line
from runs.interruption import Interruption
from sweeps.limits import Bounds, Limits
from sweeps.local import POLL_INTERVAL, PROJECT, Crew, give_up
from sweeps.plan import FILE, PlannedRun

_ASK_INTERVAL = 1.0  # seconds after which a task asks again whether it is to end


class Cluster:
    """The cluster that ``RAY_ADDRESS`` names.

    Args:
        cpus: cores per run.
        gpus: GPUs per run, which may be a fraction.

    Raises:
        UsageError: Ray is not installed, or no cluster answers there.
    """

    def __init__(self, cpus: int, gpus: float) -> None:
        self._needs = {"CPU": cpus, "GPU": gpus}
        address = os.environ["RAY_ADDRESS"]
        try:
            import ray
        except ImportError:
            raise UsageError(
                "RAY_ADDRESS is set, and this Python has no ray; get it with pip install -r "
                f"{PROJECT / 'sweeps' / 'requirements.txt'}, or unset RAY_ADDRESS to use this machine alone"
            ) from None
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": {"PYTHONPATH": str(PROJECT)}},
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"no cluster answers at RAY_ADDRESS={address} ({one_line(error)})") from None
        signal.signal(signal.SIGTERM, handler)  # Ray installs its own, which would not wait for the runs
        self._ray: Any = ray

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster, which ends whatever is still running there."""
        self._ray.shutdown()

    def at_once(self, needed: Collection[float]) -> int:
        """Return how many runs, which need so many bytes of memory each, the cluster holds as it is now."""
        needs = {**self._needs, "memory": max(needed)}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        held = [min(int(node.get(name, 0) / need) for name, need in needs.items() if need) for node in nodes]
        return max(sum(held), 1)

    def see_through(
        self,
        directory: Path,
        runs: Sequence[PlannedRun],
        needed: Mapping[str, float],
        tries: int,
        bounds: Bounds,
        interruption: Interruption,
        look: Callable[[], None],
    ) -> None:
        """See runs through, like `sweeps.local.Machine.see_through`; requests for checkpoints are not passed on."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray, directory = self._ray, directory.absolute()
        # On this process's node, since the sweep ends with it anyway.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        center = ray.remote(num_cpus=0, scheduling_strategy=here)(_Center).remote(bounds, directory)
        cpus, gpus = self._needs["CPU"], self._needs["GPU"]
        waiting = {}
        for run in runs:
            options = {"num_cpus": cpus, "num_gpus": gpus, "memory": int(needed[run.name]), "max_retries": tries - 1}
            task = ray.remote(_see_through).options(**options, name=run.name)
            waiting[task.remote(run, directory, tries, cpus, center, Path.cwd())] = run
        told = False
        while waiting:
            if interruption.signal and not told:
                told = True
                ray.get(center.tell.remote(interruption.signal))
            ended, _ = ray.wait(list(waiting), timeout=POLL_INTERVAL)
            for task in ended:
                run = waiting.pop(task)
                try:
                    ray.get(task)
                except ray.exceptions.RayError as error:
                    give_up(directory / run.name, one_line(getattr(error, "cause", None) or error))
            look()


class _Center:
    """An actor with what the tasks share: the signal that ends them, and the limits on what they send."""

    def __init__(self, bounds: Bounds, directory: Path) -> None:
        self._limits = Limits(bounds, directory) if bounds.any() else None
        self._signal: int | None = None

    def is_limited(self) -> bool:
        return self._limits is not None

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._limits
        return self._limits.answer(question)

    def tell(self, number: int) -> None:
        self._signal = number

    def told(self) -> int | None:
        return self._signal


class _Orders(Interruption):
    """Whether the sweep wants its runs to end; the center is asked now and then, and if it is gone, they end."""

    def __init__(self, center: Any) -> None:
        super().__init__()
        self._center = center
        self._next = 0.0
        # A task that waits in its main thread gives up its cores to another one.
        self._thread = ThreadPoolExecutor(1)

    def get(self, name: str, *arguments: Any) -> Any:
        """Return what a method of the center returns."""
        import ray

        return self._thread.submit(ray.get, getattr(self._center, name).remote(*arguments)).result()

    def ask(self) -> None:
        """Ask, unless that was done a moment ago."""
        from ray.exceptions import RayError

        if self.signal is None and time.monotonic() >= self._next:
            try:
                self.signal = self.get("told")
            except RayError:
                self.signal = signal.SIGTERM
            self._next = time.monotonic() + _ASK_INTERVAL


def _see_through(run: PlannedRun, directory: Path, tries: int, cpus: int, center: Any, cwd: Path) -> None:
    """See one run through, in one of Ray's processes."""
    if not (directory / FILE).exists():
        raise RunError(f"node {os.uname().nodename} does not see {directory}; the nodes must share it")
    os.chdir(cwd)  # flags may contain relative paths
    orders = _Orders(center)
    orders.ask()
    answer = partial(orders.get, "answer") if orders.get("is_limited") else None
    Crew(directory, 1, tries, cpus, answer).see_through([run], orders, orders.ask)
