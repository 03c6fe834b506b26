"""The steps of the algorithm: search for the reward function that makes a robot learn.

Li et al., "LaRes: Evolutionary Reinforcement Learning with LLM-based Adaptive Reward Search", NeurIPS 2025. A language
model writes a population of reward functions; one SAC agent learns from each; all share one replay buffer in which
every transition carries the reward of every function; Thompson sampling decides whose policy collects; every `LLM_freq`
steps the agents are ranked, the best rewards stay, the model improves on them, and the whole buffer is relabeled.

The loop that takes these steps is in `lares_from_scratch.py` and `lares_with_init.py`.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import time
from collections.abc import Sequence

import numpy as np
import torch

from arguments import Arguments, Setting, default_name, remarks_on
from errors import WARNING, RunError, UsageError
from population import Population
from replay_buffer import EXPLORATION, ReplayBuffer
from reward_code import RewardWorkers
from roster import Roster
from runs.champion import CANDIDATES, Candidate, Champions
from runs.dry_run import describe
from runs.forecast import forecast, on_this_machine, refuse_what_cannot_fit
from runs.interruption import Interruption
from runs.log import RunLog
from runs.resume import Checkpoints
from runs.round_block import round_block
from runs.summary import agents_row, protocol, sum_up
from search.builtin import ProgramSearch
from search.by_flags import connect_by_flags, search_by_flags
from task_specs import get_task
from tasks.environment import record_probe, start_remarks
from tasks.episode import Episode, Score, ranked, ranked_beyond_chance
from thompson import ThompsonSampler
from workers.collectors import Collectors, PolicyShape
from workers.machine import without_keys
from workers.randomness import Use, seed_for
from workers.simulator import Simulator

_COUNTERS = (
    *("env_steps", "iteration", "round", "evaluations", "confirmations", "updates_due", "updates_left"),
    *("last_search", "last_evaluation", "last_checkpoint"),
)
_PARTS = ("population", "search", "roster", "simulator", "thompson", "champions")


class LaRes(contextlib.AbstractContextManager["LaRes"]):
    """One run.

    Agents 0 to pop_size - 1 hold the slots of the population. The human agent, if there is one, comes after them: it
    learns from the environment's own, human-designed reward and is never replaced.

    Args:
        args: the flags, see `arguments`.
        interruption: tells whether the user wants the run to end.
        prompts: which prompts the model gets, a directory in ``prompts/``: "with_init" shows it the human reward.
        human_agent: whether the human agent takes part.
    """

    def __init__(self, args: Arguments, interruption: Interruption, *, prompts: Setting, human_agent: bool) -> None:
        self.args = args = on_this_machine(args)
        self.interruption = interruption
        self.seed = functools.partial(seed_for, args.seed)  # derives a separate seed for each use
        torch.set_num_threads(1)  # learners and workers are processes that compute on one thread each
        with without_keys():
            self.task = task = get_task(args.env_name, args.task_file)
        if not task.success_expression and args.fitness == "success":
            raise UsageError(f"task {task.name} does not say when it is solved; give --fitness return")
        if args.dry_run:
            print(describe(args, task, self.seed(Use.PROBE)))
            raise SystemExit
        refuse_what_cannot_fit(args, task, args.pop_size + human_agent)
        human_reward = task.human_reward.source if human_agent and task.human_reward else None
        builtin = ProgramSearch(task, self.seed(Use.BUILTIN), human_reward)
        model = connect_by_flags(args, task.name, builtin)
        self.log = RunLog(args.log_dir, args.exp_name or default_name(args), vars(args), args.resume)
        self.log.say(f"{args.setting} on {task.name} with {args.model}, seed {args.seed}, in {self.log.directory}")
        for remark in (*remarks_on(args), *start_remarks(task)):
            self.log.say(f"{WARNING}{remark}")

        self.slots = list(range(args.pop_size))
        self.human = args.pop_size if human_agent else None
        self.agents = self.slots if self.human is None else [*self.slots, self.human]
        device, config = torch.device(args.device), args.sac_config(task.obs_size, task.action_size)
        self.buffer = ReplayBuffer(
            args.buffer_size, task.obs_size, task.action_size, task.variable_width, len(self.agents), device,
            shared=bool(args.shared_buffer),
        )  # fmt: skip
        self.reward_workers = RewardWorkers(task.inputs, args.num_workers, self.buffer.reward_table)
        self.population = Population(
            config, self.buffer, self.seed(Use.NETWORKS), self.seed(Use.BATCHES), args.num_learners
        )
        self.roster = Roster(args, self.population, self.buffer, self.reward_workers, self.log, self.human)
        # After the policies of the agents, or of candidates, comes one that is never trained (--explore_episode).
        self.untrained = max(len(self.agents), CANDIDATES)
        shape = PolicyShape(self.population.sizes, args.log_std_min, args.log_std_max, args.activation)
        self.collectors = Collectors(
            task, shape, self.untrained + 1, args.num_workers, bool(args.hide_goal), args.action_repeat
        )
        initial = self.population.untrained_policy(self.seed(Use.UNTRAINED))
        self.collectors.set_policies(np.tile(initial, (self.untrained + 1, 1)))
        decisions = args.episode_length // args.action_repeat
        self.simulator = Simulator(self.collectors, args.seed, decisions, args.success, self.log.say)
        probe = record_probe(task, self.seed(Use.PROBE), bool(args.hide_goal), args.action_repeat)
        self.search = search_by_flags(
            args, task, model, builtin, self.reward_workers, probe, setting=prompts,
            log=self.log.say,
            record=lambda row: self.log.append("llm.jsonl", row),
            reject=self.roster.reject,
            stop=interruption.requested,
        )  # fmt: skip
        self.thompson = ThompsonSampler(len(self.agents), args.windows_length, self.seed(Use.ARMS))
        self.background = concurrent.futures.ThreadPoolExecutor(1)  # collects while the agents learn, with --overlap
        self.arriving: concurrent.futures.Future[list[tuple[int, Episode]]] | None = None

        self.scores: dict[int, Score] = {}  # of the last evaluation
        self.champions = Champions()
        self.status = "running"
        self.round_given_up = False  # by an interruption
        self.env_steps = self.iteration = self.round = self.evaluations = self.confirmations = 0
        self.updates_due = 0.0
        self.updates_left = 0  # of an iteration that an interruption cut short
        self.last_search = self.last_evaluation = self.last_checkpoint = 0
        parts = {name: getattr(self, name) for name in _PARTS}
        self.checkpoints = Checkpoints(self.log, self.buffer, task.inputs, parts)
        if args.resume:
            self.restore()

    # --- schedule ---------------------------------------------------------------------------------------------------

    @property
    def is_new(self) -> bool:
        """Whether the run is new, rather than resumed from a checkpoint."""
        return not self.roster.functions

    def goes_on(self) -> bool:
        """Update `status`; return whether the run should continue."""
        if self.interruption.signal:
            self.status = "interrupted"
        elif self.champions.reached(self.args.stop_success):
            self.status = "solved"
        elif self.env_steps >= self.args.total_timesteps and not self.updates_left:
            self.status = "finished"
        return self.status == "running"

    def search_is_due(self) -> bool:
        """Return whether a search round is due (`LLM_freq`), and enough env steps are left to learn from it."""
        due = self.env_steps - self.last_search >= self.args.search_interval
        return due and not self.updates_left and self.env_steps <= self.args.latest_search

    def evaluation_is_due(self) -> bool:
        """Return whether `display_interval` env steps have passed since the last evaluation."""
        return not self.updates_left and self.env_steps - self.last_evaluation >= self.args.display_interval

    def checkpoint_is_due(self) -> bool:
        """Return whether `checkpoint_interval` env steps have passed since the last checkpoint, or SIGUSR1 arrived."""
        passed = self.env_steps - self.last_checkpoint >= self.args.checkpoint_interval
        return self.interruption.checkpoint_requested() or passed

    # --- the first population ---------------------------------------------------------------------------------------

    def first_population(self) -> None:
        """Have the model write the first reward functions, one for each slot."""
        try:
            functions = self.search.initial(len(self.slots))
        except RunError:
            if self.interruption.signal:  # the search was abandoned because the user wants to stop
                return
            raise
        for slot, function in enumerate(functions):
            self.roster.install(slot, function, self.round)
        self.log.say(round_block(self.args, self.search, self.round))
        if self.reward_workers.missing_containment:
            self.log.say(f"{WARNING}{self.reward_workers.missing_containment}")

    def explore(self) -> None:
        """Collect uniform random actions, for all agents to learn from."""
        if self.is_new:  # the first population was abandoned
            return
        began = time.monotonic()
        episodes = self.simulator.explore(self.args.init_exploration_steps // self.args.action_repeat, self.round)
        self.store([(EXPLORATION, episode) for episode in episodes])
        if self.round:  # --restart
            return
        env_step = (time.monotonic() - began) / max(self.env_steps, 1)
        self.log.say(forecast(self.args, self.population, env_step))
        self.log.begin_progress(self.env_steps, self.args.total_timesteps)
        self.save_checkpoint()

    # --- collecting and learning ------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Run one episode of each Thompson-drawn policy, in parallel; with --overlap while the agents learn."""
        if self.updates_left or self.interruption.signal or self.champions.reached(self.args.stop_success):
            return
        self.iteration += 1
        left = -(-(self.args.total_timesteps - self.env_steps) // self.args.action_repeat)
        work = (self.choose_arms(), self.population.policies(), self.iteration, left)
        if self.args.overlap:
            self.arriving = self.background.submit(self.simulator.collect, *work)
        else:
            self.store(self.simulator.collect(*work))

    def learn(self) -> None:
        """Make the SAC updates that are due, of every agent on its own reward column."""
        if self.args.overlap and not self.arriving:  # nothing was collected, since the run is about to end
            return
        before, due = self.population.updates, self.updates_left or int(self.updates_due)
        # With --overlap, an update made later would draw from other rows.
        stop = (lambda: False) if self.args.overlap else self.interruption.requested
        lost = self.population.learn(self.args.batch_size, due, stop)
        self.updates_due -= self.population.updates - before
        self.updates_left = due - (self.population.updates - before)
        self.roster.check_health(lost)
        if self.arriving:
            self.store(self.arriving.result())
            self.arriving = None
        if not self.roster.playing:
            raise RunError(f"every reward function of the population has failed; see {self.log.directory / 'run.log'}")
        cost = self.search.cost(self.args.price_in, self.args.price_out)
        self.log.progress(self.env_steps, self.roster.success_now, self.champions.success_rate, cost)

    def choose_arms(self) -> list[int]:
        """Return whose policies collect next: distinct agents out of pop_size Thompson draws, and the human agent."""
        playing = [slot for slot in self.slots if self.roster.plays(slot)]
        arms = self.thompson.choose(self.args.selection, playing, len(self.slots))
        if self.human is not None and self.roster.plays(self.human):
            arms = [*arms, self.human]
        return [*arms, self.untrained] if self.args.explore_episode else arms

    def store(self, episodes: Sequence[tuple[int, Episode]]) -> None:
        """Store each arm's episode with the rewards of every function, and update Thompson sampling."""
        stored: list[tuple[int, int]] = []
        for arm, episode in episodes:
            self.env_steps += len(episode.success) * self.args.action_repeat
            solved = episode.solved(self.args.success)  # before the time limit becomes a terminal state
            if not self.args.bootstrap_timeouts:
                episode.transitions["terminal"][-1] = 1.0
            collector = arm if arm in self.agents else EXPLORATION
            if collector != EXPLORATION:
                self.thompson.update(arm, bool(episode.success[-1]))  # whatever --success says
            if arm != EXPLORATION:
                self.updates_due += self.args.update_cycles * len(episode.success)
            stored += self.buffer.add(episode.transitions, collector, solved, float(episode.distance.min()))
        self.roster.reward(stored)

    # --- the search round -------------------------------------------------------------------------------------------

    def search_round(self) -> None:
        """Rank, keep the elites, replace the other reward functions, relabel, rescale, inherit."""
        if self.last_evaluation < self.env_steps:
            self.evaluate()
        if self.champions.reached(self.args.stop_success):
            return
        self.save_checkpoint()  # an interrupted round restarts from here; answers so far are in llm.jsonl
        ranking = self.rank()
        self.round += 1
        best, elites = ranking[0], ranking[: self.args.elite_num]
        open_slots = sorted(set(self.slots) - set(elites), key=self.roster.plays)  # first those that are out
        reports = {agent: self.roster.report(agent, self.scores[agent]) for agent in {best, *elites}}
        standings = self.roster.standings(self.scores, ranking, elites)
        experience = self.roster.experience()

        if self.args.restart:
            self.buffer.clear()
            self.roster.start_over(self.seed(Use.NETWORKS, self.round))
        parent = self.roster.functions.get(best)
        staying = [(self.roster.functions[agent], reports[agent]) for agent in elites if agent != self.human]
        functions = self.search.improve(self.round, parent, reports[best], staying, len(open_slots), experience)
        newcomers = self.roster.renew(open_slots, functions, best, self.round)
        if self.interruption.signal:
            self.round_given_up = True
            return

        self.roster.succeed(best, newcomers, elites)
        if self.args.restart:
            self.explore()
        self.thompson.reset()
        self.last_search = self.env_steps
        self.log.population(self.search.functions)
        self.log.say(round_block(self.args, self.search, self.round, standings, self.roster.functions))

    def rank(self) -> list[int]:
        """Return the agents, best first; by success, after doubling the episodes, so that luck does not decide."""
        if self.args.fitness == "return":
            return ranked(self.scores, "return")
        more = self.simulator.evaluate(
            list(self.scores), self.population.policies(), self.args.eval_episodes, Use.RANKING_START, self.round
        )
        self.scores = {agent: self.scores[agent].joined(score) for agent, score in more.items()}
        ranking = ranked_beyond_chance(self.scores, self.roster.nearest)
        self.roster.keep_scores(self.round, self.env_steps, self.scores, ranking)
        return ranking

    # --- evaluation and the end -------------------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Run deterministic episodes of every agent that plays; keep the best policies of all evaluations."""
        self.evaluations += 1
        self.last_evaluation = self.env_steps
        agents, policies = self.roster.playing, self.population.policies()
        # The same episodes for every agent: chance must not decide which is better.
        self.scores = self.simulator.evaluate(
            agents, policies, self.args.eval_episodes, Use.EVALUATION_START, self.evaluations
        )
        best, *_ = ranking = ranked(self.scores, self.args.fitness)
        function = self.roster.functions.get(best)
        candidate = Candidate(
            best, function.id if function else None, self.round, self.env_steps,
            self.scores[best].fitness(self.args.fitness), self.scores[best].summary(), self.population.networks(best),
        )  # fmt: skip
        before = self.champions.success_rate or 0.0
        if self.champions.enter(candidate):
            self.log.write_networks(candidate.networks)
            if before < 1.0 == candidate.success_rate and not self.args.stop_success:
                self.log.say("every episode of the evaluation was solved; --stop_success 1 would end a run here")
        self.roster.remember()
        self.roster.keep_scores(self.round, self.env_steps, self.scores, ranking)
        rows = agents_row(self.scores, self.thompson.figures(), self.population.losses())
        self.log.metrics(self.env_steps, {
            "round": self.round,
            "best": {"agent": best, **rows[best]},
            "best_so_far": self.champions.success_rate,
            "agents": rows,
            "out": self.roster.out,
            "dropped_episodes": self.simulator.dropped,
            "llm": self.search.cost(self.args.price_in, self.args.price_out),
            "protocol": protocol(self.args, self.args.eval_episodes),
        })  # fmt: skip
        self.log.population(self.search.functions)
        if self.champions.best is candidate and 0 < self.args.stop_success <= candidate.success_rate:
            self.confirm(1)

    def confirm(self, count: int) -> None:
        """Run the same fresh episodes with each of the `count` best policies so far, and rank them again."""
        self.confirmations += 1
        policies = np.stack([candidate.weights for candidate in self.champions.candidates[:count]])
        scores = self.simulator.evaluate(
            range(len(policies)), policies, self.args.final_episodes, Use.CONFIRMATION_START, self.confirmations
        )
        by = self.args.fitness
        self.champions.confirm({place: (score.fitness(by), score.summary()) for place, score in scores.items()})
        self.log.write_networks(self.champions.candidates[0].networks)

    def finish(self) -> None:
        """Choose the final policy, evaluate it in fresh episodes that had no part in the choice, and sum up."""
        self.save_checkpoint()
        final = None
        if self.status != "interrupted":
            if self.last_evaluation < self.env_steps:
                self.evaluate()
            self.confirm(len(self.champions.candidates))
            weights = self.champions.candidates[0].weights[None]
            final = self.simulator.evaluate([0], weights, self.args.final_episodes, Use.FINAL_START)[0]
        best, dropped = self.champions.best, self.simulator.dropped
        sum_up(self.args, self.log, self.search, self.status, self.env_steps, best, final, dropped)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Write everything needed to resume. An abandoned search round is left out, and starts over."""
        if self.is_new or self.round_given_up:
            return
        self.last_checkpoint = self.env_steps
        self.checkpoints.save(
            {
                **{name: getattr(self, name) for name in _COUNTERS},
                "slots": {slot: function.id for slot, function in self.roster.functions.items()},
                "scores": {agent: dataclasses.asdict(score) for agent, score in self.scores.items()},
            }
        )

    def restore(self) -> None:
        """Resume from the last intact checkpoint, or from the beginning if there is none."""
        state, exchanges = self.checkpoints.restore()
        self.search.model.resume(exchanges)
        if state is None:
            return
        vars(self).update({name: state[name] for name in _COUNTERS})
        self.roster.functions = {int(slot): self.search.functions[number] for slot, number in state["slots"].items()}
        self.scores = {int(agent): Score.from_state(score) for agent, score in state["scores"].items()}
        self.reward_workers.check([function.source for function in self.roster.functions.values()], self.search.probe)
        if self.champions.best:
            self.log.write_networks(self.champions.best.networks)
        self.log.say(f"resuming from the checkpoint at {self.env_steps:,} env steps")
        self.log.begin_progress(self.env_steps, self.args.total_timesteps)

    def __exit__(self, *_: object) -> None:
        """End all workers."""
        self.population.close()
        self.collectors.close()
        self.background.shutdown()
        self.reward_workers.close()
        self.log.close()
