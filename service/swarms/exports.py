"""A swarm as a trainer reads it: one configuration a run, for whoever trains it elsewhere."""

import csv
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy.orm import Session

from exchange.formats import Export, InvalidExport, export
from exchange.results import RATIOS, REALISED
from mixing.errors import MixingError
from service.mixtures.exports import ExportQuery
from store import jobs
from store.problems import Conflict, invalid
from store.swarms import given_swarms

TRACES = 1e-3
"""Weight that may be left out of a run; the weights of one may be off from a sum of 1 by ten times that."""


@dataclass(frozen=True)
class ExportedSwarm:
    """What is written of a swarm.

    Attributes:
        id: of the swarm, and name of the folder.
        runs: `{run: (weights, tokens it trains)}`.
        known: what `exchange.formats.export` takes beside the weights.
    """

    id: str
    runs: Mapping[str, tuple[Mapping[str, float], int | None]]
    known: Mapping[str, Any]


def exported_swarm(session: Session, swarm_id: str, query: ExportQuery, is_waiting: bool) -> ExportedSwarm:
    """The runs with what is known of their domains. Raises NotFound; Conflict where nothing waits."""
    (given,) = given_swarms(session, [swarm_id])
    runs = {
        run.name or run.id: (run.weights, query.target_tokens or run.requested_tokens)
        for run, job in given.runs
        if not is_waiting or job.state == jobs.WAITING
    }
    if not runs:
        raise Conflict("nothing_waits", f"No run of swarm {swarm_id} waits for results.")
    known = {
        part.name: getattr(query, part.name)
        for part in fields(query)
        if part.name not in ("format", "target_tokens")
    }
    tokens = {row.name: row.tokens for row in given.revision.domains}
    return ExportedSwarm(swarm_id, runs, {**known, "tokens": tokens})


def tar_of(swarm: ExportedSwarm, format_name: str) -> bytes:
    """A folder of the swarm's name: a folder a run, all weights in one table, and what the trainer will draw.

    Raises Invalid, naming the run, for a mixture that the format cannot hold or what it was not told.
    """
    written: dict[str, str] = {}
    reports: dict[str, Any] = {}
    for name, (weights, tokens) in swarm.runs.items():
        try:
            made, traces = _export(weights, format_name, {**swarm.known, "target_tokens": tokens})
        except MixingError as error:
            refused = invalid(error, "path" if error.field == "paths" else None)
            refused.detail = f"Run {name}: {refused.detail}"
            raise refused from error
        for file, content in made.files.items():
            written[f"{_folder(name)}/{file}"] = content
        reports[name] = {**made.realised.to_dict(), "left_out": traces}
    written[RATIOS] = _table({name: weights for name, (weights, _) in swarm.runs.items()})
    written[REALISED] = json.dumps(reports, indent=1)
    return _packed(swarm.id, written)


def _export(
    weights: Mapping[str, float], format_name: str, known: Mapping[str, Any]
) -> tuple[Export, dict[str, float]]:
    """A run in the format, without the traces of domains that it cannot tell from nothing, and what these weigh.

    A swarm that goes far has weights of a millionth, which say as much of a domain as 0 does.
    """
    left_out: dict[str, float] = {}
    while True:
        kept = {name: 0.0 if name in left_out else weight for name, weight in weights.items()}
        total = sum(kept.values())
        shares = {name: weight / total for name, weight in kept.items()}
        try:
            return export(shares, format_name, **known), left_out
        except InvalidExport as error:
            traces = {name: weights[name] for name in error.names if kept.get(name)}
            too_much = sum(traces.values()) + sum(left_out.values()) > TRACES
            if error.field != "weights" or not traces or too_much:
                raise
            left_out |= traces


def _folder(run: str) -> str:
    """A run's name as a folder's; results are looked for by it, so only what no folder is called is replaced."""
    return run.replace("/", "_") if run not in (".", "..") else f"run{run}"


def _table(runs: Mapping[str, Mapping[str, float]]) -> str:
    names: Sequence[str] = sorted({name for weights in runs.values() for name in weights})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["run", *names])
    table.writerows(
        [run, *(repr(float(weights.get(name, 0.0))) for name in names)] for run, weights in runs.items()
    )
    return text.getvalue()


def _packed(folder: str, files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            data = content.encode()
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()
