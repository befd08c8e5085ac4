"""Google's storage, as its emulator speaks it: folders are listed as of any other store, and not to their end."""

import socket
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from proxy_models.errors import TooManyObjects
from proxy_models.stores.file_system import file_system, matching_objects
from proxy_models.stores.object_path import ObjectPath
from tests.servers import skip_loudly

NEEDED = ("gcsfs", "gcp_storage_emulator")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        skip_loudly(f"GCS: {', '.join(missing)} not installed")
    from fsspec.config import conf
    from gcp_storage_emulator.server import create_server  # pyright: ignore[reportMissingImports]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    monkeypatch.setenv(
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
    )  # it asks Google what kind of bucket it is
    monkeypatch.setitem(conf, "gs", {"token": "anon", "endpoint_url": url})
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        yield "bucket"
    finally:
        server.stop()


def test_a_folder_is_listed_as_any_stores_and_of_very_many_objects_not_to_its_end(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs: Any = file_system("gs://")
    for name in ("top.jsonl", "deep/er/a.jsonl", *(f"many/{number:02d}.jsonl" for number in range(30))):
        fs.pipe(f"{bucket}/corpora/{name}", b"x")

    def matching(pattern: str, most: int = 1000) -> list[str]:
        listed = matching_objects(ObjectPath("gs", f"{bucket}/{pattern}"), most, 60.0)
        return sorted(one.key.removeprefix(f"{bucket}/corpora/") for one in listed)

    assert matching("corpora/*.jsonl") == ["top.jsonl"]
    assert matching("corpora/*/er/*.jsonl") == ["deep/er/a.jsonl"]
    assert matching("none/*.jsonl") == []
    assert len(matching("corpora/**/*.jsonl")) == 32
    asked: list[int] = []
    call = type(fs)._call

    async def counted(self: Any, *given: Any, **named: Any) -> Any:
        asked.append(named.get("maxResults", 0))
        return await call(self, *given, **named)

    monkeypatch.setattr(type(fs), "_call", counted)
    with pytest.raises(TooManyObjects, match="name the folders"):
        matching("corpora/many/*.jsonl", 10)
    assert asked == [11]
