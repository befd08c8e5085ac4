"""Who trains a launch: a program or torchrun on a worker's machine (`base`), or a scheduler, a file each.

The operator's TOML file names them, each a table ``[launchers.NAME]`` of the kind that ``kind`` names; without one a
table with ``processes`` is `Torchrun`, any other a `Program`. Nothing here loads torch or a queue: the web process
shows exactly what would be run; a worker, or the follower of submissions, runs it.

`callbacks` tells somebody that a launch has ended.
"""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from store.launchers.base import BUILT_IN, Launcher, Program, Torchrun
from store.launchers.kubernetes import Kubernetes
from store.launchers.skypilot import SkyPilot
from store.launchers.slurm import Slurm
from store.launchers.webhook import Webhook

KINDS: dict[str, type[Launcher]] = {
    "kubernetes": Kubernetes,
    "program": Program,
    "skypilot": SkyPilot,
    "slurm": Slurm,
    "torchrun": Torchrun,
    "webhook": Webhook,
}


class BadLaunchers(ValueError):
    """The file of launchers cannot be used; the message says what is wrong in it."""


def read_launchers(path: Path | None) -> dict[str, Launcher]:
    """The launchers of the operator's file by name; none without a file. Raises BadLaunchers."""
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("launchers", {})
        launchers = {name: _launcher(table) for name, table in tables.items()}
    except (OSError, ValueError, AttributeError) as error:
        detail = (
            "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            if isinstance(error, ValidationError)
            else error
        )
        raise BadLaunchers(f"{path}: {detail}") from error
    if BUILT_IN in launchers:
        raise BadLaunchers(f"{path}: {BUILT_IN!r} is the name of the built-in trainer")
    return launchers


def _launcher(table: dict[str, object]) -> Launcher:
    kind = table.get("kind", "torchrun" if "processes" in table else "program")
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is none; there are {', '.join(sorted(KINDS))}")
    return KINDS[str(kind)].model_validate(table)
