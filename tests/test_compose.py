"""``docker-compose.yml`` and ``Dockerfile`` read without an engine: what they name exists."""

import importlib.util
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from service.cli.main import main
from store.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "mixwright")
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "MIXWRIGHT_TOKEN")


def mixwright_command(arguments: list[str]) -> None:
    context = click.Context(main)
    command = main.get_command(context, arguments[0])
    assert command is not None, f"there is no command mixwright {arguments[0]}"
    command.make_parser(context).parse_args(arguments[1:])  # raises for an unknown option


def celery_command(arguments: list[str]) -> None:
    from celery.bin.celery import celery

    assert arguments[:2] == ["-A", "workers.celery_app"]
    from workers.celery_app import app

    assert app.main == "mixwright"
    context = click.Context(celery)
    command = celery.get_command(context, arguments[2])
    assert command is not None, f"there is no command celery {arguments[2]}"
    command.make_parser(context).parse_args(arguments[3:])


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_with_its_options(name: str) -> None:
    program, *arguments = SERVICES[name]["command"]
    if program == "python":
        assert arguments[0] == "-m"
        assert importlib.util.find_spec(arguments[1]) is not None
        return
    scripts = {script.name for script in entry_points(group="console_scripts")}
    assert program in scripts
    {"mixwright": mixwright_command, "celery": celery_command}[program](arguments)


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one_of_ours(name: str) -> None:
    known = {f"MIXWRIGHT_{field.upper()}" for field in Settings.model_fields}
    assert set(SERVICES[name]["environment"]) <= known


def test_everything_that_must_answer_has_a_health_check() -> None:
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} == {
        "postgres",
        "redis",
        "web",
        "worker",
        "gpu-worker",
    }


def test_dependencies_and_volumes_are_declared() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or source.startswith(("$", ".", "/")), volume


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_come_from_the_environment_and_must_be_set(secret: str) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    uses = re.findall(rf"\$\{{{secret}([^}}]*)\}}", text)
    assert uses
    assert all(use.startswith(":?") for use in uses)


def test_only_the_web_process_is_reachable_and_only_from_this_host() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["web"]
    assert all(port.startswith("127.0.0.1:") for port in published["web"])


def test_the_image_copies_every_package_and_nothing_that_is_not_there() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = [
        word for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE) for word in line.split()
    ]
    assert all((ROOT / path).exists() for path in copied)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks"}  # as the wheel
    assert packages <= set(copied)
    admitted = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert set(copied) == admitted
