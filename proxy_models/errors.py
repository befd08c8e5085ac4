"""Everything proxy_models raises on purpose.

ProxyError
    CorpusError        a file of text, tokens or tasks cannot be read (file, line, reason)
        NoChoices      an accuracy is asked of a task file without choices
    TooLittleText      a domain has too little text for its held-out slice or for one row
    TokenizerError     a tokenizer cannot be loaded or trained
    InvalidSpec        a setting is missing, unknown or out of range
        UnknownSize    no model size of that name
        UnknownDomain  the mixture weighs a domain that has no shard
        MissingDomain  the mixture leaves out a domain
        OverCap        the mixture repeats a domain more often than allowed
        UnequalWave    runs to be trained together differ in shape
        UnfitStart     a run cannot start from that checkpoint
    NotEnoughMemory    a wave does not fit; says how much is missing and how many models fit
    NotCalibrated      no measurement of this device answers the question
    Cancelled          a run of a wave was cancelled
    Stopped            a run was asked to stop and has a checkpoint of where it was (retryable)
    DataMissing        shards or files of the run are gone
    DataChanged        what a run starts from is another model than was asked for
    Diverged           the loss is no longer a number
    StorageFailed      the disk is full or a write failed (retryable)
    StoreError         an object of an artifact store or a corpus
        BadAddress         the address is none that is allowed
        StoreMisconfigured the store cannot be used at all: its package is missing, or nobody named it
        StoreUnreachable   the store does not answer (retryable)
        StoreDenied        the store refuses to let us
        ObjectMissing      the object is not there
        ObjectDamaged      the object is not what was published

`code` is the class's name written as `too_little_text`, unless the class says another, and is stable; `retryable`
tells a worker whether another attempt can help.
"""

import re
from pathlib import Path
from typing import ClassVar


class ProxyError(Exception):
    """Base of the errors of this package; ``field`` names the setting at fault where there is one."""

    code: ClassVar[str] = "proxy_error"
    retryable: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if "code" not in vars(cls):
            cls.code = re.sub(r"(?<=.)(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class CorpusError(ProxyError):
    """A file cannot be read as what it claims to be. ``line`` counts from 1 (rows, in Parquet)."""

    def __init__(self, path: object, line: int | None, reason: str) -> None:
        where = f"{path}, line {line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {reason}", "files")
        self.path, self.line, self.reason = path, line, reason


class NoChoices(CorpusError):
    """An accuracy is asked of a task whose records have no choices to rank."""

    def __init__(self, path: object, line: int) -> None:
        super().__init__(
            path, line, "has no 'choices' to rank, so there is no accuracy; ask for the metric 'bpb'"
        )
        self.field = "metric"


class TooLittleText(ProxyError):
    """A domain has too little text."""

    def __init__(self, domain: str, reason: str) -> None:
        super().__init__(f"domain {domain!r} has too little text: {reason}", "domains")
        self.domain = domain


class TokenizerError(ProxyError):
    """A tokenizer cannot be loaded, trained or used here."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "tokenizer")


class InvalidSpec(ProxyError):
    """A setting is missing, unknown or out of range."""


class UnknownSize(InvalidSpec):
    """No model size has this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown model size {name!r}; the sizes are {', '.join(known)}", "size")


class UnknownDomain(InvalidSpec):
    """The mixture gives weight to a domain that has no token shard."""

    def __init__(self, domain: str) -> None:
        super().__init__(f"the mixture names domain {domain!r}, which has no token shard", "mixture")


class MissingDomain(InvalidSpec):
    """A domain has a token shard and no weight."""

    def __init__(self, domain: str) -> None:
        super().__init__(
            f"the mixture gives no weight to domain {domain!r}; write 0 to leave it out", "mixture"
        )


class OverCap(InvalidSpec):
    """The mixture asks for more epochs of a domain than allowed."""

    def __init__(self, domain: str, requested_tokens: int, available_tokens: int, max_epochs: float) -> None:
        super().__init__(
            f"domain {domain!r} is asked for {requested_tokens} tokens, {requested_tokens / available_tokens:.2f} "
            f"epochs of its {available_tokens}; at most {max_epochs:g} are allowed",
            "mixture",
        )
        self.domain = domain
        self.requested_tokens, self.available_tokens = requested_tokens, available_tokens


class UnequalWave(InvalidSpec):
    """Runs that are to be trained together differ in more than mixture, seed, learning rate and directory."""

    def __init__(self, member: int, field: str, expected: object, found: object) -> None:
        super().__init__(
            f"run {member} of the wave has {field} {found!r}, the first has {expected!r}; train it in another wave",
            field,
        )


class UnfitStart(InvalidSpec):
    """A checkpoint that a run cannot start from: unreadable, unsafe, of another shape or another vocabulary."""

    def __init__(self, path: Path | str, reason: str, field: str = "start") -> None:
        super().__init__(f"cannot start from {path}: {reason}", field)


class NotEnoughMemory(ProxyError):
    """The models of a wave do not fit into memory together."""

    def __init__(self, members: int, needed_bytes: int, free_bytes: int, largest: int) -> None:
        missing = needed_bytes - free_bytes
        advice = (
            f"{largest} fit" if largest else "not even one fits: lower batch_rows or choose a smaller size"
        )
        super().__init__(
            f"{members} models need {needed_bytes / 1e6:.0f} MB, {missing / 1e6:.0f} MB more than are free; {advice}"
        )
        self.missing_bytes, self.largest = missing, largest


class NotCalibrated(ProxyError):
    """The table holds no measurement for the question."""


class Cancelled(ProxyError):
    """A run was cancelled before its end."""

    def __init__(self, step: int) -> None:
        super().__init__(f"cancelled after step {step}")


class Stopped(ProxyError):
    """A run was asked to stop: it has a checkpoint after ``step`` steps, and goes on there when started again."""

    retryable = True

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")


class DataMissing(ProxyError):
    """Data the run needs is gone or was never written."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}", "shards")


class DataChanged(ProxyError):
    """The model to start from is not what it was when it was asked for."""

    def __init__(self, start: str) -> None:
        super().__init__(f"the model to start from, {start}, was changed since it was asked for", "start")


class Diverged(ProxyError):
    """The loss or its gradient is no longer a finite number; the same run would diverge again."""

    def __init__(self, step: int) -> None:
        super().__init__(f"training diverged at step {step}; lower learning_rate", "learning_rate")


class StorageFailed(ProxyError):
    """Writing failed, mostly for want of space; another attempt may succeed."""

    retryable = True

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class StoreError(ProxyError):
    """What is wrong with an object of a store; ``address`` names it."""

    def __init__(self, address: object, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address, self.reason = str(address), reason


class BadAddress(StoreError, ValueError):
    """An address that could mean another object than it says, or that no store has."""

    code = "bad_path"


class StoreMisconfigured(StoreError):
    """The store cannot be used before the operator changes something."""


class StoreUnreachable(StoreError):
    """The store does not answer; later it may."""

    retryable = True


class StoreDenied(StoreError):
    """The store knows us and refuses, or does not know us."""


class ObjectMissing(StoreError, FileNotFoundError):
    """There is no such object. A ``FileNotFoundError`` too, for whoever reads files wherever they lie."""

    code = "data_missing"

    def __init__(self, address: object, reason: str = "there is no such object") -> None:
        super().__init__(address, reason)
        self.filename, self.strerror = str(address), reason

    def __str__(self) -> str:  # OSError would put it in its own words
        return f"{self.address}: {self.reason}"


class TooManyObjects(StoreError):
    """A pattern that more has to be looked through for than may be."""

    code = "too_many_files"


class ObjectDamaged(StoreError):
    """The bytes are not those that were published."""

    code = "checksum_differs"
