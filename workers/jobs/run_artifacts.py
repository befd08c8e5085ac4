"""What a run takes from the artifact store and what it says it has put there; without a store nothing changes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy_models.families.start import read_start
from proxy_models.stores.current import current_store, local_artifact
from workers.claims.failures import JobError

if TYPE_CHECKING:
    from proxy_models.training.run_result import RunResult
    from proxy_models.training.run_spec import RunSpec

Document = dict[str, Any]


def local_spec(spec: Document) -> Document:
    """The specification with every artifact it names fetched to this machine.

    Raises `DataMissing` and `StoreError`, and `JobError` where the model to start from is another than was asked for.
    """
    found = {name: value for name, value in spec.items() if name != "start_content"}
    found["shards"] = {name: local_artifact(place) for name, place in spec["shards"].items()}
    if spec["tokenizer"] is not None:
        found["tokenizer"] = local_artifact(spec["tokenizer"])
    if "start_content" in spec:
        found["start"] = local_artifact(spec["start"])
        if read_start(Path(found["start"])).content != spec["start_content"]:
            raise JobError(
                "data_changed",
                f"the model to start from, {spec['start']}, was changed since it was asked for",
            )
    return found


def told(result: "RunResult", run: "RunSpec") -> Document:
    """The result as it is stored: with a store, the model's place is its address there, whichever machine trained."""
    store = current_store()
    if store is None:
        return result.to_dict()
    return {**result.to_dict(), "model_path": store.address_of(run.directory / "model")}
