"""Which agents take part: the only place where an agent drops out, and where it returns fit to learn and act.

An agent plays while its networks are finite and its reward function works. An agent that plays has finite networks,
a complete reward column, and critics that were learned on that column or fit its scale.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from arguments import Arguments
from errors import WARNING
from population import Population
from replay_buffer import ReplayBuffer
from reward_code import Failure, RewardWorkers
from runs.log import RunLog
from runs.round_block import Standing
from search.choice import order_share
from search.feedback import AgentReport, report_on
from search.reward_function import RewardFunction
from search.scoring import Experience, sampled
from tasks.episode import Score


class Roster:
    """The agents: which reward function each one plays with, or why it does not play.

    Args:
        args: the flags.
        population: the agents' networks.
        buffer: the agents' reward columns.
        workers: processes that evaluate reward functions.
        log: informs the user, and keeps the functions' files.
        human: the agent after the slots that learns from the environment's own reward, if there is one.

    Attributes:
        functions: the reward function in each slot.
        success_now: the best agent's success rate in the last evaluation, None before the first.
        best_so_far: the highest success rate of each agent in any evaluation since it got its reward function.
        nearest: how near to success each agent came in the best evaluation since the last search round (see
            `Score.distance`): even a policy that has been lost since shows where its reward leads.
        diverged: agents whose networks are unusable, with the reason. Their reward functions are still evaluated, so
            that their columns stay complete.
        failed: agents whose reward function failed, with the reason. Their columns are incomplete, so only a new
            function brings them back.
    """

    def __init__(
        self,
        args: Arguments,
        population: Population,
        buffer: ReplayBuffer,
        workers: RewardWorkers,
        log: RunLog,
        human: int | None,
    ) -> None:
        self._args = args
        self._population = population
        self._buffer = buffer
        self._workers = workers
        self._log = log
        self._human = human
        self.functions: dict[int, RewardFunction] = {}
        self.success_now: float | None = None
        self.best_so_far: dict[int, float] = {}
        self.nearest: dict[int, float] = {}
        self.diverged: dict[int, str] = {}
        self.failed: dict[int, str] = {}
        self._good = [population.agent_state(agent) for agent in range(population.count)]

    def plays(self, agent: int) -> bool:
        """Return whether the agent plays."""
        return agent not in self.diverged and agent not in self.failed

    @property
    def playing(self) -> list[int]:
        """All agents that play."""
        return [agent for agent in range(self._population.count) if self.plays(agent)]

    @property
    def out(self) -> dict[int, str]:
        """Every agent that does not play, with the reason."""
        return dict(sorted({**self.diverged, **self.failed}.items()))

    # --- reward functions -------------------------------------------------------------------------------------------

    def reward(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Write every agent's rewards for buffer rows [start, stop); take out agents whose function fails there."""
        joined: list[tuple[int, int]] = []
        for start, stop in ranges:  # one request for adjacent rows, rather than one per episode
            first = joined.pop()[0] if joined and joined[-1][1] == start else start
            joined.append((first, stop))
        for start, stop in joined:
            slots = [slot for slot in self.functions if slot not in self.failed]
            sources = [self.functions[slot].source for slot in slots]
            for slot, rewards in zip(slots, self._workers.evaluate_rows(sources, start, stop), strict=True):
                if isinstance(rewards, Failure):
                    self.failed[slot] = f"its reward function failed {self.reject(self.functions[slot], rewards)}"
                    self._log.say(f"{WARNING}agent {slot} is out until the next search round: {self.failed[slot]}")
                else:
                    self._buffer.set_rewards(slot, start, stop, rewards)
            if self._human is not None:
                self._buffer.set_rewards(self._human, start, stop, self._buffer.columns["env_reward"][start:stop])

    def experience(self) -> Experience | None:
        """Return a sample of the stored episodes, on which candidates are scored; None while there are none."""
        solved, distance = self._buffer.episode_success(), self._buffer.episode_distance()
        every = self._buffer.episode_rows()
        chosen, rows = sampled(solved, every)
        if not len(chosen):
            return None
        columns = {name: self._buffer.columns[name][np.concatenate(rows)] for name in self._buffer.reward_table.columns}
        return Experience(columns, [len(part) for part in rows], solved[chosen], distance[chosen])

    def renew(self, slots: Sequence[int], functions: Iterable[RewardFunction], best: int, round: int) -> list[int]:
        """Give `slots` new functions one by one, as :meth:`replace` does; return the slots that got one."""
        newcomers: list[int] = []
        for function in functions:
            if self.replace(slots[len(newcomers)], function, best, round):
                newcomers.append(slots[len(newcomers)])
        return newcomers

    def replace(self, slot: int, function: RewardFunction, best: int, round: int) -> bool:
        """Give `slot` a new function on the scale of agent `best`, relabeling the whole buffer.

        Return whether it succeeded; a function that fails on a stored transition, or ranks solved episodes too low, is
        rejected.
        """
        size = self._buffer.size
        [rewards] = self._workers.evaluate_rows([function.source], 0, size)
        if isinstance(rewards, Failure):
            self._log.say(f"function {function.id} is rejected {self.reject(function, rewards)}")
            return False
        function.order = self.order_share(rewards)
        if function.order is not None:
            ranks = f"{function.order:.0%} of the solved episodes above every unsolved one"
            self._log.say(f"function {function.id} ranks {ranks}")
            if function.order < self._args.order_check:
                function.reject("order", f"it ranks only {ranks}; {self._args.order_check:.0%} are needed")
                return False
        if self._args.buffer_transfer:
            rewards = self._buffer.columns["rewards"][:size, best].copy()
        if size:
            function.raw_mean, function.raw_std = float(rewards.mean(dtype=float)), float(rewards.std(dtype=float))
        self._buffer.set_rewards(slot, 0, size, rewards)
        if bounded := self._buffer.rescale(slot, best, self._args.scale_type):
            self._log.say(f"function {function.id}: {bounded}")
        self.install(slot, function, round)
        return True

    def install(self, slot: int, function: RewardFunction, round: int) -> None:
        """Add a function to the population, and write its code and response to the run directory."""
        if slot in self.functions:
            function.replaced = self.functions[slot].id
        function.slot = slot
        function.scale, function.shift = float(self._buffer.scale[slot]), float(self._buffer.shift[slot])
        self.functions[slot] = function
        self.best_so_far.pop(slot, None)
        self._log.write_text(f"Iter_{round}_Reward_Code_{slot}.py", function.source)
        self._log.write_text(f"Iter_{round}_Response_{slot}.txt", function.response)
        self._log.boards.reward_code(slot, function.source, round)

    def keep_scores(self, round: int, env_steps: int, scores: Mapping[int, Score], ranking: Sequence[int]) -> None:
        """Keep the agents' scores in an evaluation, in the order of `ranking`, and the policies behind them.

        The functions' records and the policies' files, in the run directory, are those of a round's last evaluation.
        """
        actors = {agent: self._population.networks(agent)["best_actor_net"] for agent in ranking}
        self._log.write_networks({f"Iter_{round}_Actor_{agent}": actor for agent, actor in actors.items()})
        self.success_now = scores[ranking[0]].success_rate
        for rank, agent in enumerate(ranking, 1):
            self.best_so_far[agent] = max(self.best_so_far.get(agent, 0.0), scores[agent].success_rate)
            self.nearest[agent] = min(self.nearest.get(agent, np.inf), scores[agent].distance)
            if agent in self.functions:
                function = self.functions[agent]
                function.scores[str(round)] = figures = {**scores[agent].summary(), "rank": rank}
                kept = {name: figures[name] for name in ("success_rate", "nearest_distance")}
                function.evaluations[str(env_steps)] = {"round": round, **kept}
                function.components = dict(self.report(agent, scores[agent]).components)

    def standings(self, scores: Mapping[int, Score], ranking: Sequence[int], elites: Collection[int]) -> list[Standing]:
        """Return the standing of every agent: those in `ranking` in its order, then those without a score."""
        without = [agent for agent in range(self._population.count) if agent not in ranking]
        return [
            Standing(
                agent,
                self.functions[agent].id if agent in self.functions else None,
                scores[agent].success_rate if agent in scores else None,
                self.best_so_far.get(agent, 0.0),
                agent in elites,
            )
            for agent in [*ranking, *without]
        ]

    def report(self, agent: int, score: Score) -> AgentReport:
        """Return what the language model is told about an agent that was evaluated."""
        source = self.functions[agent].source if agent in self.functions else None
        order = self.order_share(self._buffer.columns["rewards"][: self._buffer.size, agent])
        return report_on(score, source, self._workers, order)

    def order_share(self, rewards: np.ndarray) -> float | None:
        """Return `search.choice.order_share` of rewards (size,) over the stored episodes."""
        return order_share(self._buffer.episode_means(rewards), self._buffer.episode_success())

    def reject(self, function: RewardFunction, failure: Failure) -> str:
        """Reject a function that failed; return why, and which file has the transition on which it failed."""
        function.reject(failure.kind, failure.reason)
        if failure.state is None:
            return f"({failure.reason})"
        name = f"Failed_State_{function.id}.json"
        self._log.write_json(name, failure.state)
        return f"({failure.reason}; the state is in {name})"

    # --- out --------------------------------------------------------------------------------------------------------

    def check_health(self, lost: Mapping[int, str]) -> None:
        """Take out agents whose networks are not finite, and those in `lost`, whose learner died during an update.

        When no slot plays any more, those that diverged go back to their last good networks.
        """
        broken = {int(agent): "they are not finite" for agent in np.flatnonzero(~self._population.finite())}
        for agent, reason in {**broken, **lost}.items():
            if agent not in self.diverged:
                self.diverged[agent] = f"its networks are unusable: {reason}"
                self._log.say(f"{WARNING}agent {agent} is out until the next search round: {self.diverged[agent]}")
        if self.diverged and not any(self.plays(slot) for slot in self.functions):
            self._log.say(
                f"{WARNING}no agent of the population is left; those that diverged go back to their last good networks"
            )
            for agent in list(self.diverged):
                self._restore(agent)

    # --- back -------------------------------------------------------------------------------------------------------

    def remember(self) -> None:
        """Keep the networks of every agent that plays, as a state to go back to."""
        for agent in self.playing:
            self._good[agent] = self._population.agent_state(agent)

    def succeed(self, best: int, newcomers: Sequence[int], elites: Sequence[int]) -> None:
        """Begin a new generation; afterwards all agents that diverged play again.

        Args:
            best: the agent from which others inherit.
            newcomers: slots with a new reward function, whose columns are complete and on the best one's scale.
            elites: agents that stay as they are.

        With `--inherit`, newcomers inherit everything that `best` has learned and are constrained to stay near it;
        without it, they keep their own networks. A human agent that is not elite inherits only the actor: its reward
        has not changed, so its critics are still valid.
        """
        diverged = list(self.diverged)
        for agent in diverged:  # critics learned on the agent's own column, which has not changed unless it inherits
            self._restore(agent)
        self._population.inherit(best, newcomers if self._args.inherit else [])
        if self._args.inherit:
            of_the_actor = {agent for agent in diverged if agent not in newcomers}
            if self._human is not None and self._human not in elites:
                of_the_actor.add(self._human)
            for agent in sorted(of_the_actor):
                self._population.inherit_actor(best, agent)
        for agent in newcomers:
            self.failed.pop(agent, None)
        self.nearest.clear()
        self.remember()

    def start_over(self, initial_seed: int) -> None:
        """Give every agent new networks, so that all that diverged play again."""
        self._population.start_over(initial_seed)
        self.diverged.clear()
        self.remember()

    def _restore(self, agent: int) -> None:
        self._population.load_agent_state(agent, self._good[agent])
        del self.diverged[agent]

    # --- saving -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return who is out and why, the last good networks, and how well each agent has done."""
        return {
            "diverged": dict(self.diverged),
            "failed": dict(self.failed),
            "good": self._good,
            "success_now": self.success_now,
            "best_so_far": dict(self.best_so_far),
            "nearest": dict(self.nearest),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.diverged = {int(agent): reason for agent, reason in state["diverged"].items()}
        self.failed = {int(agent): reason for agent, reason in state["failed"].items()}
        self._good = list(state["good"])
        self.success_now = state["success_now"]
        self.best_so_far = {int(agent): rate for agent, rate in state["best_so_far"].items()}
        self.nearest = {int(agent): distance for agent, distance in state["nearest"].items()}
