"""How large an architecture of ``transformers`` is: counted once by a process that has the library, then remembered.

A request waits the seconds this takes the first time that an architecture is asked for, and one whose configuration
the library refuses is refused there instead of failing at its first run. At most one request waits: others that name
an uncounted architecture meanwhile go on without its cost, so that counting never keeps the service from answering.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxy_models.errors import InvalidSpec, StorageFailed
from proxy_models.families.counts import CountsByVocabulary, check_positions
from proxy_models.storage import write_json
from store.problems import Invalid
from store.settings import Settings

Document = Mapping[str, Any]
SECONDS = 60.0
"""A count takes about six, nearly all of it importing torch and transformers."""
AGAIN_SECONDS = 600.0
"""One that failed, or could not be written down, is not tried again sooner."""
FORMAT = 1

_log = logging.getLogger("mixwright.counts")
_counting = threading.Lock()
_unwritten: dict[Path, tuple[float, Document]] = {}
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUDA_VISIBLE_DEVICES": "",
}


def known_counts(directory: Path, architecture: Document) -> CountsByVocabulary | None:
    """What was counted of it; None before that, where it was refused, or where the file holds something else."""
    try:
        return CountsByVocabulary.from_dict(_read(_file(directory, architecture)))
    except (KeyError, TypeError, ValueError):
        return None


def check_counted(settings: Settings, training: Document | None, prefix: str) -> None:
    """Have the architecture of a proxy or a launch counted, unless it is known or has none.

    Call it after every cheaper check, and with no session open: it may take seconds. Raises Invalid naming the field
    below ``prefix`` where the library refuses it, or where its rows are to be longer than it can see. Where counting
    itself fails, which is logged, the cost stays unknown and the workers have the last word.
    """
    architecture = None if training is None else training["architecture"]
    if training is None or architecture is None:
        return
    found = _counted(_file(settings.model_counts, architecture), architecture)
    try:
        if found.get("field") is not None:
            raise InvalidSpec(found["problem"], found["field"])
        check_positions(found.get("positions", {}), training["sequence_length"])
    except InvalidSpec as error:
        # Nobody who gave a checkpoint's folder can change its settings.
        field = "start" if training.get("start") is not None else error.field
        raise Invalid(error.code, str(error), f"{prefix}{field}") from error


def _counted(path: Path, architecture: Document) -> Document:
    """What the process answered, now or once; empty where it is not known."""
    if found := _read(path):
        return found
    until, found = _unwritten.get(path, (0.0, {}))
    if time.monotonic() < until or not _counting.acquire(blocking=False):
        return found
    try:
        found = _ask(architecture)
        if found:
            write_json(path, found)
            return found
    except StorageFailed as error:  # an answer all the same
        _log.warning("%s", error)
    finally:
        _counting.release()
    _unwritten[path] = (time.monotonic() + AGAIN_SECONDS, found)
    return found


def _ask(architecture: Document) -> Document:
    command = [sys.executable, "-m", "proxy_models.families.count_command"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(architecture),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
            env={**os.environ, **_ENVIRONMENT},
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        _log.warning("%s could not be counted: %s", architecture["model_type"], said[-1] if said else error)
        return {}
    if found.get("problem") is not None and found.get("field") is None:
        _log.warning("%s could not be counted: %s", architecture["model_type"], found["problem"])
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _file(directory: Path, architecture: Document) -> Path:
    """Another version of the library may have other defaults."""
    counted = [FORMAT, importlib.metadata.version("transformers"), architecture]
    return directory / f"{hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()}.json"
