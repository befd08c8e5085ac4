"""Writing a revision's token shards as the files of a trainer, once for all mixtures over it."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sqlalchemy.orm import Session

from proxy_models.stores.current import local_artifact, using_store
from store.jobs import token_files_of
from store.problems import NotReady
from store.settings import Settings
from store.tables import Document, Job, Revision


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The shards of the revision's domains, and where their files go."""
    layout, revision_id = token_files_of(job.subject)
    revision = session.get_one(Revision, revision_id)
    if missing := [row.name for row in revision.domains if row.shard_directory is None]:
        raise NotReady("data_missing", f"{', '.join(missing[:5])} has no tokens here")
    return {
        "layout": layout,
        "shards": {row.name: row.shard_directory for row in revision.domains},
        "directory": str(settings.artifacts / "token-files" / revision_id / layout),
        **settings.store_order,
    }


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Write every domain's file; those that an earlier attempt has written are left as they are."""
    from proxy_models.text.token_shard import TokenShard
    from proxy_models.text.token_writing import write_tokens

    directory, files = Path(spec["directory"]), {}
    with using_store(spec.get("artifact_store")):
        shards = {name: TokenShard.open(Path(local_artifact(at))) for name, at in spec["shards"].items()}
        total, before = sum(shard.meta.tokens for shard in shards.values()), 0
        for name, shard in shards.items():
            target = directory.joinpath(*name.split(":"))
            written = write_tokens(
                shard,
                target,
                spec["layout"],
                progress=lambda done, before=before: report(
                    {"done": before + done, "total": total, "unit": "tokens"}
                ),
            )
            files[name] = asdict(written)
            before += shard.meta.tokens
    return {"done": total, "total": total, "unit": "tokens", "files": files}


def store(session: Session, job: Job, result: Document) -> None:
    """Keep with the job where the files are."""
    job.progress = result
