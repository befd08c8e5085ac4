"""What a launch has to run, from the rows of the store: told to a worker, to a scheduler, or shown by a dry run."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from store.documents import LaunchDocument
from store.launchers.base import Commanded, Launcher, Trained, Work
from store.run_orders import run_order
from store.settings import Settings

if TYPE_CHECKING:
    from store.tables import MixtureRow, Run


def work_of(
    run: "Run",
    mixture: "MixtureRow",
    document: LaunchDocument,
    launcher: Launcher,
    settings: Settings,
    number: int = 1,
) -> Work:
    """The work of a launch's run, as submission ``number``. Raises NotReady where a domain has no shard."""
    launch_id = run.launch_id or ""
    directory = settings.artifacts / "launches" / launch_id
    revision = mixture.revision
    about = {
        "launch_id": launch_id,
        "mixture_id": mixture.id,
        "name": document.name or launch_id,
        "target_tokens": document.tokens,
        "seed": document.seed,
        "domain_set": revision.domain_set.name,
        "revision": revision.number,
    }
    paths = {"directory": str(directory), "mixture_file": str(directory / "mixture.json")}
    if isinstance(launcher, Commanded):
        paths |= {name: str(directory / file) for name, file in launcher.format_files.items()}
    domains = {
        row.name: {
            "weight": mixture.weights[row.name],
            "tokens": row.tokens,
            "files": row.files,
            **({"reading": row.reading} if row.reading else {}),
        }
        for row in revision.domains
    }
    order = None if launcher.is_program else _order(run, mixture, document, launcher, settings)
    return Work(
        launch_id=launch_id,
        number=number,
        directory=directory,
        values={name: str(value) for name, value in {**about, **paths}.items()},
        mixture={**about, "weights": mixture.weights, "domains": domains},
        run_directory=settings.artifacts / "runs" / run.id,
        order=order,
    )


def _order(
    run: "Run", mixture: "MixtureRow", document: LaunchDocument, launcher: Launcher, settings: Settings
) -> Mapping[str, Any]:
    order = run_order(run, mixture.revision, document, document.tasks, settings)
    if isinstance(launcher, Trained):
        order["device"] = launcher.device
    engine = {} if document.engine is None else {"engine": asdict(document.engine)}
    reading = {"roots": [str(root) for root in settings.roots], "own": [str(settings.artifacts)]}
    return {"run": order, **engine, **settings.store_order, "reading": reading}
