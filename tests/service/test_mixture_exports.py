"""A mixture taken away by API, client, command line and page: what `exchange.formats` makes of the same numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

import service.client
from exchange.formats import FORMATS, Blend, export, export_schedule
from service.cli.main import main
from service.client import ApiError, Client
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, MixtureRow
from tests.service.conftest import TOKEN
from tests.service.dashboard.store import SETTINGS, TOKENS, Store, evidence, natural
from tests.service.test_client import LosesFirstAnswers

PATH = "/data/{domain}"
ROW = {"sequence_length": 512, "batch_rows": 8}


@pytest.fixture
def database(client: TestClient, settings: Settings):
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def mixture(database: Database) -> str:
    """A solved mixture of a run of 24M tokens over domains whose held-out fiftieth was counted too."""
    store = Store(database)
    revision = store.domain_set()
    store.optimization(revision, "succeeded", ["succeeded"] * 3, proposal=evidence(TOKENS))
    with database.write() as session:
        for row in session.query(DomainRow):
            row.findings = {"held_out_tokens": (row.counted_tokens or 0) // 50}
        made = session.query(MixtureRow).filter_by(kind="proposed").one()
        made.weights = natural(TOKENS)  # 1.04 epochs of each
        return made.id


def made_here(database: Database, mixture: str, name: str, **asked: Any) -> dict[str, Any]:
    """The same by the library: tokens as counted, documents as many as hold them, the optimization's terms."""
    with database.read() as session:
        weights = session.get_one(MixtureRow, mixture).weights
    known = {
        "path": PATH,
        "tokens": TOKENS,
        "documents": {name: n * (n // 700) / (n + n // 50) for name, n in TOKENS.items()},
        "target_tokens": SETTINGS["target_tokens"],
        "repetition_cap": SETTINGS["repetition_cap"],
        **ROW,
    }
    made = export(weights, name, **{**known, **asked})
    return json.loads(json.dumps({"files": made.files, "realised": made.realised.to_dict()}))


def test_an_export_is_what_the_format_makes_of_the_mixture(
    client: TestClient, database: Database, mixture: str
) -> None:
    for name in FORMATS:
        answer = client.get(f"/v1/mixtures/{mixture}/export", params={"format": name, "path": PATH, **ROW})
        assert answer.status_code == 200, answer.text
        assert answer.json() == made_here(database, mixture, name), name


def test_what_is_asked_for_comes_before_the_optimizations_terms(
    client: TestClient, database: Database, mixture: str
) -> None:
    asked = {"target_tokens": 30_000_000, "repetition_cap": 20.0, "sequence_length": 128, "batch_rows": 16}
    params = {"format": "streaming", "path": PATH, **asked}
    answer = client.get(f"/v1/mixtures/{mixture}/export", params=params).json()
    assert answer == made_here(database, mixture, "streaming", **asked)
    assert answer["realised"]["target_tokens"] == 30_000_000


def test_documents_of_a_sample_stand_for_the_declared_whole(
    client: TestClient, database: Database, mixture: str
) -> None:
    """A thousandfold of the text has a thousandfold of the documents: the probabilities of drawing them stay."""
    params = {"format": "datasets", "path": PATH, **ROW}
    before = client.get(f"/v1/mixtures/{mixture}/export", params=params).json()
    with database.write() as session:
        session.query(DomainRow).filter_by(name="poetry").one().declared_tokens = 1000 * TOKENS["poetry"]
    after = client.get(f"/v1/mixtures/{mixture}/export", params=params).json()
    assert [json.loads(made["files"]["interleave.json"])["probabilities"] for made in (before, after)] == [
        pytest.approx(json.loads(before["files"]["interleave.json"])["probabilities"], rel=1e-12)
    ] * 2
    epochs = [
        {row["name"]: row["epochs"] for row in made["realised"]["domains"]}["poetry"]
        for made in (before, after)
    ]
    assert epochs[0] == pytest.approx(1000 * epochs[1], rel=1e-9)


REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"format": "pile"}, "invalid_export", "format", "there is no format 'pile'; there are olmo-core"),
    ({"format": "streaming"}, "invalid_export", "path", "needs the paths of every domain; code:c"),
    ({"format": "streaming", "path": "/data/all"}, "invalid_export", "path", "has no {domain} in it"),
    ({"format": "csv", "target_tokens": 10**8}, "over_cap", "repetition_cap", "over the cap of 4"),
    ({"format": "csv", "repetition_cap": 1}, "over_cap", "repetition_cap", "over the cap of 1"),
    ({"format": "csv", "cap": 1}, "unknown_parameter", "cap", "no query parameter 'cap'"),
    ({"format": "csv", "batch_rows": 0}, "invalid_request", "batch_rows", "greater than or equal to 1"),
]


def test_a_refusal_names_its_field(client: TestClient, mixture: str) -> None:
    for asked, code, field, said in REFUSED:
        refused = client.get(f"/v1/mixtures/{mixture}/export", params=asked)
        assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (422, code, field)
        assert said in refused.json()["detail"]


def test_a_mixture_by_hand_has_no_target_of_its_own(
    client: TestClient, domain_set: dict[str, Any], write_corpus: Callable[..., str]
) -> None:
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    weights = {"books": 0.25, "web:forums": 0.0, "web:news": 0.75}
    made = client.post("/v1/mixtures", json={"domain_set": "pool", "name": "m", "weights": weights}).json()
    address = f"/v1/mixtures/{made['id']}/export"
    plain = client.get(address, params={"format": "json"}).json()
    assert json.loads(plain["files"]["mixture.json"]) == {"books": 0.25, "web:news": 0.75}
    assert [(row["tokens"], row["epochs"]) for row in plain["realised"]["domains"]] == [(None, None)] * 2
    asked = {"format": "olmo-core", "path": PATH}
    refused = client.get(address, params=asked).json()
    assert (refused["field"], refused["detail"]) == ("target_tokens", "this format needs target_tokens")
    # A quarter of 10^15 tokens from the 10,000 of `books`.
    refused = client.get(address, params={**asked, "target_tokens": 10**15}).json()
    assert (refused["field"], refused["names"]) == ("target_tokens", ["books"])
    assert "read 2.5e+10 times" in refused["detail"]
    refused = client.get(address, params={"format": "csv", "target_tokens": 10**16}).json()
    assert (refused["field"], "is not one of 1 to 1e+15" in refused["detail"]) == ("target_tokens", True)
    # Not counted yet: 400 documents were written, and nobody has read them.
    refused = client.get(address, params={**asked, "format": "datasets", "target_tokens": 10_000}).json()
    assert (refused["field"], refused["names"]) == ("documents", ["books", "web:news"])
    assert client.get("/v1/mixtures/mix_none/export?format=csv").json()["code"] == "mixture_not_found"


def test_a_template_is_a_name_and_nothing_else(client: TestClient, mixture: str) -> None:
    """What `str.format` would do with it: reach into objects, or fill a gigabyte."""
    for template in (
        "/d/{domain}/{domain.__class__}",
        "/d/{domain}/{domain:>1000000000}",
        "/d/{domain}/{0}/{",
    ):
        params = {"format": "nanotron", "path": template}
        answer = client.get(f"/v1/mixtures/{mixture}/export", params=params)
        assert json.dumps(template.replace("{domain}", "law")) in answer.json()["files"]["data_stages.yaml"]


def test_the_formats_are_listed(client: TestClient) -> None:
    listed = client.get("/v1/export-formats").json()
    assert listed["next"] is None
    assert [one["name"] for one in listed["items"]] == list(FORMATS)
    assert listed["items"][0] == {
        "name": "olmo-core",
        "title": "OLMo-core 3.0 (SourceMixtureList)",
        "unit": "tokens",
        "exact": True,
        "checked": "built and drawn with ai2-olmo-core 3.0.0",
    }


def test_the_client_lists_and_exports(client: TestClient, database: Database, mixture: str) -> None:
    with Client("http://127.0.0.1", TOKEN, transport=LosesFirstAnswers(client)) as remote:
        assert [one["name"] for one in remote.export_formats()] == list(FORMATS)
        assert {"dolma3", "olmoe_mix"} <= {pool["name"] for pool in remote.pools()}
        made = remote.export_mixture(mixture, "megatron", path=PATH, **ROW)
        assert made == made_here(database, mixture, "megatron")
        with pytest.raises(ApiError, match="needs the paths"):
            remote.export_mixture(mixture, "megatron")


PHASES = (16_000_000, 8_000_000)


def test_a_schedule_is_what_the_format_makes_of_its_phases(
    client: TestClient, database: Database, mixture: str
) -> None:
    with database.read() as session:
        weights = session.get_one(MixtureRow, mixture).weights
    pool = client.get(f"/v1/mixtures/{mixture}").json()["domain_set"]
    even = {"domain_set": pool, "name": "even", "weights": dict.fromkeys(TOKENS, 1 / len(TOKENS))}
    other = client.post("/v1/mixtures", json=even).json()["id"]
    for name, cap in (("levanter", 20.0), ("streaming", 20.0)):
        run = {"path": PATH, "tokens": TOKENS, "repetition_cap": cap, **ROW}
        blends = [
            Blend.of(each, target_tokens=tokens, **run)
            for each, tokens in zip((weights, even["weights"]), PHASES, strict=True)
        ]
        made = export_schedule(blends, name)
        asked = {"format": name, "path": PATH, "repetition_cap": cap, **ROW}
        with Client("http://127.0.0.1", TOKEN, transport=LosesFirstAnswers(client)) as remote:
            answer = remote.export_schedule(zip((mixture, other), PHASES, strict=True), **asked)
        assert answer["files"] == made.files
        assert answer["realised"] == json.loads(json.dumps(made.whole.to_dict()))
        assert [one["target_tokens"] for one in answer["phases"]] == list(PHASES)
    # 1.04 epochs of 24M tokens: twice of that is over a cap of 2, though neither phase is.
    phases = [{"mixture_id": mixture, "tokens": 24_000_000}] * 2
    refused = client.post(
        "/v1/mixtures:schedule", json={"format": "csv", "phases": phases, "repetition_cap": 2}
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "over_cap")


@pytest.fixture
def command(client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """``mixwright mixture export`` over the application, in place of a socket."""

    def connect(url: str, token: str, **_: float) -> Client:
        return Client(url, token, transport=LosesFirstAnswers(client))

    monkeypatch.setattr(service.client, "Client", connect)
    monkeypatch.setenv("MIXWRIGHT_TOKEN", TOKEN)

    def run(*arguments: str) -> tuple[int, str]:
        data = ["--data", str(settings.data_directory)]
        result = CliRunner().invoke(main, ["mixture", "export", *arguments, *data])
        return result.exit_code, result.output

    return run


def test_the_command_writes_the_files(
    command: Callable[..., tuple[int, str]], database: Database, mixture: str, tmp_path: Path
) -> None:
    row = ["--sequence-length", "512", "--batch-rows", "8"]
    to = ["--path", PATH, *row, "--to", str(tmp_path / "out")]
    code, said = command(mixture, "--format", "megatron", *to)
    expected = made_here(database, mixture, "megatron")
    assert (code, {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}) == (
        0,
        expected["files"],
    ), said
    assert said.startswith("Written as megatron, which draws every share within ")
    code, said = command(mixture, "--format", "megatron", *to, "--json")
    assert (code, json.loads(said)) == (0, expected["realised"])
    code, said = command(mixture, "--format", "csv", "--target-tokens", "1e8", "--to", str(tmp_path / "no"))
    assert code == 1
    assert "over the cap of 4" in said
    assert not (tmp_path / "no").exists()
    code, said = command(mixture, "--format", "csv", "--url", "http://[", "--to", str(tmp_path / "no"))
    assert (code, said.startswith("Error: ")) == (1, True), said


def test_the_command_without_a_token_says_where_one_comes_from(tmp_path: Path) -> None:
    arguments = ["mixture", "export", "mix_1", "--format", "csv", "--to", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*arguments, "--data", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "MIXWRIGHT_TOKEN" in result.output
    assert not (tmp_path / "none").exists(), "asking makes no data directory"


def test_the_pages_link_to_every_format_and_show_its_files(client: TestClient, mixture: str) -> None:
    optimization = client.get(f"/v1/mixtures/{mixture}").json()["optimization_id"]
    page = client.get(f"/optimizations/{optimization}").text
    for name in FORMATS:
        assert f'<a href="/mixtures/{mixture}/export?format={name}"' in page
    shown = client.get(f"/mixtures/{mixture}/export", params={"format": "olmo-core", "path": PATH})
    assert shown.status_code == 200
    assert 'download="sources.yaml"' in shown.text
    assert "source_name: &#34;poetry&#34;" in shown.text
    refused = client.get(f"/mixtures/{mixture}/export?format=olmo-core")
    assert refused.status_code == 422
    assert "this format needs the paths of every domain" in refused.text
    assert 'value="24000000"' in refused.text, "the form keeps the optimization's target"
