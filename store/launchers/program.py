"""A program of the operator's on a worker's machine: an argv template, never a command line.

    [launchers.olmo-core]
    command = ["/opt/train/launch", "--mixture", "{mixture_file}", "--name={name}", "--tokens", "{target_tokens}"]
    environment = ["WANDB_MODE"]     # passed on beside the usual ones; never one that is named MIXWRIGHT_...
    stop_seconds = 30                # between SIGTERM and SIGKILL when the launch is cancelled

A placeholder is replaced inside its element, which stays one argument whatever the value holds.
"""

from typing import Literal

from pydantic import Field

from store.launchers.base import Commanded, Rendering, Work


class Program(Commanded):
    """One program with its arguments."""

    kind: Literal["program"] = "program"
    command: tuple[str, ...] = Field(min_length=1)

    @property
    def needs(self) -> tuple[str, ...]:
        """See `Launcher`."""
        return (self.command[0],)

    def render(self, work: Work) -> Rendering:
        """See `Launcher`."""
        return Rendering(self.arguments(work.values), str(work.directory), self.passed_on, work.files)
