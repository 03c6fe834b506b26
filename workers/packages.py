"""The packages that LaRes needs, and what to do in a Python that lacks them.

Every command calls this before it imports anything else of the project, so it must run on any Python 3.
"""

import importlib.util
import signal
import sys
from pathlib import Path

PACKAGES = ("torch", "numpy", "scipy", "metaworld", "mujoco", "gymnasium", "numba", "openai")


def require_packages() -> None:
    """End the process with one line and exit status 2 when this Python is too old or lacks a package.

    Until the command handles it, Ctrl-C just ends the process, without a traceback of what is being imported.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if sys.version_info >= (3, 10) and not missing:
        return
    version = "{}.{}".format(*sys.version_info[:2])
    what = "lacks " + ", ".join(missing) if missing else "is too old"
    root = Path(__file__).parents[1]
    activate = "source {}/.venv/bin/activate".format(root)
    if not (root / ".venv" / "lares-stamp").exists():
        activate = "bash {}/run.sh setup && {}".format(root, activate)
    print("error: this Python ({} {}) {}; first: {}".format(sys.executable, version, what, activate), file=sys.stderr)
    sys.exit(2)
