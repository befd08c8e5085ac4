"""What is installed: everything that is imported is declared, and nothing else comes along."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

import mixwright

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("mixwright", "service", "exchange", "store", "workers", "proxy_models", "mixing", "migrations")
LOADED_BY_OTHERS = {"psycopg", "scikit-learn"}
"""SQLAlchemy loads its PostgreSQL driver by name, LightGBM its estimators' base."""


def distribution(requirement: str) -> str:
    return re.split(r"[\[<>=]", requirement)[0].lower()


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """Every module of others that the product imports, with the distributions it may come from."""
    modules: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    modules.add(node.module.partition(".")[0])
    known = importlib.metadata.packages_distributions()
    others = modules - sys.stdlib_module_names - {*PACKAGES}
    return {name: {one.lower().replace("_", "-") for one in known.get(name, ())} for name in others}


def test_what_is_imported_is_declared(imported: dict[str, set[str]]) -> None:
    project = PROJECT["project"]
    stores = [one for name in ("s3", "gcs") for one in project["optional-dependencies"][name]]
    declared = {distribution(one) for one in (*project["dependencies"], *stores)}
    assert {name: places for name, places in imported.items() if not places & declared} == {}


def test_what_is_declared_is_imported(imported: dict[str, set[str]]) -> None:
    declared = {distribution(one) for one in PROJECT["project"]["dependencies"]}
    assert declared - set().union(*imported.values()) <= LOADED_BY_OTHERS


def test_what_is_declared_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    declared = {distribution(one) for one in PROJECT["project"]["dependencies"]}
    assert declared - pinned == {"torch"}, "which build of it fits is chosen by scripts/setup.sh"


def test_the_wheel_has_the_packages_and_neither_benchmarks_nor_tests() -> None:
    found = find_packages(str(ROOT), include=PROJECT["tool"]["setuptools"]["packages"]["find"]["include"])
    assert {name.partition(".")[0] for name in found} == {*PACKAGES}


def test_the_wheel_has_the_files_of_data_beside_the_modules() -> None:
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], capture_output=True, text=True, check=True, cwd=ROOT
    )
    data = {path for path in map(Path, listed.stdout.split()) if path.suffix not in (".py", ".pyi", ".typed")}
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    packed = {
        path.relative_to(ROOT)
        for package, globs in patterns.items()
        for pattern in globs
        for path in (ROOT / package).glob(pattern)
    }
    assert data <= packed


def test_every_public_name_is_there_and_importing_them_costs_nothing_before() -> None:
    for name in dir(mixwright):
        assert getattr(mixwright, name) is not None
    with pytest.raises(AttributeError, match="mixwright has no 'alchemy'"):
        mixwright.alchemy  # noqa: B018
    loaded = (
        "import sys, mixwright; print(sorted({'numpy', 'httpx', 'torch', 'fastapi'} & sys.modules.keys()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert answer.stdout.strip() == "[]"


def test_the_repository_holds_nothing_that_others_built() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT)
    built = {".whl", ".egg", ".zip", ".tar", ".tgz", ".so", ".pyc", ".pkl", ".pt", ".safetensors"}
    assert [path for path in listed.stdout.splitlines() if Path(path).suffix in built] == []
