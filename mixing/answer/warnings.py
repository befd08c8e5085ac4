"""When the evidence does not support a decision, in plain words; every number in them is a field of the document."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mixing.laws.diagnostics import UNVARIED, weight_spread
from mixing.sense import Sense

if TYPE_CHECKING:
    from mixing.answer.report import Report

LOW_RANK_CORRELATION = 0.7
"""Below this a proxy swarm orders mixtures hardly better than their largest effect alone."""

LOW_AGREEMENT = 0.75
"""Below this the order of mixtures at the proxies' size says little of another: .995 is published for pretraining
losses from 1M to 60M parameters, .55 for instruction tuning from .5B to 7B."""

COARSE = 0.02
"""A run whose whole rows are further (L1) from what was asked of it was not the experiment that was designed."""
OFTEN = 0.1
"""A domain that had a weight and got no row in more than this share of the runs is named, however fine the rows."""


@dataclass(frozen=True)
class Warning:
    """A stable code and a sentence."""

    code: str
    message: str


def warnings_of(report: "Report") -> tuple[Warning, ...]:
    """Everything a person should know before acting on the mixture."""
    parts = (_limits, _gain, _transfer, _tasks, _regression, _swarm, _doubtful, _left_out)
    return tuple(warning for part in parts for warning in part(report))


def _limits(report: "Report") -> Iterator[Warning]:
    if (said := report.question.limits.little_to_decide()) is not None:
        yield Warning("little_to_decide", said)


def _gain(report: "Report") -> Iterator[Warning]:
    if report.objective["gain_interval"] is None:
        yield Warning(
            "not_cross_validated",
            "The regression has as many parameters as there are runs, or nearly: none could be left out to judge it "
            "by, so nothing is known of how sure the predicted gain is.",
        )
        return
    low, high = report.objective["gain_interval"]
    sense = report.sense
    if low <= 0 <= high:
        yield Warning(
            "gain_uncertain",
            f"The interval of the predicted gain, {Sense(None, None).change(low, '+')} to {sense.change(high, '+')}, "
            "includes 0: these runs do not show that the proposed mixture is better than the natural distribution.",
        )
    elif high < 0:
        yield Warning(
            "gain_negative", "The proposed mixture is predicted to be worse than the natural distribution."
        )
    noise, gain = report.objective["noise"], report.objective["gain"]
    if noise is not None and noise >= abs(gain):
        yield Warning(
            "noise_comparable_to_gain",
            f"The noise of one run's objective, {sense.change(noise)}, is as large as the predicted gain, "
            f"{sense.change(gain)}.",
        )


def _transfer(report: "Report") -> Iterator[Warning]:
    carried = report.proposal.transfer
    if carried is None:
        return
    for one in report.anchors_left_out:
        yield Warning(
            "sizes_not_apart",
            f"The anchors of {one['parameters']:.4g} times the proxies' parameters and {one['tokens']:.4g} times"
            f" their tokens are of {one['mixtures']} mixtures, and {one['mixtures_needed']} tell a scale from the"
            " proxies': they count for nothing. Train more of them.",
        )
    mean, tasks = report.agreement, report.evidence.tasks
    if mean is not None and mean < LOW_AGREEMENT:
        agreement, share = carried.agreement[: len(tasks)], report.evidence.objective
        worst = tasks[int(np.nanargmin(np.where(share > 0, agreement, np.nan)))]
        yield Warning(
            "weak_transfer",
            f"The anchors order mixtures otherwise than the proxies: their rank correlation is {mean:.2f} over the"
            f" tasks, and least on {worst}. What is best for the proxies need not be for the"
            " target; train larger proxies, or decide by the anchors' size.",
        )


def _tasks(report: "Report") -> Iterator[Warning]:
    counted = [
        name
        for name, share in zip(report.evidence.tasks, report.evidence.objective, strict=True)
        if share > 0
    ]
    signals = report.standing.signals
    silent = [name for name in counted if name in signals and signals[name].advice == "drop"]
    if silent:
        yield Warning(
            "task_without_signal",
            f"Over the runs {', '.join(silent)} varied no more than noise alone would make it: it tells mixtures of "
            "this size of proxy apart by chance. Take it out of the objective, or train proxies for longer.",
        )


def _regression(report: "Report") -> Iterator[Warning]:
    whole, each = report.objective["rank_correlation"], report.held_out_rank_correlation
    if whole is not None and each is not None and min(whole, each) < LOW_RANK_CORRELATION:
        yield Warning(
            "low_rank_correlation",
            f"On runs it has not seen, the regression orders the objective with a rank correlation of {whole:.2f} and"
            f" its tasks, each by itself, with {each:.2f} on average.",
        )
    names = report.evidence.table.names
    if unfinished := ", ".join(names[column] for column in report.proposal.learned.law.unfinished()):
        yield Warning(
            "not_converged",
            f"The law of {unfinished} was still improving when its iterations ended: what it predicts may be off by"
            " more than its interval says.",
        )
    runs, recommended, domains = len(report.evidence.weights), report.runs_recommended, len(report.domains)
    if runs < recommended:
        yield Warning("few_runs", f"{runs} runs over {domains} domains; {recommended} are recommended.")


def _swarm(report: "Report") -> Iterator[Warning]:
    weights = report.evidence.weights
    support = report.support
    if support["proposed"] > support["runs"]:
        yield Warning(
            "beyond_the_runs",
            f"The proposed mixture lies beyond what the runs support: its leverage is {support['proposed']:.2f}, that"
            f" of the runs at most {support['runs']:.2f}, and the nearest one is {report.nearest_run_distance:.2f} "
            "away (L1). The prediction extrapolates.",
        )
    rounding = float(report.evidence.table.rounding.max())
    missed = {
        name: runs
        for name, runs in report.evidence.without_rows.items()
        if rounding > COARSE or runs > OFTEN * len(weights)
    }
    domains = ", ".join(f"{name} in {runs} of {len(weights)} runs" for name, runs in missed.items())
    if missed and rounding <= COARSE:
        yield Warning(
            "without_rows",
            f"No row fell to a domain that was given a weight: to {domains}. The law knows these runs as trained"
            " without it; longer proxies, or shorter rows, would tell what so little of it is worth.",
        )
    if rounding > COARSE:
        yield Warning(
            "coarse_rows",
            f"The proxies are so short that whole rows were up to {rounding:.3f} (L1) from the mixtures asked for"
            f"{f', and no row fell to {domains}' if missed else ''}. The law is fitted to what was trained; longer"
            " proxies, or shorter rows, would come closer.",
        )
    pins = [share for share in report.question.constraints if share.lower == share.upper]
    pinned = {name for pin in pins if len(pin.coefficients) == 1 for name in pin.coefficients}
    fixed = [
        name
        for name, spread in zip(report.question.domains.names, weight_spread(weights), strict=True)
        if spread < UNVARIED and name not in pinned
    ]
    if fixed:
        yield Warning(
            "domain_not_varied",
            f"The runs never varied {', '.join(fixed)}; their effect is a guess, and the intervals allow for one as"
            " large as other domains have.",
        )


def _doubtful(report: "Report") -> Iterator[Warning]:
    runs: dict[str, list[str]] = {}
    for one in report.evidence.set_aside:
        sense = replace(report.senses[one.task], turn=None)
        said = f"{sense.change(one.value)} on {one.task} where the other runs predict {sense.change(one.expected)}"
        runs.setdefault(one.run, []).append(said)
    for run, said in runs.items():
        yield Warning(
            "doubtful_run",
            f"Run {run} measured {', '.join(said)}: no mixture explains that, so it counts for nothing there. Look"
            " whether it diverged or was evaluated wrongly.",
        )


def _left_out(report: "Report") -> Iterator[Warning]:
    for task, reason in report.evidence.left_out.items():
        yield Warning("task_left_out", f"Task {task} was not fitted: {reason}")
