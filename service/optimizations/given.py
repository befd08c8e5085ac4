"""An optimization over swarms that there are: which of what they measured counts, and whether they go together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from exchange.directions import check_one_direction, directions, named
from mixing.domains import HELD_OUT_PREFIX
from mixing.errors import InvalidSetting, MixingError
from mixing.parts import REGRESSIONS
from mixing.runs.sound import alike
from service.optimizations.checks import CheckedRequest
from service.optimizations.schemas import TaskRequest
from store.documents import BroughtDocument, Measurements, TaskDocument
from store.problems import Invalid, NotCounted, invalid
from store.revisions.changes import ancestry, is_known
from store.swarms import GivenSwarm, given_swarms
from store.tables import Revision, Run

FEWEST_ANCHORS = 3
"""As `mixing.laws.transfer`'s, which the web process does not load."""
ALIKE = 1.01
"""Lengths of runs whose ratio is no more are taken for one: of whole batches."""


@dataclass(frozen=True)
class GivenSwarms:
    """What is read of the store for the swarms a request names."""

    swarms: Sequence[GivenSwarm]
    metrics: Mapping[str, TaskDocument]
    """Everything that was measured, with its direction."""

    def checked(self, checked: CheckedRequest, domains: int) -> CheckedRequest:
        """The request with its tasks. Raises Invalid naming the field at fault."""
        request = checked.request
        tasks = self._tasks(request.tasks)
        assert checked.document.recipe is not None, "a method that learns from nothing names no swarms"
        needed = checked.document.recipe.minimum_runs(domains)
        finished = sum(len(one.finished) for one in self.swarms)
        proxies = None
        if request.target is not None:
            scales = scales_of(self.swarms, [task.name for task in tasks if task.weight > 0])
            ((proxies, finished),) = scales.most_common(1)
        if finished < needed:
            raise Invalid(
                "too_few_runs",
                f"The swarms have {finished} finished runs, and a mixture of {domains} domains by the regression"
                f" {checked.document.recipe.regression!r} needs {needed}.",
                "swarms",
                needed=needed,
            )
        if proxies is None:
            scale = {"run_tokens": self._longest(checked.document.recipe.regression)}
        else:
            scale = dict(zip(("run_parameters", "run_tokens"), proxies, strict=True))
        return replace(checked, document=replace(checked.document, tasks=tasks, **scale))

    def _longest(self, regression: str) -> int | None:
        """Tokens of the longest run; None where nobody said. Raises Invalid for lengths that the law does not see."""
        told = {run.requested_tokens for one in self.swarms for run, _ in one.finished}
        known = sorted(filter(None, told))
        if len(known) > 1 and known[-1] > ALIKE * known[0]:
            if None in told:
                raise Invalid(
                    "missing_tokens",
                    "Some runs say how many tokens they trained, and others do not.",
                    "swarms",
                )
            if not REGRESSIONS[regression].reads_tokens:
                raise Invalid(
                    "unlike_lengths",
                    f"The runs trained {known[0]:,} to {known[-1]:,} tokens, which the regression {regression!r} does"
                    " not look at: it would take what longer training does for the mixtures' doing.",
                    "swarms",
                )
        return None if None in told or not known else known[-1]

    def _tasks(self, asked: Sequence[TaskRequest]) -> tuple[TaskDocument, ...]:
        if not asked:
            turns = {name: "negated" for name, task in self.metrics.items() if task.is_higher_better}
            try:
                check_one_direction(list(self.metrics), turns)  # pyright: ignore[reportArgumentType]
            except InvalidSetting as error:
                raise invalid(error, "tasks") from error
            return tuple(self.metrics.values())
        tasks = []
        for index, task in enumerate(asked):
            field = f"tasks[{index}]"
            known = self.metrics.get(task.name)
            if known is None:
                raise Invalid(
                    "unknown_task",
                    f"No run measured {task.name!r}; there are {', '.join(list(self.metrics)[:20])}.",
                    f"{field}.name",
                )
            for name in ("path", "normalization", "fields"):
                if getattr(task, name) is not None:
                    raise Invalid(
                        "measured_elsewhere",
                        f"{task.name!r} was measured; leave {name} out.",
                        f"{field}.{name}",
                    )
            if not _agree(task.metric or known.metric, known.metric):
                raise Invalid(
                    "other_direction",
                    f"The swarm says that {task.name!r} is {known.metric!r}, not {task.metric!r}.",
                    f"{field}.metric",
                )
            metric = task.metric or known.metric
            tasks.append(replace(known, weight=task.weight, family=task.family, metric=metric))
        if not any(task.weight > 0 for task in tasks):
            raise Invalid("no_objective", "At least one task needs a weight above 0.", "tasks")
        return tuple(tasks)


def given_of(session: Session, revision: Revision, checked: CheckedRequest) -> GivenSwarms | None:
    """The swarms a request names; None where it names none.

    Raises:
        NotFound: a swarm.
        Invalid: one of another lineage, of another proxy, without results, or that says otherwise of a metric.
        NotCounted: runs of an older revision, and this one's domains are still being counted.
    """
    request = checked.request
    if not request.swarms:
        return None
    swarms = given_swarms(session, request.swarms, with_anchors=request.target is not None)
    lineage = {one.id for one in ancestry(session, revision)}
    for index, given in enumerate(swarms):
        if given.revision.id not in lineage:
            raise Invalid(
                "other_lineage",
                f"The runs of {given.label} are over revision {given.revision.number} of"
                f" {given.revision.domain_set.name!r}, which is no ancestor of revision {revision.number} of"
                f" {revision.domain_set.name!r}.",
                f"swarms[{index}]",
            )
        if not given.finished:
            raise Invalid("no_results", f"No run of {given.label} has results.", f"swarms[{index}]")
    if not is_known(revision) and any(given.revision.id != revision.id for given in swarms):
        raise NotCounted(
            "not_counted",
            f"Revision {revision.number} of {revision.domain_set.name!r} is still being counted, and runs of an older"
            " one are carried to it by its counts; ask again when it is done.",
            "swarms",
        )
    if request.target is None:
        _check_alike(swarms, request.same_proxy)
    _check_one_tokenizer(swarms, request.same_proxy and request.target is None)
    return GivenSwarms(swarms, _metrics(swarms))


def _check_alike(swarms: Sequence[GivenSwarm], same_proxy: bool) -> None:
    """Metrics of different models lie on different levels: a law over both would take one for the mixture's doing."""
    first, *others = swarms
    for index, other in enumerate(others, 1):
        if not same_proxy and other.proxy != first.proxy:
            raise Invalid(
                "unlike_proxies",
                f"{first.label} trained {first.proxy or 'a model nobody named'} and {other.label}"
                f" {other.proxy or 'a model nobody named'}: what different models reach lies on different levels,"
                " which a law would take for the mixtures' doing. If they are the same, say same_proxy.",
                f"swarms[{index}]",
            )
        sizes = [one.brought.parameters for one in (first, other)]
        if sizes[0] and sizes[1] and not alike(sizes[0] / sizes[1]):
            raise Invalid(
                "unlike_proxies",
                f"{first.label} trained models of {sizes[0]:,} parameters and {other.label} of {sizes[1]:,}: what"
                " they reach lies on different levels. Say a target, and what size does is learned from both; or"
                " leave one of them out.",
                f"swarms[{index}]",
            )


def _check_one_tokenizer(swarms: Sequence[GivenSwarm], same_proxy: bool) -> None:
    """Losses per token, and weights that are shares of tokens, compare where the tokens are the same.

    What was trained here reads a file, which somebody may call otherwise who says that it is the ``same_proxy``.
    """
    told = [None if same_proxy and one.document is not None else one.tokenizer for one in swarms]
    known = next(((one, name) for one, name in zip(swarms, told, strict=True) if name is not None), None)
    for index, (other, tokenizer) in enumerate(zip(swarms, told, strict=True)):
        if known is not None and tokenizer not in (None, known[1]):
            raise Invalid(
                "unlike_tokenizers",
                f"{known[0].label} reads the tokens of {known[1]} and {other.label} those of {tokenizer},"
                " whose losses and weights are not the same thing; leave one of them out.",
                f"swarms[{index}]",
            )


Scale = tuple[int, int]
"""Parameters and tokens."""


def scales_of(swarms: Sequence[GivenSwarm], tasks: Sequence[str]) -> Counter[Scale]:
    """Finished runs by parameters and tokens; the commonest are the proxies, the others anchors.

    Raises Invalid for a run of which either is not known, for anchors that were not measured on one of the tasks, and
    for a size and length with too few mixtures to be told from the others.
    """
    runs: dict[Scale, list[tuple[int, Run]]] = {}
    for index, given in enumerate(swarms):
        for run, _ in given.finished:
            mine = _scale(given, run, index)
            runs.setdefault(next((one for one in runs if _alike(one, mine)), mine), []).append((index, run))
    scales = Counter({scale: len(found) for scale, found in runs.items()})
    ((proxies, _),) = scales.most_common(1)
    for scale, found in runs.items():
        for index, run in found if scale != proxies else ():
            measured = Measurements.of(run.result).final
            if lacking := [task for task in tasks if task not in measured]:
                raise Invalid(
                    "unlike_tasks",
                    f"Run {run.name or run.id!r} of {swarms[index].label} was not measured on"
                    f" {', '.join(lacking[:8])}, which the objective counts; evaluate it, or leave the swarm out.",
                    f"swarms[{index}]",
                )
        if len(mixtures := {tuple(sorted(run.weights.items())) for _, run in found}) < FEWEST_ANCHORS:
            raise Invalid(
                "sizes_not_apart",
                f"{len(mixtures)} mixtures of {scale[0]:,} parameters and {scale[1]:,} tokens do not tell that size"
                f" and length from the others; {FEWEST_ANCHORS} do.",
                f"swarms[{found[0][0]}]",
            )
    return scales


def _scale(given: GivenSwarm, run: Run, index: int) -> Scale:
    parameters, tokens = given.parameters(run), run.requested_tokens
    if parameters is None or tokens is None:
        name = "parameters" if parameters is None else "tokens"
        raise Invalid(
            f"missing_{name}",
            f"{given.label} does not say how many {name} its runs have, which a target is held to; bring it again"
            f" with {name}.",
            f"swarms[{index}]",
        )
    return parameters, tokens


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return all(alike(mine / theirs) for mine, theirs in zip(one, other, strict=True))


def _metrics(swarms: Sequence[GivenSwarm]) -> dict[str, TaskDocument]:
    found: dict[str, TaskDocument] = {}
    for index, given in enumerate(swarms):
        for task in tasks_of(given):
            known = found.setdefault(task.name, task)
            if not _agree(known.metric, task.metric):
                raise Invalid(
                    "other_direction",
                    f"{given.label} says that {task.name!r} is {task.metric!r}, and {swarms[0].label} that it is"
                    f" {known.metric!r}.",
                    f"swarms[{index}]",
                )
    return found


def _agree(one: str, other: str) -> bool:
    """Whether two words for a metric may be of one; in BPB it is better when lower."""
    return one == other or {one, other} == {"bpb", "lower"}


def tasks_of(given: GivenSwarm) -> list[TaskDocument]:
    """What a swarm's runs measured, each with its direction; of one that was trained here without what is watched.

    Raises Invalid for a metric whose direction is unclear.
    """
    if given.document is not None:
        names = set(given.metrics)
        asked = [task for task in given.document.tasks if task.name in names]
        if asked or given.document.tasks:
            return asked
        return [TaskDocument(name=name) for name in given.metrics if name.startswith(HELD_OUT_PREFIX)]
    whole = given.whole_run
    runs = given.evidence(given.metrics, whole)
    try:
        turns = directions(given.metrics, runs, *patterns_of(given.brought, given.metrics))
    except MixingError as error:
        raise invalid(error) from error
    words = {"error rate": "accuracy", "negated": "higher"}
    return [
        TaskDocument(name=name, metric=words[turns[name]] if name in turns else "lower")  # pyright: ignore
        for name in given.metrics
    ]


def patterns_of(brought: BroughtDocument, metrics: Sequence[str]) -> tuple[list[str], list[str]]:
    """What was said of directions, as far as there are such metrics yet: higher, and lower."""
    return (
        [one for one in brought.higher_is_better if _stands(metrics, one)],
        [one for one in brought.lower_is_better if _stands(metrics, one)],
    )


def _stands(metrics: Sequence[str], pattern: str) -> bool:
    try:
        return bool(named(metrics, [pattern], ""))
    except InvalidSetting:
        return False
