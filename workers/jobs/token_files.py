"""Writing token shards as the files of a trainer: a revision's, or all that a run of one mixture reads."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sqlalchemy.orm import Session

from exchange.formats import apportioned
from proxy_models.stores.current import folder_of, local_artifact, using_store
from store.problems import NotReady
from store.revisions.token_files import TokenFiles
from store.settings import Settings
from store.tables import Document, Job, MixtureRow, Revision


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The shards of the domains, where their files go, and the rows of each where the mixture is in the files."""
    wanted = TokenFiles.named(job.subject)
    mixture = None if wanted.rows is None else session.get_one(MixtureRow, wanted.of)
    revision = session.get_one(Revision, wanted.of) if mixture is None else mixture.revision
    rows = {}
    if mixture is not None:
        weights = {name: weight for name, weight in mixture.weights.items() if weight > 0}
        rows = dict(zip(weights, apportioned(list(weights.values()), wanted.rows or 0), strict=True))
    domains = [row for row in revision.domains if mixture is None or rows.get(row.name)]
    if missing := [row.name for row in domains if row.shard_directory is None]:
        raise NotReady("data_missing", f"{', '.join(missing[:5])} has no tokens here")
    numbers = [str(number) for number in (wanted.length, wanted.rows) if number is not None]
    return {
        "layout": wanted.layout,
        "length": wanted.length or 1,
        "rows": rows,
        "shards": {row.name: row.shard_directory for row in domains},
        "directory": str(
            settings.artifacts.joinpath("token-files", wanted.of, "-".join([wanted.layout, *numbers]))
        ),
        **settings.store_order,
    }


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Write every domain's files; those that an earlier attempt has written are left as they are."""
    from proxy_models.text.token_shard import TokenShard
    from proxy_models.text.token_writing import Order, write_tokens

    files, before = {}, 0
    with using_store(spec.get("artifact_store")):
        shards = {name: TokenShard.open(Path(local_artifact(at))) for name, at in spec["shards"].items()}
        rows = {name: spec["rows"].get(name) for name in shards}
        sizes = {
            name: shard.meta.tokens if rows[name] is None else rows[name] * spec["length"]
            for name, shard in shards.items()
        }
        total = sum(sizes.values())
        for name, shard in shards.items():
            directory = Path(spec["directory"]).joinpath(*name.split(":"))
            written = write_tokens(
                shard,
                directory,
                Order(spec["layout"], spec["length"], rows[name]),
                lambda done, before=before: report({"done": before + done, "total": total, "unit": "tokens"}),
            )
            files[name] = {**asdict(written), "address": _address(directory, Path(written.path))}
            before += sizes[name]
    return {"done": total, "total": total, "unit": "tokens", "files": files}


def _address(directory: Path, path: Path) -> str | None:
    """What the trainer is told where the artifacts are kept in a store: another machine reads it there."""
    folder = folder_of(directory)
    return folder if folder is None or path == directory else f"{folder}/{path.relative_to(directory)}"


def store(session: Session, job: Job, result: Document) -> None:
    """Keep with the job where the files are."""
    job.progress = result
