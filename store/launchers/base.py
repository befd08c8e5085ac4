"""What every launcher has in common: what it is given to run (`Work`), and exactly what it would run (`Rendering`).

A launcher on a worker's machine renders, and a worker runs that to its end. A `store.launchers.scheduler.Scheduler`
also submits, finds again, follows and cancels.
"""

import json
import re
import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

BUILT_IN: Final = "built-in"
ALLOWED_ENVIRONMENT: Final = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""What every program is given of our environment: no setting of ours, so no token and no address."""
PLACEHOLDERS: Final = frozenset(
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
FORMAT_FILES: Final = {
    "olmo_core_file": "olmo-core/sources.yaml",
    "megatron_file": "megatron/blend.txt",
    "streaming_file": "streaming/train_loader.yaml",
    "datasets_file": "datasets/interleave.json",
    "llama_factory_file": "llama-factory/dataset_info.json",
    "litdata_file": "litdata/combined.json",
    "levanter_file": "levanter/data.yaml",
    "axolotl_file": "axolotl/axolotl.yaml",
    "nanotron_file": "nanotron/data_stages.yaml",
    "open_instruct_file": "open-instruct/dataset_mixer_list.txt",
    "torchtitan_file": "torchtitan/dataloader.py",
    "olmix_file": "olmix/mixture.json",
    "regmix_file": "regmix/mixture.yaml",
    "csv_file": "csv/mixture.csv",
    "json_file": "json/mixture.json",
    "yaml_file": "yaml/mixture.yaml",
}
"""Placeholder -> folder, which is a format of `exchange.formats`, and file; who reads launchers loads no formats."""
ORDER: Final = "order.json"
"""As `proxy_models.training.full_run` has it."""
OWN_STORE: Final = ("env", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1")
"""Where processes are started again each group meets in a store of its own. Else PyTorch has them meet in the one of
the group before, whose dead they now and then try to reach (2.13: its prefix of each attempt is gone)."""
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def json_text(content: object) -> str:
    """As `proxy_models.storage.write_json` writes it."""
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def submission_name(launch_id: str, number: int) -> str:
    """What a scheduler knows a submission by: letters, digits and ``-``, at most 63, as DNS has it."""
    return f"mixwright-{launch_id}-{number}".replace("_", "-")


@dataclass(frozen=True)
class Work:
    """What there is to run of a launch, wherever that is.

    Attributes:
        launch_id: of the launch.
        number: of the submission, from 1; each is submitted once.
        directory: the launch's own, with its log.
        values: of the placeholders.
        mixture: content of ``mixture.json``.
        run_directory: of the built-in trainer: its order, checkpoints, progress, model and result.
        order: of the built-in trainer (`proxy_models.training.full_run`); None for a program of the operator's.
    """

    launch_id: str
    number: int
    directory: Path
    values: Mapping[str, str]
    mixture: Mapping[str, Any]
    run_directory: Path
    order: Mapping[str, Any] | None = None

    @property
    def order_file(self) -> Path:
        """Where the built-in trainer reads its order."""
        return self.run_directory / ORDER

    @property
    def files(self) -> dict[str, str]:
        """What is written before anything is run, by path: the trainer's order, or the mixture for a program."""
        if self.order is None:
            return {str(self.directory / "mixture.json"): json_text(self.mixture)}
        return {str(self.order_file): json_text(self.order)}

    @property
    def name(self) -> str:
        """See `submission_name`."""
        return submission_name(self.launch_id, self.number)


@dataclass(frozen=True)
class Rendering:
    """Exactly what would be run.

    Attributes:
        arguments: the program and its arguments; none goes through a shell.
        directory: it is started in.
        environment: names of the variables passed on; None: all but our own settings.
        files: written before, content by path.
        request: sent instead of running a program: ``{"method", "url", "body"}``.
    """

    arguments: tuple[str, ...]
    directory: str
    environment: tuple[str, ...] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] | None = None


class Launcher(BaseModel):
    """One entry of the operator's file; ``stop_seconds`` lie between SIGTERM and SIGKILL when it is cancelled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    programs: ClassVar[tuple[str, ...]] = ()

    stop_seconds: float = Field(default=30.0, ge=0.0, le=3600.0)

    @property
    def is_program(self) -> bool:
        """Whether it runs a program of the operator's, and not the built-in trainer."""
        return False

    @property
    def world_size(self) -> int:
        """Processes that share a batch of the built-in trainer."""
        return 1

    @property
    def needs(self) -> tuple[str, ...]:
        """Programs that have to be on the machine that runs what is rendered."""
        return self.programs

    @abstractmethod
    def render(self, work: Work) -> Rendering:
        """Exactly what would be run."""


class Commanded(Launcher):
    """With a ``command`` of the operator's: an argv template.

    ``results`` are patterns of files below its directory that are read when it has ended, ``metrics`` what those call
    a task otherwise; ``path`` and what follows are what exports are told.
    """

    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    results: tuple[str, ...] = Field(default=(), max_length=100)
    metrics: dict[str, str] = Field(default_factory=dict, max_length=10_000)
    path: str = ""
    sequence_length: int = Field(default=2048, ge=1, le=2**24)
    batch_rows: int = Field(default=512, ge=1, le=2**24)

    @field_validator("command")
    @classmethod
    def _known_placeholders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value and (not Path(value[0]).is_absolute() or "{" in value[0]):
            raise ValueError(f"the program {value[0]!r} is not an absolute path without placeholders")
        for name in _PLACEHOLDER.findall(" ".join(value)):
            if name not in PLACEHOLDERS and name not in FORMAT_FILES:
                raise ValueError(
                    f"unknown placeholder {{{name}}}; there are {', '.join(sorted({*PLACEHOLDERS, *FORMAT_FILES}))}"
                )
        return value

    @field_validator("environment")
    @classmethod
    def _no_settings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.upper().startswith("MIXWRIGHT_"):
                raise ValueError(f"{name} is the service's own and may hold a secret")
        return value

    @field_validator("results")
    @classmethod
    def _below_the_directory(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise ValueError(f"the results {pattern!r} are no files below the launch's directory")
        return value

    @property
    def is_program(self) -> bool:
        """See `Launcher`."""
        return bool(self.command)

    @property
    def passed_on(self) -> tuple[str, ...]:
        """Names of the environment's variables that what is run gets."""
        return (*ALLOWED_ENVIRONMENT, *self.environment)

    @property
    def format_files(self) -> dict[str, str]:
        """Of `FORMAT_FILES` those that the command has."""
        used = _PLACEHOLDER.findall(" ".join(self.command))
        return {name: FORMAT_FILES[name] for name in used if name in FORMAT_FILES}

    def arguments(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The command with its placeholders replaced, element by element and once."""
        return tuple(_PLACEHOLDER.sub(lambda match: values[match.group(1)], part) for part in self.command)


class Trained(Launcher):
    """With the built-in trainer, on so many ``processes`` of a machine.

    ``restarts`` is how often all are started again, from the last checkpoint, when one of them has died;
    ``device_memory`` the bytes that each process may take on its device: a model that needs more is refused.
    """

    processes: int = Field(ge=1, le=64)
    device: Literal["cpu", "cuda"] = "cpu"
    restarts: int = Field(default=0, ge=0, le=100)
    device_memory: int | None = Field(default=None, gt=0)

    @property
    def world_size(self) -> int:
        """See `Launcher`."""
        return self.processes

    def trainer(self, order_file: Path, meeting: tuple[str, ...], python: str = "") -> tuple[str, ...]:
        """The line that trains what the order says; ``meeting`` is how torchrun's processes find each other."""
        return (
            *(OWN_STORE if self.restarts else ()),
            *(python or sys.executable, "-m", "torch.distributed.run", *meeting),
            *(f"--nproc-per-node={self.processes}", f"--max-restarts={self.restarts}"),
            *("-m", "proxy_models.training.full_run", str(order_file)),
        )


class Program(Commanded):
    """A program of the operator's on a worker's machine: an argv template, never a command line.

        [launchers.olmo-core]
        command = ["/opt/train/launch", "--mixture", "{mixture_file}", "--name={name}", "--tokens", "{target_tokens}"]
        environment = ["WANDB_MODE"]     # passed on beside the usual ones; never one that is named MIXWRIGHT_...
        stop_seconds = 30                # between SIGTERM and SIGKILL when the launch is cancelled

    A placeholder is replaced inside its element, which stays one argument whatever the value holds.
    """

    kind: Literal["program"] = "program"
    command: tuple[str, ...] = Field(min_length=1)

    @property
    def needs(self) -> tuple[str, ...]:
        """See `Launcher`."""
        return (self.command[0],)

    def render(self, work: Work) -> Rendering:
        """See `Launcher`."""
        return Rendering(self.arguments(work.values), str(work.directory), self.passed_on, work.files)


class Torchrun(Trained):
    """The built-in trainer on several processes of a worker's machine, started by ``torchrun``:

    [launchers.eight-gpus]
    processes = 8
    device = "cuda"
    """

    kind: Literal["torchrun"] = "torchrun"

    def render(self, work: Work) -> Rendering:
        """See `Launcher`."""
        arguments = self.trainer(work.order_file, ("--standalone",))
        return Rendering(arguments, str(work.run_directory), files=work.files)
