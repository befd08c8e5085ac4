"""Sampling one round of an optimization's swarm and queueing its proxy runs."""

from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from mixing.document import from_document, to_document
from proxy_models.stores.current import local_artifact, using_store
from store import jobs
from store.documents import AnchorsDocument, LookDocument, SwarmDocument, TaskDocument
from store.question import JobQuestion
from store.revisions.shared_text import known_tasks, note_tasks, of_tasks
from store.settings import Settings
from store.tables import Document, Job, Optimization, Run, Swarm
from workers.jobs.compare_domains import examples_of, held_against

if TYPE_CHECKING:
    from mixing.question import Question
    from mixing.swarm.sample import Stopping


ENTROPY_TOKENS = 4_000_000
"""Tokens of a domain its entropies are measured on: enough for them to settle, and little to count."""


LOOKED_AT = 500
"""Examples of a task that are held against what their ids give back."""


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The domains, what was asked for, the round to sample, and what the rounds before have measured."""
    optimization = session.get_one(Optimization, job.owner)
    asked = JobQuestion.of(session, optimization)
    return {
        "question": asked.to_dict(),
        "round": job.position,
        "shards": {row.name: row.shard_directory for row in optimization.revision.domains},
        "vocabulary_size": optimization.revision.vocabulary_size,
        "tokenizer": optimization.revision.tokenizer_path,
        "known_tasks": known_tasks(optimization.revision),
        **settings.store_order,
    }


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """The mixtures of the round, by domain name, each with the tokens it trains."""
    # Designs and next batches fit regressions, which take a second to import.
    from mixing.swarm.sample import draw_round, round_of

    # Where the domains were still uncounted when it was asked for, this is the first to know what they can give.
    asked = JobQuestion.from_dict(spec["question"])
    if (anchors := asked.document.anchors_of(spec["round"])) is not None:
        return {"runs": _anchors(asked, anchors)}
    question, tokens = asked.question(), asked.proxy_tokens
    held = _held_against(spec, asked.document.tasks)
    round_ = round_of(question, spec["round"], asked.evidence(), _entropies(question, spec))
    look = None if (stopping := round_.stopping) is None else to_document(_look(round_.number, stopping))
    runs = draw_round(round_) if stopping is None or stopping.met is None else ()
    return {
        "look": look,
        "runs": [
            {
                "weights": run.mixture.as_dict(),
                "tokens": tokens if tokens is None or run.tokens == 1 else round(run.tokens * tokens),
            }
            for run in runs
        ],
        "held_against": held,
    }


def _look(number: int, stopping: "Stopping") -> LookDocument:
    return LookDocument(
        round=number,
        runs=stopping.regret.runs,
        expected_regret=stopping.regret.expected,
        noise=stopping.regret.noise,
        met=stopping.met,
        can_be_met=stopping.can_be_met,
    )


def _anchors(asked: JobQuestion, anchors: AnchorsDocument) -> list[Document]:
    """The mixtures that tell most of what the swarm's runs predict, at the anchors' size and length."""
    from mixing.answer.proposal import anchor_mixtures

    mixtures = anchor_mixtures(asked.question(), asked.evidence(), anchors.runs)
    return [{"weights": mixture, "tokens": anchors.proxy.tokens} for mixture in mixtures]


def _held_against(spec: Document, tasks: Sequence[TaskDocument]) -> Document:
    """What is trained on of the tasks, by their identities; of those that were looked for before, as then."""
    tasks = [task for task in tasks if task.path]
    if not tasks or spec["round"] != 0:
        return {}
    known = spec.get("known_tasks", {})
    with using_store(spec.get("artifact_store")):
        _check_lossless(tasks, local_artifact(spec["tokenizer"]))
        others = [task for task in tasks if task.identity not in known]
        return {**known, **held_against(others, spec["shards"], spec["tokenizer"])}


def _check_lossless(tasks: Sequence[TaskDocument], tokenizer_path: str) -> None:
    """Refuse a task whose text the tokenizer loses, before anything is trained for it."""
    from proxy_models.text.tokenizer import check_lossless, load_tokenizer

    tokenizer = load_tokenizer(tokenizer_path)
    for task in tasks:
        lost = total = 0
        for example in examples_of(task)[:LOOKED_AT]:
            for text in example.scored:
                gone, size = tokenizer.lost(example.context + text)
                lost, total = lost + gone, total + size
        check_lossless(lost, total, f"of the text of task {task.name!r}")


def _entropies(question: "Question", spec: Document) -> dict[str, tuple[float, ...]] | None:
    """The four entropies of every domain's tokens, for the sampler that weighs domains by them."""
    from mixing.parts import SAMPLERS

    if not SAMPLERS[question.parts.sampler].reads_entropies:
        return None
    from mixing.swarm.entropy import entropies
    from proxy_models.text.token_shard import TokenShard

    with using_store(spec.get("artifact_store")):
        return {
            name: astuple(
                entropies(
                    TokenShard.open(Path(local_artifact(directory))).tokens[:ENTROPY_TOKENS],
                    spec["vocabulary_size"],
                )
            )
            for name, directory in spec["shards"].items()
        }


def store(session: Session, job: Job, result: Document) -> None:
    """Store the round's runs and their jobs, once; with the first round the swarm.

    Every run of a swarm has the optimization's seed, and with it the same initial weights and the same order of
    documents in each domain: what differs between two runs is their mixture and nothing else.
    """
    optimization, held = session.get_one(Optimization, job.owner), result.get("held_against", {})
    swarm = session.scalar(select(Swarm).where(Swarm.optimization_id == optimization.id))
    if swarm is None:
        swarm = Swarm(
            optimization_id=optimization.id,
            revision_id=optimization.revision_id,
            contamination=of_tasks(held, SwarmDocument.of(optimization).tasks),
        )
        session.add(swarm)
        session.flush()
        note_tasks(session, optimization.revision_id, held)
    rounds = session.scalars(select(Run.round).where(Run.swarm_id == swarm.id)).all()
    if job.position in rounds:
        return
    if (look := result.get("look")) is not None:
        document = SwarmDocument.of(optimization)
        changed = document.looked(from_document(LookDocument, look))
        optimization.settings = {**optimization.settings, **changed}
    for position, sampled in enumerate(result["runs"], start=len(rounds)):
        run = Run(
            swarm_id=swarm.id,
            position=position,
            round=job.position,
            tokens=sampled["tokens"],
            seed=optimization.seed,
            weights=sampled["weights"],
        )
        session.add(run)
        session.flush()
        session.add(jobs.new_job(jobs.PROXY_RUN, run.id, optimization.id, position, job.user_name))
    if SwarmDocument.of(optimization).is_elsewhere:
        session.flush()
        jobs.await_results(session, optimization.id)
