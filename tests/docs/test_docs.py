"""The documentation says what is there: settings, requests, commands, files, links; and it can be read in a hurry."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel

from mixing.domains import parse_name
from service.cli.main import main
from service.domain_sets.adoptions import AdoptionRequest
from service.domain_sets.schemas import DomainRequest, DomainSetRequest, RevisionRequest
from service.launches.schemas import LaunchRequest, MetricsRequest
from service.mixtures.evaluation import EvaluateRequest
from service.mixtures.exports import ScheduleRequest
from service.mixtures.service import MixtureRequest
from service.optimizations.schemas import ExtendRequest, OptimizationRequest, TaskRequest
from service.planning import QualityRequest
from service.swarms.schemas import ResultsRequest, SwarmRequest
from store.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
REQUESTS: dict[str, type[BaseModel]] = {
    model.__name__: model
    for model in (
        DomainSetRequest,
        DomainRequest,
        RevisionRequest,
        OptimizationRequest,
        TaskRequest,
        MixtureRequest,
        AdoptionRequest,
        EvaluateRequest,
        ScheduleRequest,
        LaunchRequest,
        MetricsRequest,
        QualityRequest,
        SwarmRequest,
        ResultsRequest,
        ExtendRequest,
    )
}
LONGEST_PARAGRAPH = 600
SETTING = r"\bMIXWRIGHT_[A-Z_]*[A-Z]\b"
OF_TESTS = {"MIXWRIGHT_TEST_POSTGRES", "MIXWRIGHT_TEST_REDIS", "MIXWRIGHT_OLMIX_DATA"}
PARAMETERS = {"regmix_laws.json"}
"""Of the laws that a benchmark draws its truths from: no result."""
PARTS = {"api_writer", "olmix_configs"}
"""Modules that another benchmark starts or reads."""
COMPUTED_DEFAULTS = {"data_directory": "`.mixwright`", "slots": "one per CPU"}


def page_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def documented_requests() -> list[tuple[str, str]]:
    text = "".join((ROOT / "docs" / page).read_text() for page in ("api.md", "data.md"))
    return re.findall(r"<!-- request: (\w+) -->\n```json\n(.*?)```", text, re.DOTALL)


def test_the_settings_table_has_every_setting_with_its_default() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(MIXWRIGHT_\w+)` \| (.*?) \|", text, re.MULTILINE)
    expected = []
    for name, field in Settings.model_fields.items():
        default = COMPUTED_DEFAULTS.get(name) or (f"`{field.default}`" if field.default else "none")
        expected.append((f"MIXWRIGHT_{name.upper()}", default))
    assert rows == expected


def test_every_kind_of_create_has_an_example() -> None:
    assert {name for name, _ in documented_requests()} == set(REQUESTS)


@pytest.mark.parametrize(("name", "body"), documented_requests(), ids=lambda value: str(value)[:24])
def test_the_documented_requests_are_accepted(name: str, body: str) -> None:
    REQUESTS[name].model_validate(json.loads(body))


def test_the_documented_mixture_is_one_over_the_documented_domains() -> None:
    examples = {name: json.loads(body) for name, body in documented_requests()}
    names = {domain["name"] for domain in examples["DomainSetRequest"]["domains"]}
    assert all(parse_name(name) for name in names)
    weights = examples["MixtureRequest"]["weights"]
    assert set(weights) == names
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-12)


def paragraphs(text: str) -> Iterator[str]:
    """Prose: headings, tables, code, formulas and pictures left out; each item of a list is a paragraph."""
    text = re.sub(r"^```.*?^```$|^\$\$.*?\$\$", "", text, flags=re.MULTILINE | re.DOTALL)
    gathered: list[str] = []
    for line in [*text.splitlines(), ""]:
        ends = not line.strip() or line.startswith(("|", "#", "<!--", "!["))
        if gathered and (ends or re.match(r"\s*([-*]|\d+\.) ", line)):
            yield " ".join(gathered)
            gathered = []
        if not ends:
            gathered.append(line.strip())


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_a_paragraph_is_read_in_one_breath(path: Path) -> None:
    assert [text for text in paragraphs(path.read_text()) if len(text) > LONGEST_PARAGRAPH] == []


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings}


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\[[^]]*\]\(([^)]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_every_page_is_on_the_map() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs" / "index.md").read_text()))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert linked == pages | {"../CONTRIBUTING.md"}


def test_every_page_that_is_cited_exists() -> None:
    """In the code, its messages and the dashboard's pages too."""
    for package in (
        "service",
        "store",
        "workers",
        "proxy_models",
        "mixing",
        "migrations",
        "benchmarks",
        "tests",
    ):
        for path in (ROOT / package).rglob("*"):
            if path.suffix in {".py", ".html", ".mako"}:
                for page in re.findall(r"\bdocs/\w+\.md", path.read_text()):
                    assert (ROOT / page).exists(), f"{page_name(path)} cites {page}"


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_every_file_that_is_named_exists(path: Path) -> None:
    rooms = r"service|store|workers|proxy_models|mixing|migrations|benchmarks|tests|docs|scripts|\.ci"
    for name in re.findall(rf"`((?:{rooms})/[\w./-]*)`", path.read_text()):
        assert (ROOT / name).exists(), name


def test_the_rooms_of_the_library_are_there() -> None:
    text = (ROOT / "docs" / "library.md").read_text()
    rows = re.findall(r"^\| (`[^|]*) \|", text[text.index("| room of") :], re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", " ".join(rows)):
        assert (ROOT / "mixing" / name).exists(), name


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_settings_that_are_named_exist(path: Path) -> None:
    known = {f"MIXWRIGHT_{name.upper()}" for name in Settings.model_fields} | OF_TESTS
    of_docker = set(re.findall(SETTING, (ROOT / "docker-compose.yml").read_text()))
    assert set(re.findall(SETTING, path.read_text())) <= known | of_docker


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_commands_exist(path: Path) -> None:
    text = path.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`|cuda )make ([a-z]+)", text, re.MULTILINE)) <= targets
    context = click.Context(main)
    for name, arguments in re.findall(
        r"(?:^|`|\.venv/bin/)mixwright ([a-z-]+)([^`\n#]*)", text, re.MULTILINE
    ):
        command = main.get_command(context, name)
        assert command is not None, name
        assert options(arguments) <= known_options(command), f"mixwright {name}{arguments}"


def known_options(command: click.Command) -> set[str]:
    """Of the command and of those below it."""
    own = {option for parameter in command.params for option in parameter.opts}
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union({"--help"}, *map(known_options, below))


def options(arguments: str) -> set[str]:
    return set(re.findall(r"(?<!\S)--[a-z][a-z-]*", arguments))


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_modules_that_are_run_exist_and_take_the_options(path: Path) -> None:
    for module, arguments in re.findall(r"python -m ([\w.]+)([^`\n]*)", path.read_text()):
        file = ROOT / f"{module.replace('.', '/')}.py"
        assert file.exists(), module
        assert "__main__" in file.read_text(), f"{module} is not run by itself"
        assert options(arguments) <= set(re.findall(r'"(--[a-z][a-z-]*)"', file.read_text())), module


def test_every_benchmark_and_every_result_is_on_the_page_of_measurements() -> None:
    text = (ROOT / "docs" / "measurements.md").read_text().replace("--json result.json", "")
    named = set(re.findall(r"\b\w+\.json\b", text))
    kept = {path.name for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert named == kept - PARAMETERS
    for path in (ROOT / "benchmarks").glob("*.py"):
        if "__main__" in path.read_text():
            assert path.stem in PARTS or f"python -m benchmarks.{path.stem}" in text, path.stem


def test_the_library_page_runs_as_it_is_written() -> None:
    text = (ROOT / "docs" / "library.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    weights = names["document"]["weights"]
    assert weights["web:news"] + weights["web:forums"] >= 0.2 - 1e-9, "the share that was asked for"
    natural = names["domains"].natural().as_dict()
    assert names["train"](weights)["prose"] <= names["train"](natural)["prose"] + 0.01, (
        "the guard rail, in truth"
    )
    gain = sum(names["train"](natural).values()) - sum(names["train"](weights).values())
    assert gain > 0, "in truth, not only predicted"
