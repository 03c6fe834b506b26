"""Train on a task with reward functions that a language model writes from scratch."""

import sys

from arguments import parse_args


def main() -> int:
    """Run the whole loop on the flags given; returns the exit status."""
    args = parse_args(None, "from_scratch")
    from runs.exit_status import run  # after the flags are read: --help and a typo need not wait for the slow imports

    return run(args, "from_scratch")


if __name__ == "__main__":
    sys.exit(main())
