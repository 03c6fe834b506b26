"""Train on a task with reward functions that a language model develops from the human-designed one."""

import sys
from pathlib import Path

if __name__ == "__main__":  # our modules come first, whatever PYTHONPATH and PYTHONSAFEPATH say
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from workers.packages import require_packages

    require_packages()

from arguments import parse_args


def main() -> int:
    """Run the whole loop on the flags given; return the exit status."""
    args = parse_args(None, "with_init")
    from runs.exit_status import exit_status

    with exit_status() as status:
        from lares import LaRes  # after parsing, since it is slow to import: --help and a typo need not wait

        with LaRes(args, status.interruption, prompts="with_init", human_agent=True) as run:
            if run.is_new:  # and not resumed from a checkpoint
                run.first_population()  # the model writes pop_size reward functions
                run.explore()  # random actions, for all agents to learn from
            while run.goes_on():
                if run.search_is_due():
                    run.search_round()  # rank, keep elites, replace the rest, relabel, rescale, inherit
                run.collect()  # one episode of each Thompson-drawn policy
                run.learn()  # SAC, every agent on its own reward column
                if run.evaluation_is_due():
                    run.evaluate()
                if run.checkpoint_is_due():
                    run.save_checkpoint()
            run.finish()  # confirm the best policies on fresh episodes, and choose one
    return status.code


if __name__ == "__main__":
    sys.exit(main())
