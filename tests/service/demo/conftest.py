import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from service.demo.packages import Package

MakeArchive = Callable[[str, str, Mapping[str, bytes]], Package]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place pip looks for packages in these tests."""
    directory = tmp_path / "shelf"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


@pytest.fixture
def make_wheel(shelf: Path) -> MakeArchive:
    """Puts a pure wheel with these files on the shelf."""

    def make(name: str, version: str, files: Mapping[str, bytes]) -> Package:
        stem = f"{name.replace('-', '_')}-{version}"
        path = shelf / f"{stem}-py3-none-any.whl"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        inside = {f"{stem}.dist-info/METADATA": metadata.encode(), f"{stem}.dist-info/WHEEL": wheel.encode()}
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in {**files, **inside, f"{stem}.dist-info/RECORD": b""}.items():
                archive.writestr(member, content)
        return Package(path.name, hashlib.sha256(path.read_bytes()).hexdigest())

    return make


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in files.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path
