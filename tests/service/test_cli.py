"""The command line over a real application, without workers: what it asks for, says and ends with."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient

import service.client
from service.cli import EXIT_STATUSES, duration, step_of
from service.cli.main import main
from service.cli.mixture import rescaled
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Optimization
from tests.service.conftest import TOKEN
from tests.service.test_client import LosesFirstAnswers
from tests.service.test_reuse import NAMES, PROXY, Workers

Run = Callable[..., Result]
MINE = {"books": 0.2, "code": 0.5, "news": 0.3}
HEAVY = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "torch", "lightgbm", "sklearn", "jinja2", "scipy"}


def commands(group: click.Group = main, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"the table names {name}, which is not there"
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name)


@pytest.mark.parametrize(
    "program",
    [
        "from service.cli.main import main; main(['--help'], standalone_mode=False)",
        "import service.cli.fit",
        "import service.cli.work, service.cli.mixture, service.cli.apply",
        "import mixwright; mixwright.Client",
    ],
)
def test_a_command_starts_without_what_others_need(program: str) -> None:
    asked = f"{program}\nimport sys\nprint(sorted({HEAVY!r} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert said.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_says_what_it_does_by_either_option(name: tuple[str, ...]) -> None:
    short, long = (CliRunner().invoke(main, [*name, option]) for option in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0
    assert short.output == long.output


REMOTE = ["apply", "status", "watch", "runs", "whatif", "compare", "launch", "cancel", "doctor"]


@pytest.mark.parametrize("name", [*REMOTE, "fit", "import", "mixture export", "mixture show", "mixture list"])
def test_what_is_typed_often_has_an_example_and_json(name: str) -> None:
    said = CliRunner().invoke(main, [*name.split(), "--help"]).output
    assert "Example: mixwright " in said
    assert "--json" in said


def test_the_exit_statuses_are_in_the_help() -> None:
    said = CliRunner().invoke(main, ["--help"]).output
    for status, meaning in EXIT_STATUSES.items():
        assert f"  {status}  {meaning}" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str) -> None:
    said = CliRunner().invoke(main, ["completion", shell])
    assert said.exit_code == 0
    assert "_MIXWRIGHT_COMPLETE" in said.output


def test_completion_offers_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"_MIXWRIGHT_COMPLETE": "bash_complete", "COMP_WORDS": "mixwright wha", "COMP_CWORD": "1"}
    said = CliRunner(env=environment).invoke(main, [], prog_name="mixwright")
    assert said.output.strip() == "plain,whatif"


@pytest.fixture
def run(client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give a command whose client speaks to the application."""

    class Connected(service.client.Client):
        def __init__(self, url: str, token: str, **_: Any) -> None:
            super().__init__(url, token, transport=LosesFirstAnswers(client))

    monkeypatch.setattr(service.client, "Client", Connected)
    monkeypatch.setenv("MIXWRIGHT_TOKEN", TOKEN)

    def give(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments), "--url", "http://127.0.0.1"])

    return give


@pytest.fixture
def workers(settings: Settings, client: TestClient) -> Iterator[Workers]:
    database = Database(settings.resolved_database_url)
    yield Workers(database)
    database.close()


@pytest.fixture
def pool(write_corpus: Callable[..., str], tmp_path: Path) -> Path:
    """A file to apply."""
    document = {
        "domain_set": {
            "name": "pool",
            "domains": [{"name": name, "files": [write_corpus(name)]} for name in NAMES],
        },
        "optimization": {
            "method": "olmix",
            "target_tokens": 1_200_000,
            "repetition_cap": 4,
            "runs": 12,
            "proxy": PROXY,
        },
        "launch": {"size": "nano-0.1M", "tokens": 65_536},
    }
    path = tmp_path / "pool.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def everything(client: TestClient) -> dict[str, list[Any]]:
    return {
        kind: client.get(f"/v1/{kind}").json()["items"]
        for kind in ("domain-sets", "optimizations", "mixtures", "launches")
    }


def test_applying_a_file_again_changes_nothing_and_goes_on_with_what_is_there(
    run: Run, client: TestClient, workers: Workers, pool: Path
) -> None:
    planned = run("apply", pool, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "pool would be made, of 3 domains and 3 files" in planned.output
    assert everything(client)["domain-sets"] == []

    first = run("apply", pool)
    assert first.exit_code == 0, first.output
    assert "The domain set pool was made, of 3 domains." in first.output
    assert "The launch is posted when there is a mixture" in first.output
    made = everything(client)
    again = run("apply", pool)
    assert "The domain set pool is as the file says, at revision 1." in again.output
    assert everything(client) == made

    workers.count(1)
    workers.train(made["optimizations"][0]["id"])
    for _ in range(2):
        launched = json.loads(run("apply", pool, "--json").output)
        assert launched["launch"]["state"] == "queued"
        assert len(everything(client)["launches"]) == 1


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_a_wrong_optimization_is_refused_before_its_domain_set_is_made(
    run: Run, client: TestClient, pool: Path, more: list[str]
) -> None:
    document = yaml.safe_load(pool.read_text())
    document["optimization"]["repetition_cap"] = "four"
    pool.write_text(yaml.safe_dump(document))
    refused = run("apply", pool, *more)
    assert refused.exit_code == 1
    assert "repetition_cap" in refused.output
    assert everything(client)["domain-sets"] == []


def test_a_changed_tree_becomes_the_next_revision_and_a_changed_question_a_new_optimization(
    run: Run, client: TestClient, workers: Workers, pool: Path, write_corpus: Callable[..., str]
) -> None:
    run("apply", pool)
    workers.count(1)
    document = yaml.safe_load(pool.read_text())
    document["domain_set"]["domains"].append({"name": "papers", "files": [write_corpus("papers")]})
    del document["launch"]
    pool.write_text(yaml.safe_dump(document))
    planned = run("apply", pool, "--dry-run")
    assert "Revision 2 would be made: added papers; 3 kept." in planned.output
    assert len(everything(client)["optimizations"]) == 1
    applied = run("apply", pool)
    assert "Revision 2 of pool was made: added papers; 3 kept." in applied.output, applied.output
    assert [row["revision"] for row in everything(client)["optimizations"]] == [2, 1]


def test_what_is_imported_can_be_applied_with_its_mixture(
    run: Run, client: TestClient, tmp_path: Path
) -> None:
    blend = tmp_path / "blend.yaml"
    sources = [{"source_name": name, "target_ratio": 0.5, "paths": [f"/{name}.npy"]} for name in ("a", "b")]
    blend.write_text(yaml.safe_dump({"sources": sources}))
    found = json.loads(CliRunner().invoke(main, ["import", str(blend)]).stdout)
    for domain in found["domain_set"]["domains"]:
        domain["tokens"] = 10**6
        del domain["files"]  # nothing is there to be read
    blend.write_text(yaml.safe_dump(found))
    assert run("apply", blend).exit_code == 0
    assert run("apply", blend).exit_code == 0
    (mixture,) = everything(client)["mixtures"]
    assert client.get(f"/v1/mixtures/{mixture['id']}").json()["weights"] == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"domain_sets": {}}, "domain_set"),
        ({"domain_set": "pool", "lunch": {}}, "'lunch'"),
        ({"domain_set": "pool", "optimization": {"domain_set": "pool"}}, "optimization.domain_set"),
        ({"domain_set": "pool", "launch": {"tokens": 1}}, "a launch needs an optimization or a mixture"),
        ({"domain_set": "nothing", "optimization": {"target_tokens": 1}}, "'nothing'"),
    ],
)
def test_a_file_that_asks_for_nothing_clear_is_refused_by_name(
    change: dict[str, Any], said: str, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(change))
    outcome = run("apply", path)
    assert outcome.exit_code == 1
    assert said in outcome.output


@pytest.fixture
def solved(run: Run, client: TestClient, workers: Workers, pool: Path) -> tuple[str, str]:
    """An optimization and its mixture."""
    run("apply", pool)
    workers.count(1)
    optimization = everything(client)["optimizations"][0]["id"]
    return optimization, workers.train(optimization)


def test_what_is_asked_of_weights_is_what_the_api_says(run: Run, solved: tuple[str, str]) -> None:
    optimization, mixture = solved
    given = [f"{name}={weight}" for name, weight in MINE.items()]
    answer = json.loads(run("whatif", optimization, *given, "--json").output)
    assert answer["mixtures"][0]["weights"] == MINE
    said = run("whatif", optimization, *given).output
    assert "a gain of" in said
    assert "code would be read" in said, "0.5 of 1.2M tokens is over the cap of 4 epochs"
    kept = run("whatif", optimization, "code=0.4", "--from", mixture, "--json").output
    assert json.loads(kept)["mixtures"][0]["weights"]["code"] == 0.4
    lacking = run("whatif", optimization, "code=1.0")
    assert lacking.exit_code == 1
    assert "books, news" in lacking.output


def test_mixtures_are_compared_task_by_task(run: Run, client: TestClient, solved: tuple[str, str]) -> None:
    body = {"domain_set": "pool", "name": "by-hand", "weights": MINE}
    by_hand = client.post("/v1/mixtures", json=body).json()["id"]
    said = run("compare", solved[1], by_hand).output
    assert "50.00%" in said
    assert "held-out/code" in said
    alone = json.loads(run("compare", by_hand, by_hand, "--json").output)
    assert alone["evaluation"] is None


def test_a_launch_is_planned_before_it_is_started_and_cancelled_after(
    run: Run, client: TestClient, solved: tuple[str, str]
) -> None:
    asked = ("launch", solved[1], "--size", "nano-0.1M", "--tokens", "65536")
    planned = run(*asked, "--dry-run", "--json")
    rows = {row["name"]: row for row in json.loads(planned.output)["domains"]}
    assert rows["news"]["tokens"] == pytest.approx(65_536 * 3 / 6)
    assert rows["news"]["epochs"] == pytest.approx(32_768 / rows["news"]["available_tokens"])
    assert client.get("/v1/launches").json()["items"] == []
    started = json.loads(run(*asked, "--set", "learning_rate=3e-4", "--json").output)
    assert started["settings"]["learning_rate"] == 3e-4
    assert run("cancel", started["id"]).output == f"{started['id']} is cancelled.\n"
    followed = run("watch", started["id"])
    assert followed.exit_code == 4
    assert f"{started['id']} has cancelled" in followed.output


def test_a_watch_that_ends_before_its_end_says_so(
    run: Run, client: TestClient, settings: Settings, solved: tuple[str, str], workers: Workers
) -> None:
    with workers.database.write() as session:
        session.get_one(Optimization, solved[0]).state = jobs.RUNNING
    assert run("status", solved[0]).output.startswith(f"{solved[0]}: running")
    rows = json.loads(run("runs", solved[0], "--json").output)
    assert len(rows) == 12
    assert "held-out/books" in run("runs", solved[0]).output
    assert json.loads(run("status", "--json").output)["optimizations"][0]["id"] == solved[0]


def test_a_service_that_does_not_answer_is_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    class Alone(service.client.Client):
        def __init__(self, url: str, token: str, **_: Any) -> None:
            super().__init__(url, token, transport=httpx.MockTransport(refuse), patience=0.0)

    monkeypatch.setattr(service.client, "Client", Alone)
    monkeypatch.setenv("MIXWRIGHT_TOKEN", TOKEN)
    outcome = CliRunner().invoke(main, ["status", "--url", "http://127.0.0.1:1"])
    assert outcome.exit_code == 3
    assert "mixwright serve" in outcome.output


def test_the_doctor_names_what_is_missing_and_what_to_do(
    settings: Settings, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["--data", str(settings.data_directory)]
    healthy = CliRunner().invoke(main, ["doctor", *data, "--json"])
    findings = {row["what"]: row for row in json.loads(healthy.output)}
    assert findings["database"]["state"] == "ok"
    assert findings["service"]["advice"] == "start it with `mixwright serve`"
    assert healthy.exit_code == 0
    monkeypatch.setenv("MIXWRIGHT_DATA_ROOTS", str(tmp_path / "gone"))
    monkeypatch.setenv("MIXWRIGHT_DATABASE_URL", "postgresql+psycopg://127.0.0.1:1/none")
    launchers = tmp_path / "launchers.toml"
    launchers.write_text(f'[launchers.gone]\ncommand = ["{tmp_path}/train"]\n')
    monkeypatch.setenv("MIXWRIGHT_LAUNCHERS", str(launchers))
    ill = CliRunner().invoke(main, ["doctor", *data])
    assert ill.exit_code == 1
    assert f"there is no {tmp_path / 'gone'}" in ill.output
    assert "MIXWRIGHT_DATABASE_URL" in ill.output
    assert f"gone: no {tmp_path}/train on this machine" in ill.output


def test_the_others_keep_their_ratios_where_some_weights_are_fixed() -> None:
    assert rescaled({"a": 0.5, "b": 0.3, "c": 0.2}, {"c": 0.6}) == pytest.approx(
        {"a": 0.25, "b": 0.15, "c": 0.6}
    )
    with pytest.raises(click.ClickException, match="no domain d"):
        rescaled({"a": 1.0}, {"d": 0.1})
    with pytest.raises(click.ClickException, match=r"leave -0\.2"):
        rescaled({"a": 0.5, "b": 0.5}, {"a": 1.2})


def test_time_is_told_as_a_person_says_it() -> None:
    assert [duration(seconds) for seconds in (7, 61, 3720, 90_000)] == [
        "7 s",
        "1 min 1 s",
        "1 h 2 min",
        "1 d 1 h",
    ]
    launch = {
        "state": "running",
        "settings": {"tokens": 100},
        "progress": {"done": 40, "total": 100, "tokens_per_second": 2.0},
    }
    assert step_of(launch) == ("running", 40, 100, "2 tokens/s, 30 s left")
    assert step_of({**launch, "state": "succeeded", "progress": None}) == ("succeeded", 100, 100, "")
