"""The documentation says what is there: settings, requests, commands, links."""

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel

from mixing.domains import parse_name
from service.cli.main import main
from service.domain_sets.schemas import DomainSetRequest, RevisionRequest
from service.launches.schemas import LaunchRequest
from service.mixtures.schemas import MixtureRequest
from service.optimizations.schemas import OptimizationRequest
from store.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
REQUESTS: dict[str, type[BaseModel]] = {
    model.__name__: model
    for model in (DomainSetRequest, RevisionRequest, OptimizationRequest, MixtureRequest, LaunchRequest)
}
COMPUTED_DEFAULTS = {"data_directory": "`.mixwright`", "slots": "one per CPU"}


def page_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def documented_requests() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "api.md").read_text()
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


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"(?<!!)\[[^]]*\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings}


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_commands_exist(path: Path) -> None:
    text = path.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`|cuda )make ([a-z]+)", text, re.MULTILINE)) <= targets
    commands = set(main.list_commands(click.Context(main)))
    assert set(re.findall(r"(?:`|\.venv/bin/)mixwright ([a-z-]+)", text)) <= commands


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
