"""The document of a proposal: everything known about the mixture, by name, ready for JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from mixing.answer.caps import caps_read
from mixing.answer.standing import Standing
from mixing.answer.uncertainty import CONFIDENCE
from mixing.answer.untrained import cap_row, domain_rows
from mixing.answer.warnings import warnings_of
from mixing.laws.diagnostics import effects, leverage, weight_spread
from mixing.laws.ensemble import PROCESSES, WORTH_SEARCHING
from mixing.laws.transfer import FEWEST_ANCHORS
from mixing.limits import BINDING
from mixing.methods import method_named
from mixing.sense import Sense, sense_of
from mixing.solve.constraints import LinearConstraint
from mixing.solve.solution import Kind, couplings

if TYPE_CHECKING:
    from mixing.answer.proposal import Proposal

Document = dict[str, Any]
_UNCHANGED = 1e-8
"""Of what a task varies by over the runs: a prediction this much worse is the same one, rounded."""
_NAMED = 5
"""Tasks a note names; the rest are counted."""
_COUPLED = 50
"""Domains a domain's couplings are listed for."""


class Report:
    """The parts of a document, each made once from one proposal."""

    def __init__(self, proposal: "Proposal", standing: Standing | None = None) -> None:
        self.proposal = proposal
        self.standing = Standing.of(proposal.learned) if standing is None else standing
        self.question = proposal.question
        self.evidence = proposal.learned.evidence
        self.groups = self.evidence.groups
        self.weights = proposal.solution.weights
        self.natural = self.question.domains.natural_weights
        both = np.stack([self.natural, self.weights])
        self.at_natural, self.at_proposed = proposal.learned.law.mean(both)
        spec = self.question.specification
        self.senses = {task: sense_of(spec, [task]) for task in self.evidence.tasks}
        self.sense = sense_of(spec, np.array(self.evidence.tasks)[self.evidence.objective > 0])

    def document(self) -> Document:
        """The whole of it."""
        proposal, recipe = self.proposal, self.question.parts
        intervals = proposal.intervals
        return {
            "weights": self.by_domain(self.weights),
            "natural": self.by_domain(self.natural),
            "method": self.question.method,
            "recipe": asdict(recipe),
            "objective": self.objective,
            "at_target": proposal.at_target,
            "regret": self.regret(),
            "decision": None if proposal.decision is None else proposal.decision.document(self.question),
            "tasks": self.tasks,
            "worse": self.worse(),
            "held_out_rank_correlation": self.held_out_rank_correlation,
            "domains": self.domains,
            "constraints": [*self.caps(), *self.shares(), *self.guard_rails()],
            "caps": caps_read(proposal),
            "effects": self.effects(),
            "coupling": self.coupling(),
            "reuse": self.reuse(),
            "leverage": self.by_domain(weight_spread(self.evidence.weights)),
            "weight_spread": None if intervals is None else self.by_domain(intervals.weight_spread),
            "optimality_gap": _finite(proposal.solution.gap),
            "evaluations": proposal.solution.evaluations,
            "optimism": None if intervals is None else intervals.optimism,
            "nearest_run_distance": self.nearest_run_distance,
            "support": self.support,
            "agreement": self.agreement,
            "anchors_left_out": self.anchors_left_out,
            "runs_used": len(self.evidence.weights),
            "runs_recommended": self.runs_recommended,
            "rounding": float(self.evidence.table.rounding.max()),
            "without_rows": dict(self.evidence.without_rows),
            "set_aside": [asdict(one) for one in self.evidence.set_aside],
            "freedom": self.question.limits.freedom,
            "left_out": dict(self.evidence.left_out),
            "notes": [*self.evidence.notes, *self.proposal.learned.law.notes(), *self.how_solved()],
            "warnings": [asdict(warning) for warning in warnings_of(self)],
        }

    def regret(self) -> Document | None:
        """What the best as predicted is expected to give away; None where nothing is held out."""
        found = self.proposal.regret
        return None if found is None else asdict(found)

    @cached_property
    def held_out_rank_correlation(self) -> float | None:
        """Mean over the objective's tasks of how well each is ordered on runs not seen; None where none was."""
        held_out = self.proposal.learned.held_out
        if held_out is None:
            return None
        return float(held_out.rank_correlation[np.flatnonzero(self.evidence.objective > 0)].mean())

    def by_domain(self, values: np.ndarray) -> dict[str, float]:
        """(m,) values by name."""
        return dict(zip(self.question.domains.names, map(float, values), strict=True))

    @cached_property
    def objective(self) -> Document:
        """What is predicted of the objective."""
        natural, proposed = (float(self.groups.value(at)) for at in (self.at_natural, self.at_proposed))
        return {
            "aggregate": "worst_family" if self.groups.worst else "mean",
            "families": self.families(),
            **self.predicted(-1, self.sense, natural, proposed),
            "confidence": CONFIDENCE,
            "noise": self._objective_noise(),
        }

    def _objective_noise(self) -> float | None:
        """Of one run's objective, by that of its tasks; None where that of one is not known."""
        share, noises = self.evidence.objective, self.evidence.noise
        if not np.isfinite(noises[share > 0]).all():
            return None
        return float(np.sqrt(np.nansum((share * noises) ** 2)))

    @cached_property
    def support(self) -> dict[str, float]:
        """The leverage of the mixture, and the largest of the runs: beyond it the prediction extrapolates."""
        weights = self.evidence.weights
        supports = leverage(weights, np.vstack([weights, self.weights]))
        return {"proposed": float(supports[-1]), "runs": float(supports[:-1].max())}

    @cached_property
    def agreement(self) -> float | None:
        """Mean rank correlation, over the objective's tasks, of anchors with proxies; None without."""
        carried, share = self.proposal.transfer, self.evidence.objective
        if carried is None:
            return None
        agreement = carried.agreement[: len(share)]
        judged = np.isfinite(agreement) & (share > 0)
        return float(share[judged] @ agreement[judged] / share[judged].sum()) if judged.any() else None

    @property
    def anchors_left_out(self) -> list[Document]:
        """The scales of anchors, in units of the proxies', of which too few mixtures were trained to count."""
        carried = self.proposal.transfer
        return [
            {
                "parameters": one.scale[0],
                "tokens": one.scale[1],
                "mixtures": one.mixtures,
                "mixtures_needed": FEWEST_ANCHORS,
            }
            for one in (() if carried is None else carried.left_out)
        ]

    @cached_property
    def runs_recommended(self) -> int:
        """As many as the method trains over these domains where nobody says."""
        question = self.question
        return method_named(question.method).default_runs(len(question.space.free), question.parts)

    def predicted(self, column: int, sense: Sense, natural: float, proposed: float) -> Document:
        """What is predicted of a task, or in column -1 of the objective, and how sure that is.

        `natural_interval` is where one more proxy run of the natural distribution is expected. Of the proposed
        mixture there is none: it was chosen by these very runs, and on simulated swarms an interval of their
        residuals held a new run of it 3 to 5 times in 10 (`gain_interval` allows for the choice).
        """
        expected, intervals, errors = (
            self._at_natural,
            self.proposal.intervals,
            self.proposal.learned.held_out,
        )
        return {
            **sense.pair(natural, proposed),
            "natural_interval": None
            if np.isnan(expected[0, column])
            else sense.interval(*expected[:, column]),
            "gain": natural - proposed,
            "gain_interval": None if intervals is None else intervals.bounds[column].tolist(),
            **{
                score: None if errors is None else _finite(getattr(errors, score)[column])
                for score in ("rank_correlation", "mae", "decision_accuracy")
            },
        }

    @cached_property
    def _at_natural(self) -> np.ndarray:
        return self.expected(self.at_natural)

    def expected(self, at: np.ndarray) -> np.ndarray:
        """(2, C + 1) where one more run is expected that is predicted at (C,) `at`; NaN with too few runs."""
        return self.standing.expected(self.groups, at)

    def families(self) -> list[Document]:
        """The means of which the worst is minimised, by their tasks; none where all tasks count together."""
        if not self.groups.worst:
            return []
        groups, tasks, spec = self.groups, self.evidence.tasks, self.question.specification
        shares = groups.membership @ groups.matrix
        means = zip(groups.membership @ self.at_natural, groups.membership @ self.at_proposed, strict=True)
        return [
            {
                "name": name,
                "tasks": {task: float(share) for task, share in zip(tasks, row, strict=True) if share > 0},
                **sense_of(spec, np.array(tasks)[row > 0]).pair(float(natural), float(proposed)),
                "gain": float(natural - proposed),
            }
            for name, row, (natural, proposed) in zip(groups.families, shares, means, strict=True)
        ]

    @cached_property
    def tasks(self) -> list[Document]:
        """What is predicted of each task, and how many runs measured it.

        `signal_to_noise` is its range over the runs in units of its noise.
        """
        evidence = self.evidence
        alone = {self.question.parts.regression: 1.0}
        laws, signals = self.standing.laws or (alone,) * len(evidence.tasks), self.standing.signals
        return [
            {
                "name": name,
                "laws": laws[t],
                "weight": float(evidence.objective[t]),
                **self.predicted(t, self.senses[name], float(self.at_natural[t]), float(self.at_proposed[t])),
                "runs": int(self.standing.runs[t]),
                "noise": _finite(evidence.noise[t]),
                "signal_to_noise": _finite(signals[name].ratio) if name in signals else None,
            }
            for t, name in enumerate(evidence.tasks)
        ]

    def how_solved(self) -> list[str]:
        """Why the mixture is certified or was searched for, of a law that could have been either."""
        law = self.proposal.learned.law
        if not law.parts():
            return []
        if law.is_convex and law.notes():
            return [
                "The laws that had a part are convex in the mixture, so it is the certified best by them."
            ]
        if law.is_convex:
            return [
                "Laws that are convex in the mixture predict every task about as well as any, so the mixture is the"
                " certified best."
            ]
        curved = [
            task
            for task, parts in zip(self.evidence.table.names, law.parts(), strict=True)
            if PROCESSES & set(parts)
        ]
        others = f" and {len(curved) - _NAMED} more" if len(curved) > _NAMED else ""
        return [
            f"Gaussian processes count in the laws of {', '.join(curved[:_NAMED])}{others}: they lower the held-out"
            f" error of at least one by more than {WORTH_SEARCHING:.0%}. So the mixture was searched for: it is the"
            " best found, without a certificate."
        ]

    def worse(self) -> list[Document]:
        """The tasks predicted worse than by the natural distribution, the worst first, each in its own unit.

        `change` is by how much, above 0, and `interval` that of the change; `is_certain` says whether it excludes 0,
        and both are None where nothing is held out.
        """
        rounded = _UNCHANGED * self.evidence.spreads
        rows = [
            (row, row["gain_interval"])
            for row, least in zip(self.tasks, rounded, strict=False)
            if row["gain"] < -least
        ]
        return [
            {
                "task": row["name"],
                "weight": row["weight"],
                "change": -row["gain"],
                "interval": None if bounds is None else [-bounds[1], -bounds[0]],
                "is_certain": None if bounds is None else bounds[1] < 0,
            }
            for row, bounds in sorted(rows, key=lambda pair: (pair[0]["gain"], pair[0]["name"]))
        ]

    @cached_property
    def domains(self) -> list[Document]:
        """What the mixture does with each domain, and what one more token of it is worth.

        Its cap is k N_j / R, so d cap / d N_j = k / R.
        """
        prices, question = self.proposal.solution.cap_prices, self.question
        rows = domain_rows(question.limits, self.weights)
        for row, price in zip(rows, [] if prices is None else prices.tolist(), strict=False):
            row["shadow_price"] = price * (question.repetition_cap or 0.0) / question.target_tokens
        return rows

    def caps(self) -> Iterator[Document]:
        """The repetition caps that bind."""
        for row in self.domains:
            if not row["binding"]:
                continue
            price, tokens, worth = row["shadow_price"], row["tokens"], ""
            if price is not None:
                worth = self.sense.change(price * tokens)
                worth = f": {tokens:,.0f} more tokens of it would be worth about {worth}"
            yield cap_row(self.question, row, worth)

    def shares(self) -> Iterator[Document]:
        """The shares at one of their bounds."""
        prices = self._prices("constraint", "pin")
        for constraint in self.question.limits.all_constraints:
            weight = float(constraint.row(self.question.domains.names) @ self.weights)
            if (bound := _bound_reached(constraint, weight)) is None:
                continue
            price, worth = prices.get(constraint.name), ""
            if constraint in self.question.limits.sharing:
                yield {
                    "kind": "shared_cap",
                    "name": constraint.name,
                    "domains": sorted(constraint.coefficients),
                    "bound": bound,
                    "shadow_price": price,
                    "statement": f"The {constraint.name} is read {self.question.repetition_cap:g} times, its cap.",
                }
                continue
            if price is not None:
                worth = f"; a hundredth more room would be worth about {self.sense.change(price / 100)}"
            yield {
                "kind": "share",
                "name": constraint.name,
                "bound": bound,
                "shadow_price": price,
                "statement": f"{constraint.name} weighs {weight:.4f}, where it is held{worth}.",
            }

    def guard_rails(self) -> Iterator[Document]:
        """The guard rails that hold the mixture back."""
        prices = self._prices("guard_rail")
        for guard, rail in zip(self.question.guard_rails, self.proposal.problem.guard_rails, strict=True):
            predicted = float(rail.mean.weights @ self.at_proposed)
            if predicted < rail.bound - BINDING:
                continue
            sense = self.senses[guard.task]
            at = sense.in_words(predicted * rail.unit)
            yield {
                "kind": "guard_rail",
                "task": guard.task,
                "bound": sense.measured(rail.bound * rail.unit),
                "shadow_price": prices.get(rail.mean.name),
                "statement": f"{guard.task} is predicted at {at}, its guard rail.",
            }

    def _prices(self, *kinds: Kind) -> dict[str, float]:
        return {item.name: item.price for item in self.proposal.solution.active if item.kind in kinds}

    def effects(self) -> dict[str, dict[str, float]]:
        """Per task, the change per unit of weight given to a domain and taken from all in proportion."""
        slopes = effects(self.proposal.learned.law, self.weights)
        return {
            name: self.by_domain(self.senses[name].slope(slopes[:, t]))
            for t, name in enumerate(self.evidence.tasks)
        }

    def coupling(self) -> dict[str, dict[str, float]] | None:
        """`{domain: {domain: cost}}`: what keeping the second's ratio costs when the first's whole weight changes.

        Of each domain the `_COUPLED` strongest.
        """
        costs = couplings(self.proposal.problem, self.weights)
        if costs is None:
            return None
        names = self.question.domains.names
        strongest = np.argsort(-costs, axis=1, kind="stable")[:, :_COUPLED]
        return {
            name: {names[k]: float(row[k]) for k in sorted(best) if row[k] > 0}
            for name, row, best in zip(names, costs, strongest.tolist(), strict=True)
        }

    def reuse(self) -> Document | None:
        """The ratios that were kept and the runs of older revisions that counted; None where nothing was reused."""
        reuse, learned = self.question.reuse, self.proposal.learned
        if not reuse.groups and not reuse.runs:
            return None
        virtual = self.question.space
        searched = virtual.collapse(self.weights)
        space = reuse.evidence_space(self.question.domains)
        return {
            "virtual_domains": {
                name: {"weight": float(weight), "ratios": dict(reuse.groups[name])}
                for name, weight in zip(virtual.free, searched, strict=True)
                if name in reuse.groups
            },
            "older_runs": int(self.evidence.table.older.sum()),
            "new_runs": int((~self.evidence.table.older).sum()),
            "contents": len(space.contents),
            "fitted_over": learned.where,
            "candidates": [asdict(candidate) for candidate in learned.candidates],
            "not_compared": learned.not_compared,
            "older_run_ids": sorted(run.id for run in reuse.runs if run.older),
        }

    @property
    def nearest_run_distance(self) -> float:
        """L1 distance of the mixture to the nearest run; at most so far to one with text that is no longer there."""
        return float((np.abs(self.evidence.weights - self.weights).sum(1) + self.evidence.table.off).min())


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def _bound_reached(constraint: LinearConstraint, weight: float) -> float | None:
    for bound in (constraint.lower, constraint.upper):
        if np.isfinite(bound) and abs(weight - bound) <= BINDING * max(abs(bound), BINDING):
            return float(bound)
    return None
