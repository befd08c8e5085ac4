"""Sampling one round of an optimization's swarm and queueing its proxy runs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_models.stores.current import local_artifact, one_file_each, using_store
from proxy_models.stores.object_path import data_path
from proxy_models.text.document_index import DOCUMENTS, contamination
from proxy_models.text.task_file import TaskExample, read_task
from store import jobs
from store.documents import TaskDocument
from store.question import JobQuestion
from store.settings import Settings
from store.tables import Document, Job, Optimization, Run, Swarm

if TYPE_CHECKING:
    from mixing.question import Question
    from proxy_models.text.tokenizer import TextTokenizer


ENTROPY_TOKENS = 4_000_000
"""Tokens of a domain its entropies are measured on: enough for them to settle, and little to count."""


LOOKED_AT = 500
"""Examples of a task that are held against what their ids give back."""


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The domains, what was asked for, the round to sample, and what the rounds before have measured."""
    optimization = session.get_one(Optimization, job.owner)
    return {
        "question": JobQuestion.of(session, optimization).to_dict(),
        "round": job.position,
        "shards": {row.name: row.shard_directory for row in optimization.revision.domains},
        "vocabulary_size": optimization.revision.vocabulary_size,
        "tokenizer": optimization.revision.tokenizer_path,
        **settings.store_order,
    }


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """The mixtures of the round, by domain name, each with the tokens it trains."""
    # Designs and next batches fit regressions, which take a second to import.
    from mixing.swarm.sample import sample_round

    # Where the domains were still uncounted when it was asked for, this is the first to know what they can give.
    asked = JobQuestion.from_dict(spec["question"])
    question, tokens = asked.question(), asked.proxy_tokens
    runs = sample_round(question, spec["round"], asked.evidence(), _entropies(question, spec))
    return {
        "runs": [
            {
                "weights": run.mixture.as_dict(),
                "tokens": tokens if run.tokens == 1 else round(run.tokens * tokens),
            }
            for run in runs
        ],
        "contamination": _contamination(spec, asked.document.tasks) if spec["round"] == 0 else None,
    }


def _contamination(spec: Document, tasks: Sequence[TaskDocument]) -> Document:
    """Which tasks have examples that are trained on, by name."""
    with using_store(spec.get("artifact_store")), one_file_each(spec["shards"], DOCUMENTS) as indexes:
        tokenizer = _tokenizer(spec) if tasks else None
        found = {}
        for task in tasks:
            examples = read_task(data_path(task.path), task.metric, task.fields)
            if tokenizer is not None:
                _check_lossless(task, examples, tokenizer)
            told = contamination(examples, indexes)
            if told is not None:
                found[task.name] = asdict(told)
        return found


def _tokenizer(spec: Document) -> "TextTokenizer | None":
    if spec.get("tokenizer") is None:
        return None
    from proxy_models.text.tokenizer import load_tokenizer

    return load_tokenizer(local_artifact(spec["tokenizer"]))


def _check_lossless(task: TaskDocument, examples: Sequence[TaskExample], tokenizer: "TextTokenizer") -> None:
    """Refuse a task whose text the tokenizer loses, before anything is trained for it."""
    from proxy_models.text.tokenizer import check_lossless

    lost = total = 0
    for example in examples[:LOOKED_AT]:
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
    optimization = session.get_one(Optimization, job.owner)
    swarm = session.scalar(select(Swarm).where(Swarm.optimization_id == optimization.id))
    if swarm is None:
        swarm = Swarm(
            optimization_id=optimization.id,
            revision_id=optimization.revision_id,
            contamination=result.get("contamination"),
        )
        session.add(swarm)
        session.flush()
    rounds = session.scalars(select(Run.round).where(Run.swarm_id == swarm.id)).all()
    if job.position in rounds:
        return
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
