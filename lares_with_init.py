"""Train on a task with reward functions that a language model makes of the human-designed one."""

import sys

from arguments import parse_args


def main() -> int:
    """Run the whole loop on the flags given; returns the exit status."""
    args = parse_args(None, "with_init")
    from runs.exit_status import run  # after the flags are read: --help and a typo need not wait for the slow imports

    return run(args, "with_init")


if __name__ == "__main__":
    sys.exit(main())
