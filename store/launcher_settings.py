"""Programs the operator lets launches start: named argv templates in a TOML file, never a command line.

    [launchers.olmo-core]
    command = ["/opt/train/launch", "--mixture", "{mixture_file}", "--name={name}", "--tokens", "{target_tokens}"]
    environment = ["WANDB_MODE"]     # passed on beside the usual ones; never one that is named MIXWRIGHT_...
    stop_seconds = 30                # between SIGTERM and SIGKILL when the launch is cancelled

A placeholder is replaced inside its element, which stays one argument whatever the value holds.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

PLACEHOLDERS = frozenset(
    {
        "mixture_file",
        "directory",
        "launch_id",
        "mixture_id",
        "name",
        "target_tokens",
        "seed",
        "domain_set",
        "revision",
    }
)
BUILT_IN = "built-in"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class BadLaunchers(ValueError):
    """The file of launchers cannot be used; the message says what is wrong in it."""


class Launcher(BaseModel):
    """One program with its arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: tuple[str, ...] = Field(min_length=1)
    environment: tuple[str, ...] = ()
    stop_seconds: float = Field(default=30.0, ge=0.0, le=3600.0)

    @field_validator("command")
    @classmethod
    def _known_placeholders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not Path(value[0]).is_absolute() or "{" in value[0]:
            raise ValueError(f"the program {value[0]!r} is not an absolute path without placeholders")
        for name in _PLACEHOLDER.findall(" ".join(value)):
            if name not in PLACEHOLDERS:
                raise ValueError(
                    f"unknown placeholder {{{name}}}; there are {', '.join(sorted(PLACEHOLDERS))}"
                )
        return value

    @field_validator("environment")
    @classmethod
    def _no_settings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.upper().startswith("MIXWRIGHT_"):
                raise ValueError(f"{name} is the service's own and may hold a secret")
        return value

    def arguments(self, values: Mapping[str, str]) -> list[str]:
        """The command with its placeholders replaced, element by element and once."""
        return [_PLACEHOLDER.sub(lambda match: values[match.group(1)], part) for part in self.command]


def read_launchers(path: Path | None) -> dict[str, Launcher]:
    """The launchers of the operator's file by name; none without a file. Raises BadLaunchers."""
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("launchers", {})
        found = {name: Launcher.model_validate(table) for name, table in tables.items()}
    except (OSError, ValueError, AttributeError) as error:
        detail = (
            "; ".join(one["msg"] for one in error.errors()) if isinstance(error, ValidationError) else error
        )
        raise BadLaunchers(f"{path}: {detail}") from error
    if BUILT_IN in found:
        raise BadLaunchers(f"{path}: {BUILT_IN!r} is the name of the built-in trainer")
    return found
