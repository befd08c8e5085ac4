"""Rows a page can be made of, in every state, written as workers would leave them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixing.change.revision import Changes
from store import jobs
from store.engine import Database
from store.tables import DomainRow, DomainSet, Job, Launch, MixtureRow, Optimization, Revision, Run, Swarm

TOKENS = {
    "code:c": 4_100_000,
    "code:javascript": 3_600_000,
    "code:python:high": 1_200_000,
    "code:python:low": 2_900_000,
    "encyclopedia:science": 640_000,
    "law": 2_200_000,
    "manuals:posix": 410_000,
    "manuals:python": 180_000,
    "novels": 1_700_000,
    "poetry": 61_000,
    "scripture": 820_000,
    "web:news": 5_300_000,
}
RAISED = {"manuals:posix": 3.0, "manuals:python": 4.0, "encyclopedia:science": 4.0, "poetry": 4.0, "law": 1.2}
TASKS = {"arithmetic": 0.25, "python-docs": 0.5, "short-stories": 0.25}
RECIPE = {
    "sampler": "two-level-dirichlet",
    "regression": "log-linear",
    "granularity": "per task",
    "solver": "exact",
}
SETTINGS = {
    "runs": 40,
    "rounds": [40],
    "minimum_runs": 12,
    "recipe": RECIPE,
    "target_tokens": 24_000_000,
    "repetition_cap": 4,
    "kl_weight": 0.05,
    "proxy": {
        "size": "nano-0.1M",
        "tokens": 524_288,
        "sequence_length": 128,
        "batch_rows": 8,
        "evaluations": 3,
    },
    "tasks": [{"name": name, "path": "t.jsonl", "family": None, "weight": w} for name, w in TASKS.items()],
}


def natural(tokens: Mapping[str, int]) -> dict[str, float]:
    """Weights proportional to tokens."""
    return {name: value / sum(tokens.values()) for name, value in tokens.items()}


def proposed(tokens: Mapping[str, int]) -> dict[str, float]:
    """Some domains raised, some up to their cap of 4 epochs in as many tokens as there are."""
    raised = {name: value * RAISED.get(name, 1.0) for name, value in tokens.items()}
    rest = 1.0 - sum(raised[name] for name in tokens if name in RAISED) / sum(tokens.values())
    other = sum(value for name, value in tokens.items() if name not in RAISED)
    return {
        name: raised[name] / sum(tokens.values()) if name in RAISED else rest * value / other
        for name, value in tokens.items()
    }


def evidence(tokens: Mapping[str, int], gain: float = 0.0412) -> dict[str, Any]:
    """A proposal's document as ``mixing.answer.proposal`` writes it."""
    p, q, total = proposed(tokens), natural(tokens), sum(tokens.values())
    tasks = [
        {
            "name": name,
            "weight": weight,
            "natural": 2.1 + weight,
            "proposed": 2.1 + weight - gain * (index + 0.5),
            "gain": gain * (index + 0.5),
            "gain_interval": [gain * (index + 0.5) - 0.02, gain * (index + 0.5) + 0.018],
            "rank_correlation": 0.91 - 0.1 * index,
            "mae": 0.0123 + 0.004 * index,
            "noise": 0.0031,
        }
        for index, (name, weight) in enumerate((*TASKS.items(), ("held-out/novels", 0.0)))
    ]
    return {
        "weights": p,
        "natural": q,
        "recipe": RECIPE,
        "objective": {
            "natural": 2.4751,
            "proposed": 2.4751 - gain,
            "gain": gain,
            "gain_interval": [gain - 0.0187, gain + 0.0201],
            "confidence": 0.9,
            "rank_correlation": 0.88,
            "mae": 0.0119,
        },
        "tasks": tasks,
        "held_out_rank_correlation": 0.84,
        "domains": [
            {
                "name": name,
                "tokens": tokens[name],
                "weight": p[name],
                "natural": q[name],
                "cap": min(1.0, 4 * tokens[name] / total),
                "epochs": p[name] * total / tokens[name],
                "natural_epochs": 1.0,
                "binding": RAISED.get(name) == 4.0,
                "shadow_price": 3e-9 if RAISED.get(name) == 4.0 else 0.0,
            }
            for name in tokens
        ],
        "constraints": [
            {
                "kind": "repetition_cap",
                "domain": name,
                "bound": 4 * tokens[name] / total,
                "shadow_price": 3e-9,
                "statement": f"{name} is at its cap of 4 epochs; 1M more tokens of it are worth 0.003 BPB.",
            }
            for name in tokens
            if RAISED.get(name) == 4.0
        ],
        "caps": [
            {
                "repetition_cap": cap,
                "is_own": cap == 4,
                "gain": gain + more,
                "epochs": epochs,
                "most_read": "poetry",
                "run_epochs": 0.82,
                "beyond": ["manuals:python", "poetry"],
                "supported": False,
            }
            for cap, epochs, more in ((4, 4.0, 0.0), (8, 8.0, 0.011), (16, 9.3, 0.0123), (None, 9.3, 0.0123))
        ],
        "effects": {},
        "leverage": {},
        "optimality_gap": 3e-11,
        "nearest_run_distance": 0.41,
        "runs_used": 39,
        "warnings": [{"code": "far_from_runs", "message": "No proxy run is near the proposed mixture."}],
    }


@dataclass
class Store:
    """Writes rows and answers their ids."""

    database: Database

    def domain_set(
        self, name: str = "library", tokens: Mapping[str, int] = TOKENS, state: str = jobs.SUCCEEDED
    ) -> str:
        """A set with one revision whose preparation is in ``state``; answers the revision's id."""
        with self.database.write() as session:
            row = DomainSet(name=name)
            session.add(row)
            session.flush()
            revision = Revision(
                domain_set_id=row.id,
                number=1,
                tokenizer={"vocabulary_size": 4096},
                vocabulary_size=4096 if state == jobs.SUCCEEDED else None,
                held_out_fraction=0.02,
                content_hash="0" * 64,
                changes=Changes(added=tuple(sorted(tokens))).to_dict(),
            )
            session.add(revision)
            session.flush()
            tokenizer = jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id)
            tokenizer.state = jobs.SUCCEEDED if state != jobs.QUEUED else jobs.QUEUED
            session.add(tokenizer)
            for domain, count in tokens.items():
                session.add(self._domain(revision.id, domain, count, state))
            session.flush()
            for domain_row in session.query(DomainRow).filter_by(revision_id=revision.id).all():
                job = jobs.new_job(jobs.PREPARE_DOMAIN, domain_row.id, revision.id)
                _set_state(job, state)
                if state != jobs.QUEUED:
                    session.add(job)
            return revision.id

    @staticmethod
    def _domain(revision_id: str, name: str, tokens: int, state: str) -> DomainRow:
        is_done = state == jobs.SUCCEEDED
        return DomainRow(
            revision_id=revision_id,
            name=name,
            files=[f"/corpora/{name.replace(':', '-')}.jsonl.zst"],
            counted_tokens=tokens if is_done else None,
            counted_bytes=tokens * 4 if is_done else None,
            documents=tokens // 700 if is_done else None,
            held_out_bytes=tokens * 4 // 50 if is_done else None,
        )

    def optimization(
        self,
        revision_id: str,
        state: str,
        run_states: Iterable[str] = (),
        tokens: Mapping[str, int] = TOKENS,
        proposal: Mapping[str, Any] | None = None,
    ) -> str:
        """An optimization in ``state`` with a run in each of ``run_states``; solved if it has a ``proposal``."""
        states = list(run_states)
        runs = len(states) or SETTINGS["runs"]
        settings = {**SETTINGS, "runs": runs, "rounds": [runs]}
        with self.database.write() as session:
            row = Optimization(
                revision_id=revision_id, method="olmix", seed=7, settings=settings, state=state
            )
            if state == jobs.FAILED:
                row.failure_code, row.failure_detail = "too_few_runs", "12 runs finished and 39 are needed."
            session.add(row)
            session.flush()
            if states:
                self._swarm(session, row, states, tokens)
            if proposal is not None:
                solve = jobs.new_job(jobs.SOLVE, row.id, row.id)
                _set_state(solve, jobs.SUCCEEDED)
                session.add(solve)
                for kind, weights, found in (
                    ("proposed", proposed(tokens), dict(proposal)),
                    ("natural", natural(tokens), None),
                ):
                    session.add(
                        MixtureRow(
                            revision_id=revision_id,
                            optimization_id=row.id,
                            kind=kind,
                            weights=weights,
                            evidence=found,
                        )
                    )
            return row.id

    @staticmethod
    def _swarm(session: Any, row: Optimization, states: list[str], tokens: Mapping[str, int]) -> None:
        sample = jobs.new_job(jobs.SAMPLE_SWARM, row.id, row.id)
        _set_state(sample, jobs.SUCCEEDED)
        swarm = Swarm(optimization_id=row.id, revision_id=row.revision_id)
        session.add_all([sample, swarm])
        session.flush()
        for position, state in enumerate(states):
            run = Run(swarm_id=swarm.id, position=position, seed=position, weights=natural(tokens))
            if state == jobs.SUCCEEDED:
                final = dict.fromkeys(TASKS, 2.4 + 0.013 * (position * 7 % 11))
                run.result = {"final": final, "tokens": 524_288, "seconds": 8.25 + position % 3}
            session.add(run)
            session.flush()
            job = jobs.new_job(jobs.PROXY_RUN, run.id, row.id, position)
            _set_state(job, state)
            session.add(job)

    def on_lines(self, optimization_id: str) -> None:
        """Runs of many mixtures, each task of which falls by the weight of one domain: laws that can be learned."""
        generator = np.random.default_rng(0)
        with self.database.write() as session:
            for run in session.query(Run).join(Swarm).filter_by(optimization_id=optimization_id).all():
                names = sorted(run.weights)
                drawn = generator.dirichlet(np.ones(len(names))).tolist()
                run.weights = dict(zip(names, drawn, strict=True))
                final = {task: 2.5 - run.weights[name] for task, name in zip(TASKS, names, strict=False)}
                run.result = {**(run.result or {}), "final": final, "noise": {}}

    def more_runs(self, optimization_id: str, number: int) -> None:
        """So many more finished runs of its swarm, each of which measured 3 + position / 10^6 BPB on every task."""
        with self.database.write() as session:
            swarm = session.query(Swarm).filter_by(optimization_id=optimization_id).one()
            runs = [
                Run(
                    swarm_id=swarm.id,
                    position=position,
                    seed=position,
                    weights={},
                    result={
                        "final": dict.fromkeys(TASKS, 3 + position / 1e6),
                        "tokens": 524_288,
                        "seconds": 8.0,
                    },
                )
                for position in range(1, number + 1)
            ]
            session.add_all(runs)
            session.flush()
            for run in runs:
                job = jobs.new_job(jobs.PROXY_RUN, run.id, optimization_id, run.position)
                _set_state(job, jobs.SUCCEEDED)
                session.add(job)

    def launch(self, optimization_id: str, kind: str, state: str, lower_by: float = 0.0) -> str:
        """A launch of one of the optimization's mixtures, measured ``lower_by`` BPB below 2.1 on every task."""
        with self.database.write() as session:
            mixture = session.query(MixtureRow).filter_by(optimization_id=optimization_id, kind=kind).one()
            settings = {
                "size": "micro-1M",
                "tokens": 2_097_152,
                "sequence_length": 128,
                "batch_rows": 16,
                "learning_rate": None,
                "evaluations": 3,
                "seed": 3,
                "tasks": SETTINGS["tasks"],
                "repetition_cap": None,
            }
            row = Launch(mixture_id=mixture.id, settings=settings)
            session.add(row)
            session.flush()
            run = Run(launch_id=row.id, position=0, seed=3, weights=mixture.weights)
            if state == jobs.SUCCEEDED:
                run.result = {
                    "final": {name: 2.1 - lower_by * (1 + 0.3 * i) for i, name in enumerate(TASKS)},
                    "realised_tokens": {n: int(w * 2_097_152) for n, w in mixture.weights.items()},
                    "tokens": 2_097_152,
                    "seconds": 93.4,
                    "parameters": 1_900_000,
                    "non_embedding_parameters": 1_050_000,
                }
            session.add(run)
            session.flush()
            job = jobs.new_job(jobs.FULL_RUN, run.id, row.id)
            _set_state(job, state)
            session.add(job)
            return row.id


def _set_state(job: Job, state: str) -> None:
    job.state = state
    job.attempt = 0 if state == jobs.QUEUED else 1
    if state != jobs.QUEUED:
        job.started_at = 1_700_000_000.0
    if state in jobs.ENDED:
        job.finished_at = 1_700_000_008.0
        job.busy_seconds = 8.0
    if state == jobs.RUNNING:
        job.progress = {"done": 131_072, "total": 524_288, "unit": "tokens", "tokens_per_second": 61_500.0}
    if state == jobs.FAILED:
        job.failure_code, job.failure_detail = "diverged", "The loss is not a number after step 211."
