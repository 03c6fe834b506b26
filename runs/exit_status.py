"""From flags to exit status: what both entry scripts do before and after the algorithm itself."""

import os

# OpenMP's threads spin while they wait by default, and two of them beside any busy process are then ten times slower.
# The library reads this when it is loaded, with torch, so it is set before anything here imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import errno
import sys
from dataclasses import replace

import torch

from arguments import Arguments, Setting, default_name
from errors import RunError, UsageError
from lares import PROBE, LaRes, seed_for
from runs.dry_run import describe
from runs.forecast import refuse_what_cannot_fit
from runs.interruption import Interruption
from runs.log import RunLog
from runs.output import keep_output, plain
from search.builtin import ProgramSearch
from search.connect import connect
from task_specs import get_task
from workers.machine import cores, without_keys


def run(args: Arguments, setting: Setting) -> int:
    """Make a whole run; return 0, 2 after the user's mistake, 1 when it cannot go on, 128 + signal when interrupted."""
    keep_output()
    try:
        return _run(args, setting)
    except UsageError as error:
        print(plain(f"error: {error}"), file=sys.stderr)
        return 2
    except RunError as error:
        print(plain(f"error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # the second one: the first is remembered, and the run ends in good order
        return 130
    except OSError as error:
        if error.filename is None and error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
            raise
        place = plain(str(error.filename or args.log_dir))
        print(f"error: {place}: {error.strerror}; what was written before is kept", file=sys.stderr)
        return 1


def _run(args: Arguments, setting: Setting) -> int:
    if args.device == "auto":
        args = replace(args, device="cuda" if torch.cuda.is_available() else "cpu")
    elif args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no GPU here; use --device auto or --device cpu")
    args = replace(args, num_learners=args.num_learners or cores(), num_workers=args.num_workers or cores())
    torch.set_num_threads(1)  # learners and workers are processes, each of which works alone
    with without_keys():
        task = get_task(args.env_name, args.task_file)
    if args.dry_run:
        print(describe(args, setting, task, seed_for(args.seed, PROBE)))
        return 0
    refuse_what_cannot_fit(args, task, args.pop_size + (setting == "with_init"))
    human_reward = task.human_reward.source if setting == "with_init" and task.human_reward else None
    builtin = ProgramSearch(task, args.seed, human_reward)
    model = connect(
        args.model,
        builtin=builtin,
        task=task.name,
        setting=setting,
        temperature=args.temperature,
        answer_tokens=args.max_answer_tokens,
        options=args.llm_options,
        max_calls=args.max_llm_calls,
        max_tokens=args.max_llm_tokens,
    )
    log = RunLog(args.log_dir, args.exp_name or default_name(args), vars(args))
    try:
        with Interruption() as interruption:
            log.say(f"{setting} on {task.name} with {args.model}, seed {args.seed}; everything goes to {log.directory}")
            if args.ignored_flags:
                log.say(f"without effect: {', '.join(args.ignored_flags)}")
            lares = LaRes(args, setting, task, model, builtin, log, interruption)
            try:
                try:
                    status = lares.train()
                except RunError:
                    if not interruption.signal:  # else a search was given up because the user wants to leave
                        raise
                    status = "interrupted"
                lares.finish(status)
            finally:
                lares.close()
        return 128 + interruption.signal if interruption.signal else 0
    finally:
        log.close()
