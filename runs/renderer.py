"""The library that MuJoCo renders with, chosen by trying: an installed one need not work on this machine."""

import os
import subprocess
import sys

from errors import UsageError

_TRIED = ("egl", "osmesa")  # with a GPU; without one
_DRAWS = """import mujoco
context = mujoco.GLContext(8, 8)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_50)
"""
_SECONDS = 120


def choose_renderer() -> None:
    """Set MUJOCO_GL, unless the user has set it, to a library that renders without a screen.

    Call it before anything renders. A library that fails leaves the process unfit for the next one, so each is tried
    in a process of its own.

    Raises:
        UsageError: no library can render here.
    """
    wanted = os.environ.get("MUJOCO_GL")
    for library in (wanted,) if wanted else _TRIED:
        environment = {**os.environ, "MUJOCO_GL": library}
        tried = subprocess.run([sys.executable, "-c", _DRAWS], env=environment, capture_output=True, timeout=_SECONDS)
        if tried.returncode == 0:
            os.environ["MUJOCO_GL"] = library
            return
    failed = f"MUJOCO_GL={wanted} does not work here" if wanted else "neither EGL nor OSMesa works here"
    raise UsageError(
        f"videos cannot be rendered: {failed}; install OSMesa (on Debian: apt-get install libosmesa6) or the EGL of a "
        "GPU's driver" + (", and leave MUJOCO_GL unset" if wanted else "")
    )
