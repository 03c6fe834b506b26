"""The algorithm: search for the reward function that makes a robot learn.

Li et al., "LaRes: Evolutionary Reinforcement Learning with LLM-based Adaptive Reward Search", NeurIPS 2025. A language
model writes a population of reward functions; one SAC agent learns from each; all share one replay buffer in which
every transition carries the reward of every function; Thompson sampling decides whose policy collects; every `LLM_freq`
steps the agents are ranked, the best rewards stay, the model improves on them, and the whole buffer is relabeled.
"""

import concurrent.futures
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from arguments import Arguments, Setting
from errors import RunError
from population import Population
from replay_buffer import EXPLORATION, ReplayBuffer
from reward_code import Failure, RewardWorkers
from runs.forecast import forecast
from runs.interruption import Interruption
from runs.log import RunLog, duration
from sac import new_agents
from search.builtin import ProgramSearch
from search.protocol import LanguageModel
from search.rounds import AgentReport, Program, RewardSearch
from task_specs import Task
from tasks.environment import record_probe
from tasks.episode import UNIFORM, Episode, Order, Score
from thompson import ThompsonSampler
from workers.collectors import Collectors, PolicyShape

# What a seed is for, so that no two uses of the run's seed can meet.
PROBE, EXPLORE, COLLECT, EVALUATE, FINAL, LEARNING, ARMS, NOISE = range(8)

# Why an agent is out of the game until the next search round.
BROKEN = "its networks are broken"
FAILED = "its reward function failed"


def seed_for(seed: int, *use: int) -> int:
    """A seed of its own for each use of a run's seed."""
    return int(np.random.SeedSequence([seed, *use]).generate_state(1)[0])


@dataclass(frozen=True)
class Champion:
    """The policy that did best in any evaluation so far."""

    agent: int
    score: Score
    weights: np.ndarray


class LaRes:
    """One run.

    Agents 0 to pop_size - 1 hold the slots of the population. With the human-designed reward at hand there is one more,
    the human agent, which learns from the environment's own reward and is never replaced.

    Args:
        args: the flags, see `arguments`.
        setting: "from_scratch" or "with_init"; the two differ in the prompts and in the human agent, in nothing else.
        task: what is to be learned.
        log: where everything goes that the run leaves behind.
        interruption: tells whether the user wants the run to end.
    """

    def __init__(
        self,
        args: Arguments,
        setting: Setting,
        task: Task,
        model: LanguageModel,
        builtin: ProgramSearch,
        log: RunLog,
        interruption: Interruption,
    ) -> None:
        self.args, self.task, self.log, self.interruption = args, task, log, interruption
        self.slots = list(range(args.pop_size))
        self.human = args.pop_size if setting == "with_init" else None
        self.agents = self.slots if self.human is None else [*self.slots, self.human]
        self.decisions = args.episode_length // args.action_repeat

        device = torch.device(args.device)
        config = args.sac_config(task.obs_size, task.action_size)
        self.buffer = ReplayBuffer(
            args.buffer_size, task.obs_size, task.action_size, task.variable_width, len(self.agents), device,
            shared=bool(args.shared_buffer),
        )  # fmt: skip
        self.reward_workers = RewardWorkers(task.inputs, args.num_workers, self.buffer.reward_table)
        self.population = Population(
            config, self.buffer, self.seed(LEARNING, 0), self.seed(LEARNING, 1), args.num_learners
        )
        self.collectors = Collectors(
            task,
            PolicyShape(self.population.sizes, args.log_std_min, args.log_std_max),
            len(self.agents) + 1,
            args.num_workers,
            bool(args.hide_goal),
            args.action_repeat,
        )
        # Behind the agents' policies stands one that is never trained, for --explore_episode.
        self.untrained = len(self.agents)
        stranger = new_agents(config, 1, torch.device("cpu"))
        stranger.initialize(torch.Generator().manual_seed(self.seed(LEARNING, self.untrained)))
        self.collectors.set_policies(np.concatenate([self.population.policies(), stranger.actors.row(0)[None]]))
        self.search = RewardSearch(
            task,
            model,
            self.reward_workers,
            record_probe(task, self.seed(PROBE), bool(args.hide_goal), args.action_repeat),
            builtin=builtin,
            setting=setting,
            episode_length=args.episode_length,
            attempts=args.llm_attempts,
            deadline=args.llm_deadline,
            human_feedback=args.human_feedback,
            log=log.say,
            record=lambda row: log.append("llm.jsonl", row),
            check_order=self.order_share,
            order_threshold=args.order_check,
            stop=interruption.requested,
        )
        self.thompson = ThompsonSampler(len(self.agents), args.windows_length)
        self.arm_generator = np.random.default_rng(self.seed(ARMS))
        self.background = concurrent.futures.ThreadPoolExecutor(1)  # where agents learn while others collect

        self.programs: dict[int, Program] = {}  # the reward function in each slot
        self.masked: dict[int, str] = {}  # agents out of the game until the next search round, and why
        self.relabeled: dict[str, np.ndarray | Failure] = {}  # the stored transitions' rewards under new functions
        self.scores: dict[int, Score] = {}  # of the last evaluation
        self.round_costs: list[dict[str, int]] = []  # calls and tokens of each search round
        self.champion: Champion | None = None
        self.snapshot = self.population.state_dict()
        self.losses: dict[str, np.ndarray] = {}
        self.lost: dict[int, str] = {}  # agents whose learner ended in the midst of an update, and how
        self.env_steps = self.iteration = self.round = self.evaluations = 0
        self.updates_due = 0.0
        self.last_search = self.last_evaluation = 0

    def seed(self, *use: int) -> int:
        """A seed of its own for each use of the run's seed."""
        return seed_for(self.args.seed, *use)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def train(self) -> str:
        """From nothing to the last env step; returns what ended it: "finished", "solved" or "interrupted"."""
        self.begin()
        while self.env_steps < self.args.total_timesteps:
            if self.env_steps - self.last_search >= self.args.LLM_freq:
                self.search_round()
            self.collect()
            if not self.args.overlap:
                self.learn()
            self.watch()
            if self.interruption.signal:
                return "interrupted"
            if self.env_steps - self.last_evaluation >= self.args.display_interval:
                self.evaluate()
            if self.champion and 0 < self.args.stop_success <= self.champion.score.success_rate:
                return "solved"
        return "finished"

    def begin(self) -> None:
        """The first population, and random actions for it to learn from."""
        for slot, program in enumerate(self.search.initial(len(self.slots))):
            self.install(slot, program)
        self.round_costs.append(vars(self.search.round_usage))
        if self.reward_workers.gap:
            self.log.say(self.reward_workers.gap)
        orders: list[Order] = []
        left = self.args.init_exploration_steps // self.args.action_repeat
        while left > 0:
            seed, noise = self.seed(EXPLORE, len(orders)), self.seed(NOISE, EXPLORE, len(orders))
            orders.append(Order(UNIFORM, seed, min(left, self.decisions), noise))
            left -= self.decisions
        began = time.monotonic()
        self.store(self.collectors.run(orders), [EXPLORATION] * len(orders))
        env_step = (time.monotonic() - began) / max(self.env_steps, 1)
        self.log.say(forecast(self.args, self.population, env_step))
        self.log.begin_progress(self.env_steps, self.args.total_timesteps)

    def collect(self) -> None:
        """One episode of each chosen agent's policy, in parallel; with --overlap the agents learn in the meantime."""
        self.iteration += 1
        arms = self.choose_arms()
        self.collectors.set_policies(self.population.policies())
        orders = [
            Order(
                arm,
                self.seed(COLLECT, self.iteration, arm),
                self.decisions,
                self.seed(NOISE, COLLECT, self.iteration, arm),
            )
            for arm in arms
        ]
        learning = self.background.submit(self.learn) if self.args.overlap else None
        episodes = self.collectors.run(orders)
        if learning:
            learning.result()
        self.store(episodes, [EXPLORATION if arm == self.untrained else arm for arm in arms])
        for arm, episode in zip(arms, episodes, strict=True):
            if arm != self.untrained:
                self.thompson.update(arm, bool(episode.success[-1]))
            self.updates_due += self.args.update_cycles * len(episode.success)

    def choose_arms(self) -> list[int]:
        """The policies that collect next."""
        alive = [slot for slot in self.slots if slot not in self.masked]
        if not alive:
            arms = []
        elif self.args.selection == "thompson":
            arms = self.thompson.draw(alive, len(self.slots), self.arm_generator)
        elif self.args.selection == "uniform":
            arms = sorted({alive[pick] for pick in self.arm_generator.integers(len(alive), size=len(self.slots))})
        else:
            arms = alive
        if self.human is not None and self.human not in self.masked:
            arms = [*arms, self.human]
        return [*arms, self.untrained] if self.args.explore_episode else arms

    def store(self, episodes: Sequence[Episode], collectors: Sequence[int]) -> None:
        """Put episodes into the buffer, with the reward of every function."""
        stored: list[tuple[int, int]] = []
        for episode, collector in zip(episodes, collectors, strict=True):
            if not self.args.bootstrap_timeouts:
                episode.transitions["terminal"][-1] = 1.0
            self.env_steps += len(episode.success) * self.args.action_repeat
            for start, stop in self.buffer.add(episode.transitions, collector, bool(episode.success.any())):
                # Rows that follow each other are one range: a worker is asked once, not once an episode.
                first = stored.pop()[0] if stored and stored[-1][1] == start else start
                stored.append((first, stop))
        for start, stop in stored:
            sound = [slot for slot in self.slots if slot not in self.masked]
            sources = [self.programs[slot].source for slot in sound]
            for slot, rewards in zip(sound, self.reward_workers.evaluate_rows(sources, start, stop), strict=True):
                if isinstance(rewards, Failure):
                    self.mask(slot, FAILED, self.reject(self.programs[slot], rewards))
                else:
                    self.buffer.set_rewards(slot, start, stop, rewards)
            if self.human is not None:
                self.buffer.set_rewards(self.human, start, stop, self.buffer.columns["env_reward"][start:stop])

    def learn(self) -> None:
        """SAC updates of every agent, each on its own reward column, for all transitions that are new."""
        due = int(self.updates_due)
        self.lost = self.population.learn(self.args.batch_size, due, self.interruption.requested)
        self.updates_due -= due

    def watch(self) -> None:
        """See how learning went: read the losses, and take out who has diverged or been lost."""
        self.losses = self.population.losses()
        broken = {int(agent): "not finite" for agent in np.flatnonzero(~self.population.finite())}
        broken |= {agent: f"its learner {death}" for agent, death in self.lost.items()}
        for agent, detail in broken.items():
            if agent not in self.masked:
                self.mask(agent, BROKEN, f"({detail})")
        if all(slot in self.masked for slot in self.slots):
            self.recover()
        self.log.progress(self.env_steps, self.champion.score.success_rate if self.champion else None, self.cost())

    def search_round(self) -> None:
        """Rank, keep the elites, replace the other reward functions, relabel, rescale, inherit."""
        scores = self.scores if self.last_evaluation == self.env_steps else self.evaluate()
        self.round += 1
        ranking = self.rank(scores)
        best, elites = ranking[0], ranking[: self.args.elite_num]
        open_slots = sorted(set(self.slots) - set(elites), key=lambda slot: slot not in self.masked)
        reports = {agent: self.report(agent, scores[agent]) for agent in elites}

        self.relabeled.clear()
        newcomers = self.search.improve(
            self.round,
            None if best == self.human else self.programs[best],
            reports[best],
            [(self.programs[agent], reports[agent]) for agent in elites if agent != self.human],
            len(open_slots),
        )
        self.round_costs.append(vars(self.search.round_usage))
        replaced = [
            slot for slot, program in zip(open_slots, newcomers, strict=False) if self.replace(slot, program, best)
        ]
        broken = [agent for agent, why in self.masked.items() if why == BROKEN and agent not in replaced]
        heirs = replaced if self.args.inherit else []
        self.population.inherit(best, [*heirs, *broken])
        if self.args.inherit and self.human is not None and self.human not in elites:
            # Its own reward has not changed, so its critics are still right, and nothing holds it near the best agent.
            self.population.inherit_actor(best, self.human)
        self.masked = {slot: why for slot, why in self.masked.items() if slot not in [*replaced, *broken]}
        self.thompson.reset()
        self.last_search = self.env_steps
        self.snapshot = self.population.state_dict()
        self.log.population(self.search.programs)

    def replace(self, slot: int, program: Program, best: int) -> bool:
        """Give `slot` a new reward function over the whole buffer, on the scale of the best one, unless it fails."""
        if self.args.buffer_transfer:
            rewards: np.ndarray | Failure = self.buffer.columns["rewards"][: self.buffer.size, best].copy()
        else:
            rewards = self.relabel(program.source)
        if isinstance(rewards, Failure):
            self.log.say(f"slot {slot} keeps its reward function: the new one failed {self.reject(program, rewards)}")
            return False
        self.buffer.set_rewards(slot, 0, self.buffer.size, rewards)
        self.buffer.rescale(slot, best, self.args.scale_type)
        self.install(slot, program)
        return True

    def relabel(self, source: str) -> np.ndarray | Failure:
        """The rewards of every stored transition under a new function."""
        if source not in self.relabeled:
            [self.relabeled[source]] = self.reward_workers.evaluate_rows([source], 0, self.buffer.size)
        return self.relabeled[source]

    def rank(self, scores: dict[int, Score]) -> list[int]:
        """The agents, best first. When every success rate is zero, the return alone decides; then the lower index."""
        return sorted(scores, key=lambda agent: self.fitness(scores[agent]), reverse=True)

    def fitness(self, score: Score) -> tuple[float, ...]:
        """What agents are ranked by, the first number before the second."""
        return (score.env_return,) if self.args.fitness == "return" else (score.success_rate, score.env_return)

    # --- what happens on the way ------------------------------------------------------------------------------------

    def evaluate(self) -> dict[int, Score]:
        """Deterministic episodes of every agent that is in the game; keeps the best policy seen so far."""
        self.evaluations += 1
        self.last_evaluation = self.env_steps
        sound = [agent for agent in self.agents if agent not in self.masked]
        # The same episodes for every agent: chance must not decide which is better.
        seeds = [self.seed(EVALUATE, self.evaluations, number) for number in range(self.args.eval_episodes)]
        policies = self.population.policies()
        self.collectors.set_policies(policies)
        orders = [Order(agent, seed, self.decisions) for agent in sound for seed in seeds]
        episodes = self.collectors.run(orders)
        scores = {agent: Score(episodes[i * len(seeds) : (i + 1) * len(seeds)]) for i, agent in enumerate(sound)}
        best = self.rank(scores)[0]
        if self.champion is None or self.fitness(scores[best]) >= self.fitness(self.champion.score):
            self.champion = Champion(best, scores[best], policies[best])
            self.log.write_networks(self.population.networks(best))
        self.scores = scores
        self.snapshot = self.population.state_dict()
        for slot, program in self.programs.items():
            if slot in scores:
                program.scores[str(self.round)] = scores[slot].summary()
        agents = {
            agent: {
                **score.summary(),
                "thompson": self.thompson.rates()[agent],
                **{name: values[agent] for name, values in self.losses.items()},
            }
            for agent, score in scores.items()
        }
        row = {
            "round": self.round,
            "best": {"agent": best, **agents[best]},
            "agents": agents,
            "masked": self.masked,
            "llm": self.cost(),
            "protocol": self.protocol(self.args.eval_episodes),
        }
        self.log.metrics(self.env_steps, row)
        return scores

    def report(self, agent: int, score: Score) -> AgentReport:
        """What the language model is told of an agent."""
        own_return, components = score.env_return, {}
        if agent != self.human:
            columns = score.columns("next_obs", "action", "variables")
            [evaluation] = self.reward_workers.evaluate([self.programs[agent].source], columns, components=True)
            if isinstance(evaluation, Failure):
                own_return = np.nan
            else:
                own_return = float(evaluation.rewards.sum(dtype=np.float64)) / len(score.episodes)
                components = {
                    name: (float(values.mean()), float(values.min()), float(values.max()))
                    for name, values in evaluation.components.items()
                }
        return AgentReport(score.success_rate, score.env_return, own_return, components, score.metrics)

    def order_share(self, source: str) -> float | None:
        """Share of the stored successful episodes whose mean reward beats that of every failed one.

        Sun et al., "A Large Language Model-Driven Reward Code Design Framework via Dynamic Feedback" (CARD), 2024. None
        while the buffer does not hold episodes of both kinds.
        """
        success = self.buffer.episode_success()
        if success.all() or not success.any():
            return None
        rewards = self.relabel(source)
        if isinstance(rewards, Failure):
            return None
        means = self.buffer.episode_means(rewards)
        return float((means[success] > means[~success].max()).mean())

    def install(self, slot: int, program: Program) -> None:
        """Enter a program into the population, and its code and response into the run directory."""
        program.slot = slot
        program.scale, program.shift = float(self.buffer.scale[slot]), float(self.buffer.shift[slot])
        self.programs[slot] = program
        self.log.write_text(f"Iter_{self.round}_Reward_Code_{slot}.py", program.source)
        self.log.write_text(f"Iter_{self.round}_Response_{slot}.txt", program.response)

    def mask(self, agent: int, why: str, detail: str = "") -> None:
        """Take an agent out of the game until the next search round gives it a new start."""
        self.masked[agent] = why
        self.log.say(f"agent {agent} is out until the next search round: {why} {detail}".rstrip())

    def reject(self, program: Program, failure: Failure) -> str:
        """Count a function as rejected after all; returns why, and which file has the transition on which it failed."""
        program.accepted, program.kind, program.reason = False, failure.kind, failure.reason
        self.search.rejected[failure.kind] += 1
        if failure.state is None:
            return f"({failure.reason})"
        name = f"Failed_State_{program.id}.json"
        self.log.write_json(name, failure.state)
        return f"({failure.reason}; the state is in {name})"

    def recover(self) -> None:
        """Nobody in the population is left: go back to the networks of the last evaluation or search round."""
        if BROKEN in self.masked.values():
            self.log.say("no agent is left; going back to the networks of the last evaluation or search round")
            self.population.load_state_dict(self.snapshot)
            self.masked = {agent: why for agent, why in self.masked.items() if why == FAILED}
        elif self.human is None:
            raise RunError(f"every reward function of the population has failed; see {self.log.directory / 'run.log'}")

    def cost(self) -> dict[str, Any]:
        """What the language model has cost: calls, tokens, money at the given prices, and the same of each round."""
        usage = self.search.model.usage
        money = (usage.tokens_in * self.args.price_in + usage.tokens_out * self.args.price_out) / 1e6
        return {**vars(usage), "cost": money, "rounds": self.round_costs}

    def protocol(self, episodes: int) -> dict[str, Any]:
        """How a success rate was measured."""
        return {
            "episodes": episodes,
            "episode_length": self.args.episode_length,
            "action_repeat": self.args.action_repeat,
            "goal_visible": not self.args.hide_goal,
        }

    # --- the end ----------------------------------------------------------------------------------------------------

    def finish(self, status: str) -> None:
        """Evaluate the chosen policy in fresh episodes, on which nothing was selected, and write the summary."""
        summary: dict[str, Any] = {"status": status, "final_success_rate": None}
        if status != "interrupted":
            if self.last_evaluation < self.env_steps:
                self.evaluate()
            assert self.champion is not None
            self.collectors.set_policies(self.champion.weights[None])
            seeds = [self.seed(FINAL, number) for number in range(self.args.final_episodes)]
            score = Score(self.collectors.run([Order(0, seed, self.decisions) for seed in seeds]))
            from scipy import stats  # needed once, here, and slow to load

            solved = round(score.success_rate * len(seeds))
            interval = stats.binomtest(solved, len(seeds)).proportion_ci(method="wilson")
            summary |= {
                **{f"final_{name}": value for name, value in score.summary().items()},
                "final_success_interval": [interval.low, interval.high],
                "protocol": self.protocol(len(seeds)),
                "chosen_agent": self.champion.agent,
            }
            self.log.say(
                f"final success rate {score.success_rate:.2f} (95% interval {interval.low:.2f} to {interval.high:.2f}) "
                f"over {len(seeds)} fresh episodes; {self.env_steps:,} env steps in {duration(self.log.wall_time)}"
            )
        else:
            kept = (
                f"the best policy so far is in {self.log.directory}" if self.champion else "no policy is evaluated yet"
            )
            self.log.say(f"stopped after {self.env_steps:,} env steps; {kept}")
        self.log.population(self.search.programs)
        summary |= {
            "env_steps": self.env_steps,
            "wall_time": round(self.log.wall_time, 3),
            "llm": {**self.cost(), "rejected": dict(self.search.rejected)},
        }
        self.log.write_json("summary.json", summary)

    def close(self) -> None:
        """End all workers."""
        self.background.shutdown()
        self.population.close()
        self.collectors.close()
        self.reward_workers.close()
