"""What the mixture gains at the planned training run: the proxies' prediction carried there, with what may be off.

Three things are unsure, and they are drawn together:

- regression: the gain at the proxies, whose 90% interval `mixing.answer.uncertainty` gives, as a normal distribution;
- transfer: what such a gain is worth at the target (`mixing.laws.transfer`), exp(l) of a normal l, and beside it what
  an affine map misses of each of the two mixtures. Of l's variance a part is the same for all tasks;
- noise: what one training run of either mixture differs from another with a new seed, as the proxies' own.

The interval is from the 5th to the 95th percentile of the draws, each part's that of draws in which nothing else is
unsure. With runs of one size and one length the transfer is unknown: the interval is then as wide as published
transfers are, and says so.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mixing.answer.uncertainty import CONFIDENCE, DEVIATIONS, GainIntervals
from mixing.domains import SUM_TOLERANCE
from mixing.errors import InvalidMetrics
from mixing.laws.extrapolation import chosen
from mixing.laws.regression import Fitted
from mixing.laws.transfer import SHARED, Anchors, Transfer, doublings, factor_interval, halfway
from mixing.question import Question
from mixing.runs.evidence import Evidence
from mixing.runs.sound import RunEvidence, alike, sound_runs

Document = dict[str, Any]
DRAWS = 4096
"""The ends of an interval are then known to a fortieth of its width."""
_PARTS = ("regression", "transfer", "noise")


def anchors_of(question: Question, evidence: Evidence, runs: Sequence[RunEvidence]) -> list[Anchors]:
    """The runs of other sizes and lengths, by scale, read as the evidence's columns.

    Raises:
        InvalidMetrics: an anchor that did not measure a task of the objective, or fits no law.
        UnknownDomain, MissingDomain, InvalidWeights, DuplicateRun: as those of the proxies.
    """
    if not runs:
        return []
    spec = question.specification
    kept, _ = sound_runs(question.domains, runs, spec, positive=False, drop_faulty=False)
    for run, _ in kept:
        if missing := sorted(set(spec.tasks) - set(run.measured)):
            raise InvalidMetrics(
                f"anchor {run.id!r} was not measured on {', '.join(missing)}, which the objective counts; evaluate it"
                " on the tasks of the proxies, or leave it out",
                field="anchors",
                names=[run.id, *missing],
            )
    scales: dict[tuple[float, float], list[int]] = {}
    for number, (run, _) in enumerate(kept):
        scale = next(
            (one for one in scales if alike(run.size / one[0]) and alike(run.tokens / one[1])),
            (run.size, run.tokens),
        )
        scales.setdefault(scale, []).append(number)
    nan = float("nan")
    metrics = np.array(
        [
            [spec.lower_is_better(task, float(run.measured.get(task, nan))) for task in evidence.tasks]
            for run, _ in kept
        ]
    )
    weights = np.array([row for _, row in kept])
    sums = weights.sum(axis=1, keepdims=True)
    weights = np.where(np.abs(sums - 1) > SUM_TOLERANCE, weights / sums, weights)
    matrix = evidence.groups.matrix
    values = np.nan_to_num(metrics) @ matrix.T
    values[np.isnan(metrics).astype(float) @ (matrix != 0).T.astype(float) > 0] = nan
    return [Anchors(scale, weights[rows], values[rows]) for scale, rows in sorted(scales.items())]


def transfer_of(
    question: Question, evidence: Evidence, law: Fitted, runs: Sequence[RunEvidence]
) -> Transfer | None:
    """What the proxies' gains are worth at the question's target, by its anchors; None without a target.

    Raises:
        InvalidMetrics, ...: as `anchors_of`.
    """
    if (scale := question.target_scale) is None:
        return None
    anchors = anchors_of(question, evidence, runs)
    predicted = [law.mean(one.weights) for one in anchors]
    return chosen(scale, anchors, predicted, evidence.table, law.mean(evidence.weights))


@dataclass(frozen=True)
class AtTarget:
    """The gains of C columns and, last, of the objective over some mixture, drawn at the target.

    Attributes:
        draws: `{part: (n, C + 1)}` gains with only that part unsure, and with all of them by the name "all".
        has_noise: (C + 1,) whether the noise of a run is known; it is taken for none where not.
    """

    draws: dict[str, np.ndarray]
    has_noise: np.ndarray

    @classmethod
    def of(
        cls, carried: Transfer, evidence: Evidence, gains: GainIntervals, generator: np.random.Generator
    ) -> "AtTarget":
        """Of the gains at the proxies."""
        columns = len(evidence.table.names)
        centre = gains.bounds.mean(axis=1)
        deviation = (gains.bounds[:, 1] - gains.bounds[:, 0]) / (2 * DEVIATIONS)
        noise = np.zeros(columns)
        noise[: len(evidence.tasks)] = np.nan_to_num(evidence.noise)
        sure = {
            "regression": np.zeros((DRAWS, columns + 1)),
            "transfer": np.zeros((DRAWS, 2 + 2 * columns)),
            "noise": np.zeros((DRAWS, columns)),
        }
        unsure = {part: generator.standard_normal(zeros.shape) for part, zeros in sure.items()}

        def drawn(*parts: str) -> np.ndarray:
            own = {part: unsure[part] if part in parts else sure[part] for part in _PARTS}
            return _drawn(own, carried, evidence, (centre, deviation, noise))

        counted = np.isfinite(evidence.noise) | (evidence.objective == 0)
        known = np.concatenate(
            [np.isfinite(evidence.noise), np.full(columns - len(evidence.tasks) + 1, counted.all())]
        )
        return cls({"all": drawn(*_PARTS), **{part: drawn(part) for part in _PARTS}}, known)

    def document(self, column: int) -> Document:
        """The gain of a column, its interval and what each part of that alone would make it."""
        tail = (1 - CONFIDENCE) / 2
        ends = {
            name: np.quantile(draws[:, column], (tail, 0.5, 1 - tail)) for name, draws in self.draws.items()
        }
        low, middle, high = ends["all"].tolist()
        return {
            "gain": middle,
            "interval": [low, high],
            "parts": {
                part: None if part == "noise" and not self.has_noise[column] else ends[part][[0, 2]].tolist()
                for part in _PARTS
            },
            "probability_better": float((self.draws["all"][:, column] > 0).mean()),
        }


def _drawn(
    normal: dict[str, np.ndarray],
    carried: Transfer,
    evidence: Evidence,
    gains: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    """(n, C + 1) gains at the target from standard normal draws of each part.

    The objective's draws are those of its tasks, each at its own factor, with the objective's own error of the
    regression: what its interval knows of tasks that are missed together stays. The worst family's are carried as
    one column.
    """
    centre, deviation, noise = gains
    groups, columns = evidence.groups, len(centre) - 1
    shared, own = np.sqrt(SHARED), np.sqrt(1 - SHARED)
    common, slopes = normal["transfer"][:, :1], normal["transfer"][:, 2 : 2 + columns]
    logs = carried.unknown * (shared * common + own * slopes) + carried.measured * slopes
    factors = carried.factors * np.exp(logs)
    missed = np.sqrt(2) * carried.residual * factors * normal["transfer"][:, 2 + columns :]
    beside = missed + np.sqrt(2) * noise * normal["noise"]
    each = factors * (centre[:-1] + deviation[:-1] * normal["regression"][:, :-1]) + beside
    weights = groups.column_weights
    mean = factors @ (weights / weights.sum())
    whole = mean * (centre[-1] + deviation[-1] * normal["regression"][:, -1]) + beside @ weights
    if not groups.worst:
        whole = whole + (factors - mean[:, None]) @ (weights * centre[:-1])
    return np.column_stack([each, whole])


def target_document(question: Question, evidence: Evidence, carried: Transfer, at: AtTarget) -> Document:
    """JSON of what is predicted at the target."""
    assert question.target is not None
    assert question.target_scale is not None
    is_known = carried.anchors > 0
    away = doublings(question.target_scale)
    proxy = (float(question.proxy_parameters or 0), float(question.proxy_tokens or 0))
    return {
        "parameters": question.target.parameters,
        "tokens": question.target.tokens,
        "proxy": {"parameters": question.proxy_parameters, "tokens": question.proxy_tokens},
        "doublings": {"parameters": float(away[0]), "tokens": float(away[1])},
        "transfer": "measured" if is_known else "unknown",
        "anchors": carried.anchors,
        "law": carried.law,
        "extrapolation": dict(carried.errors),
        "factor": list(factor_interval(carried.unknown)),
        "confidence": CONFIDENCE,
        "objective": at.document(-1),
        "tasks": [
            {
                "name": name,
                "factor": float(carried.factors[t]),
                "agreement": None if np.isnan(carried.agreement[t]) else float(carried.agreement[t]),
                **at.document(t),
            }
            for t, name in enumerate(evidence.tasks)
        ],
        "to_know": None
        if is_known
        else asdict(halfway((question.target.parameters, question.target.tokens), proxy)),
    }
