"""What counting and comparing found of copies, as the mathematics and people are told of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy.orm import Session

from mixing.document import from_document, to_document
from mixing.domains import Domains
from store.documents import TaskDocument
from store.tables import DomainRow, Revision

MATERIAL = 0.01
"""Share of the smallest of some domains from which on the text they share has one cap over all of them: the cap is of
whole domains, and a few common documents must not bind them."""
LAYOUT = 0.01
"""Share of a domain's spaces and line ends from which on it is told that its tokenizer loses them."""


def counted_domains(revision: Revision) -> Domains:
    """The domains with their tokens, how many of these are of different text, and which hold the same.

    Raises:
        InvalidTokens: a domain that is not counted yet.
    """
    return Domains.of(
        {row.name: row.tokens for row in revision.domains}, unique_shares(revision), shared_sets(revision)
    )


def unique_shares(revision: Revision) -> dict[str, float]:
    """The share of its tokens that are of different documents, for each domain with copies."""
    shares = {}
    for row in revision.domains:
        unique = unique_tokens(row)
        if unique and row.counted_tokens and unique < row.counted_tokens:
            shares[row.name] = unique / row.counted_tokens
    return shares


def unmeasured(revision: Revision) -> tuple[str, ...]:
    """The domains that were found too small for a held-out slice."""
    return tuple(row.name for row in revision.domains if row.held_out_bytes == 0)


def unique_tokens(row: DomainRow) -> int | None:
    """Training tokens of different documents; None where nothing is known of copies."""
    return (row.findings or {}).get("unique_tokens")


def shared_sets(revision: Revision) -> tuple[tuple[str, ...], ...]:
    """The largest sets of domains that have a part of their text in common that matters."""
    rows = {row.name: row for row in revision.domains}
    sets: list[tuple[str, ...]] = []
    texts = (revision.shared_text or {}).get("texts", [])
    for text in sorted(texts, key=lambda text: -len(text["domains"])):
        counts = [(unique_tokens(rows[name]) or 0, text["tokens"][name]) for name in text["domains"]]
        smallest, held = min(counts)
        is_part = any(set(text["domains"]) <= set(larger) for larger in sets)
        if held and held >= MATERIAL * smallest and not is_part:
            sets.append(tuple(text["domains"]))
    return tuple(sets)


def domain_warnings(row: DomainRow) -> Iterator[str]:
    """What is to be known of a domain's text before relying on its counts."""
    findings, counted = row.findings or {}, row.counted_tokens
    if counted is None:
        return
    if row.declared_tokens is not None and row.declared_tokens < counted:
        yield (
            f"It is declared to have {row.declared_tokens:,} tokens, and its files hold {counted:,} to train on; the"
            " declared number counts. Leave it out to use what the files hold."
        )
    if row.held_out_bytes == 0:
        yield (
            f"It has too little text for a held-out slice: all of it is trained on, and held-out/{row.name} is not"
            " measured."
        )
    if copies := findings.get("repeated_documents"):
        most = findings["repeated"][0]
        shown = f": {most['text']!r}" if most["text"] else ""
        yield (
            f"{copies:,} of its {row.documents:,} documents are copies of others, the most frequent"
            f" {most['copies']:,} times{shown}. Caps count different text: {findings['unique_tokens']:,}"
            f" of {counted:,} tokens; to leave copies out, say"
            ' "reading": {"copies": "drop"}.'
        )
    if dropped := findings.get("dropped_documents"):
        yield f"{dropped:,} documents that it or another domain has were left out, as was asked for."
    if bad := findings.get("bad_lines"):
        yield f"{bad['lines']:,} lines of its files are no documents and were passed over, the first: {bad['first']}"
    if lost := findings.get("lost_characters"):
        share = f"{100 * lost:.2g}%"
        yield f"The tokenizer loses {share} of its characters, so its bits per byte look better than they are."
    if (lost := findings.get("lost_spaces", 0)) > LAYOUT:
        yield (
            f"The tokenizer loses {100 * lost:.2g}% of its spaces and line ends, as one does that makes one of"
            " several: nothing learns how it is laid out, such as indented code, and bits per byte count them all."
        )


def shared_warnings(revision: Revision) -> Iterator[str]:
    """What is to be known of text that several domains hold, the most of it first."""
    found = revision.shared_text or {}
    capped = shared_sets(revision)
    for text in islice(found.get("texts", []), 20):
        names = text["domains"]
        tokens = max(text["tokens"].values())
        said = f"{' and '.join(names)} share {text['documents']:,} documents of {tokens:,} tokens"
        said += f", such as {text['examples'][0]!r}" if text["examples"] else ""
        if any(set(names) <= set(one) for one in capped):
            said += (
                ': one cap counts for all of them. Say "reading": {"copies": "drop_shared"} of those that are to'
                " leave it to the others, or merge them"
            )
        yield f"{said}."
    if missing := found.get("not_compared"):
        yield f"Counted by an older version, so not compared with the others: {', '.join(missing)}."


def asked_of(tasks: Sequence[TaskDocument]) -> dict[str, Any] | None:
    """`Revision.shared_text` of a new revision, whose text is to be held against these tasks."""
    return {"asked": [to_document(task) for task in tasks]} if tasks else None


def asked_tasks(revision: Revision) -> list[TaskDocument]:
    """What the revision's text is held against when it is counted."""
    return [from_document(TaskDocument, task) for task in (revision.shared_text or {}).get("asked", ())]


def is_compared(revision: Revision) -> bool:
    """Whether it is known what its domains have in common."""
    return "texts" in (revision.shared_text or {})


def known_tasks(revision: Revision) -> dict[str, Any]:
    """`{identity of a task: what is trained on of it}`, of those that were held against the text already."""
    return (revision.shared_text or {}).get("tasks", {})


def note_tasks(session: Session, revision_id: str, found: Mapping[str, Any]) -> None:
    """Keep what was found of tasks, for plans to come; not with domains that an older version compared."""
    revision = session.get_one(Revision, revision_id, with_for_update=bool(found))
    if found and is_compared(revision):
        revision.shared_text = {**(revision.shared_text or {}), "tasks": {**known_tasks(revision), **found}}


def of_tasks(found: Mapping[str, Any], tasks: Iterable[TaskDocument]) -> dict[str, Any]:
    """What was found of tasks by their identities, by their names."""
    return {task.name: found[task.identity] for task in tasks if task.identity in found}


def contamination_warnings(found: Mapping[str, Any] | None) -> Iterator[str]:
    """What is to be known of tasks that are trained on, from what was found of each by its name."""
    for task, told in sorted((found or {}).items()):
        domains = ", ".join(f"{count:,} in {name}" for name, count in sorted(told["domains"].items()))
        if told["total"]:
            yield (
                f"Of the {told['examples']:,} examples of task {task}, {told['total']:,} are in the training text"
                f" ({domains}), such as {told['shown']!r}: it measures what was read, not what was learned. Take them"
                " out of the task or of the domains."
            )
        if told.get("short", 0) > told["examples"] / 2:
            yield (
                f"Of the {told['examples']:,} examples of task {task}, {told['short']:,} are too short to be looked"
                " for in the training text."
            )


def uncompared_warnings(tasks: Iterable[TaskDocument], found: Mapping[str, Any] | None) -> Iterator[str]:
    """Which tasks nobody has held against the training text: silence means that one was, and is not in it."""
    if missing := [task.name for task in tasks if task.name not in (found or {})]:
        yield (
            f"Nothing is known of whether the domains train on examples of {', '.join(missing)}: that was not looked"
            " for. It is where the optimization, or a domain set of this text, names the file of the task in `tasks`."
        )


def plan_warnings(revision: Revision, tasks: Sequence[TaskDocument]) -> Iterator[str]:
    """Everything to be known before anything is trained."""
    known = of_tasks(known_tasks(revision), tasks)
    yield from text_warnings(revision, tasks)
    yield from contamination_warnings(known)
    yield from uncompared_warnings([task for task in tasks if not task.path], known)
    if missing := [task.name for task in tasks if task.path and task.name not in known]:
        yield (
            f"Whether the domains train on examples of {', '.join(missing)} is looked for when the swarm is sampled."
        )


def task_warnings(tasks: Iterable[TaskDocument]) -> Iterator[str]:
    """What is doubtful about tasks, each by name."""
    for task in tasks:
        yield from (f"Task {task.name}: {said}" for said in task.warnings)


def text_warnings(revision: Revision, tasks: Iterable[TaskDocument]) -> Iterator[str]:
    """Everything to be known of the text of a revision and of tasks, each domain and task by name."""
    yield from task_warnings(tasks)
    for row in revision.domains:
        yield from (f"Domain {row.name}: {said}" for said in domain_warnings(row))
    yield from shared_warnings(revision)
