"""A run at Weights & Biases, which may be out of reach."""

import os
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

IDENTITY = ".wandb_id"  # the file in a run's directory that holds its id there

_SECONDS = 4.0  # to wait for the service: once to check that it answers, once for the run to begin, once for it to end


def begin(directory: Path, config: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the run at Weights & Biases, or None when none is wanted, and a line for the user, or nothing.

    If the service cannot be reached, the run is an offline one, in the directory, and can be synced later.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled" or not (mode or os.environ.get("WANDB_API_KEY")):
        return None, ""
    # It would print dozens of lines, and at the end wait for its own error reports to be sent.
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb  # seconds to import, and few runs want it

    identity = directory / IDENTITY  # by which a resumed run is the same one
    if not identity.exists():
        identity.write_text(uuid.uuid4().hex[:8])
    settings = wandb.Settings(console="off", disable_git=True, init_timeout=_SECONDS, finish_timeout=_SECONDS)
    init = partial(
        wandb.init,
        project="LaRes",
        id=identity.read_text(),
        resume="allow",
        name=directory.name,
        dir=str(directory),
        config=dict(config),
        settings=settings,
    )
    later = f"`wandb sync {directory}/wandb/offline-run-*` sends it later"
    if mode == "offline":
        return init(), f"Weights & Biases is offline; {later}"
    # An online run that cannot begin keeps trying even when the process wants to end, so none is begun in vain.
    trouble = _trouble_on_the_way_to(wandb.setup().settings.base_url)
    if not trouble:
        try:
            return init(), ""
        except wandb.errors.Error as error:
            trouble = str(error).splitlines()[0]
    return init(mode="offline"), f"Weights & Biases cannot be used and goes on offline ({trouble}); {later}"


def _trouble_on_the_way_to(address: str) -> str:
    """Return why nothing answers at the address, or an empty string if something does."""
    trouble = f"{address} does not answer within {_SECONDS:g} s"

    def ask() -> None:
        nonlocal trouble
        try:
            urllib.request.urlopen(address, timeout=2 * _SECONDS).close()
            trouble = ""
        except urllib.error.HTTPError:  # an answer, too
            trouble = ""
        except Exception as error:
            trouble = f"{address}: {getattr(error, 'reason', error)}"

    asking = threading.Thread(target=ask, daemon=True)  # in a thread, since a name lookup has no time limit
    asking.start()
    asking.join(_SECONDS)
    return trouble
