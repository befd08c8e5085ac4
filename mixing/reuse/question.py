"""What a reuse plan is asked for: the lineage, the mixture to go on from, and the runs that are there already."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mixing.change.lineage import EvidenceSpace
from mixing.domains import Domains
from mixing.methods import Recipe
from mixing.solve.problem import LinearConstraint

ReuseKind = Literal["full", "partial", "none", "auto"]


@dataclass(frozen=True)
class PastRun:
    """A finished run of this revision or of an older one.

    Attributes:
        id: names it.
        revision: id of the revision its mixture is over.
        mixture: weights by domain of that revision.
        tasks: what was measured on it.
        unlike: why it cannot be compared with the runs to come (another proxy, another tokenizer), or None.
        seed: it was trained with.
    """

    id: str
    revision: str
    mixture: Mapping[str, float]
    tasks: tuple[str, ...]
    unlike: str | None
    seed: int


@dataclass(frozen=True)
class StartMixture:
    """The mixture whose ratios are to be kept.

    Attributes:
        id: names it.
        revision: id of the revision it is over.
        weights: by domain of that revision.
        coupling: `{domain: {domain: BPB}}` as its evidence document has it (`coupling`), None where it has none.
        gain: its predicted gain over the natural distribution, in BPB, where its evidence document tells it.
        noise: standard error of that gain.
    """

    id: str
    revision: str
    weights: Mapping[str, float]
    coupling: Mapping[str, Mapping[str, float]] | None = None
    gain: float | None = None
    noise: float | None = None


@dataclass(frozen=True)
class ReuseQuestion:
    """What a plan is asked for.

    Attributes:
        space: of the revision the mixture is for.
        reuse: as asked for.
        start: the mixture to go on from, or None where there is none (then nothing can be frozen).
        free: with `partial`, unchanged domains to free, by name.
        most_coupled: with `partial`, how many of the most coupled to free.
        method: name of the method.
        recipe: its parts.
        runs: new runs asked for, None to have them proposed.
        target_tokens: R.
        repetition_cap: k or None.
        constraints: shares and pins, over the newest revision's domains.
        past: every finished run of the lineage.
        tasks: names of the objective's tasks.
        seed: of the runs to come.
        reuse_runs: whether older runs may count.
        seconds_per_run: what a comparable run took, where one has been trained.
    """

    space: EvidenceSpace
    reuse: ReuseKind
    start: StartMixture | None
    method: str
    recipe: Recipe
    target_tokens: float
    repetition_cap: float | None
    past: tuple[PastRun, ...]
    tasks: tuple[str, ...]
    seed: int
    free: tuple[str, ...] = ()
    most_coupled: int | None = None
    runs: int | None = None
    constraints: tuple[LinearConstraint, ...] = ()
    reuse_runs: bool = True
    seconds_per_run: float | None = None

    @cached_property
    def domains(self) -> Domains:
        """The newest revision's domains; a divided one has the tokens of its contents."""
        way = self.space.newest
        return Domains(way.free, self.space.contents.tokens @ (way.matrix > 0))
