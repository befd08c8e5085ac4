"""When the evidence does not support a decision, in plain words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixing.laws.diagnostics import leverage, weight_spread
from mixing.runs.evidence import Evidence
from mixing.runs.noise import TaskSignal

LOW_RANK_CORRELATION = 0.7
"""Below this a proxy swarm orders mixtures hardly better than their largest effect alone."""
UNVARIED = 1e-4
"""A domain whose weight has a smaller standard deviation over the runs was, for a regression, held fixed."""


@dataclass(frozen=True)
class Warning:
    """A stable code and a sentence."""

    code: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True)
class Findings:
    """What the warnings are drawn from; `objective` is the document's part of that name."""

    evidence: Evidence
    signals: Mapping[str, TaskSignal]
    domains: tuple[str, ...]
    pinned: frozenset[str]
    objective: dict[str, Any]
    proposed: np.ndarray
    nearest_run_distance: float
    recommended_runs: int


def warnings_of(findings: Findings) -> tuple[Warning, ...]:
    """Everything a person should know before acting on the mixture."""
    return (
        *_gain(findings),
        *_tasks(findings),
        *_regression(findings),
        *_swarm(findings),
        *_left_out(findings),
    )


def _gain(findings: Findings) -> Iterator[Warning]:
    if findings.objective["gain_interval"] is None:
        yield Warning(
            "not_cross_validated",
            "The regression has as many parameters as there are runs, or nearly: none could be left out to judge it "
            "by, so nothing is known of how sure the predicted gain is.",
        )
        return
    low, high = findings.objective["gain_interval"]
    unit = f" {findings.objective['unit']}" if findings.objective["unit"] else ""
    if low <= 0 <= high:
        yield Warning(
            "gain_uncertain",
            f"The interval of the predicted gain, {low:+.4f} to {high:+.4f}{unit}, includes 0: these runs do not "
            "show that the proposed mixture is better than the natural distribution.",
        )
    elif high < 0:
        yield Warning(
            "gain_negative", "The proposed mixture is predicted to be worse than the natural distribution."
        )
    share, noises = findings.evidence.objective, findings.evidence.noise
    if np.isfinite(noises[share > 0]).all():
        noise = float(np.sqrt(np.nansum((share * noises) ** 2)))
        if noise >= abs(findings.objective["gain"]):
            yield Warning(
                "noise_comparable_to_gain",
                f"The noise of one run's objective, {noise:.4f}{unit}, is as large as the predicted gain, "
                f"{findings.objective['gain']:.4f}{unit}.",
            )


def _tasks(findings: Findings) -> Iterator[Warning]:
    counted = [
        name
        for name, share in zip(findings.evidence.tasks, findings.evidence.objective, strict=True)
        if share > 0
    ]
    silent = [
        name for name in counted if name in findings.signals and findings.signals[name].advice == "drop"
    ]
    if silent:
        yield Warning(
            "task_without_signal",
            f"Over the runs {', '.join(silent)} varied no more than noise alone would make it: it tells mixtures of "
            "this size of proxy apart by chance. Take it out of the objective, or train proxies for longer.",
        )


def _regression(findings: Findings) -> Iterator[Warning]:
    correlation = findings.objective["rank_correlation"]
    if correlation is not None and correlation < LOW_RANK_CORRELATION:
        yield Warning(
            "low_rank_correlation",
            f"On runs it has not seen, the regression orders the objective with a rank correlation of only "
            f"{correlation:.2f}.",
        )
    runs = len(findings.evidence.weights)
    if runs < findings.recommended_runs:
        yield Warning(
            "few_runs",
            f"{runs} runs over {len(findings.domains)} domains; {findings.recommended_runs} are recommended.",
        )


def _swarm(findings: Findings) -> Iterator[Warning]:
    weights = findings.evidence.weights
    supports = leverage(weights, np.vstack([weights, findings.proposed]))
    if supports[-1] > supports[:-1].max():
        yield Warning(
            "beyond_the_runs",
            f"The proposed mixture lies beyond what the runs support: its leverage is {supports[-1]:.2f}, that of "
            f"the runs at most {supports[:-1].max():.2f}, and the nearest one is {findings.nearest_run_distance:.2f} "
            "away (L1). The prediction extrapolates.",
        )
    fixed = [
        name
        for name, spread in zip(findings.domains, weight_spread(weights), strict=True)
        if spread < UNVARIED and name not in findings.pinned
    ]
    if fixed:
        yield Warning(
            "domain_not_varied", f"The runs never varied {', '.join(fixed)}; their effect is a guess."
        )


def _left_out(findings: Findings) -> Iterator[Warning]:
    for task, reason in findings.evidence.left_out.items():
        yield Warning("task_left_out", f"Task {task} was not fitted: {reason}")
