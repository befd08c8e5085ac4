"""A mixture from two files in one line: the same as by the library's own question, from any table and frame."""

import csv
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import mixwright
from exchange.sheets import read_weights
from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.errors import InvalidSetting, InvalidTokens, MissingDomain, MixingError
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from service.cli.main import main

NAMES = ("books", "code", "web")
TOKENS = {"books": 1e8, "code": 2e9, "web": 6e9}


def table(count: int = 24) -> pa.Table:
    """Runs of a law whose best mixture is inside."""
    weights = np.random.default_rng(3).dirichlet([2.0, 3.0, 4.0], size=count)
    loss = 1 + (0.2 + 0.6 * weights[:, 1] + 0.9 * weights[:, 0] ** 0.5) ** -0.5
    prose = 1 + (0.2 + 0.7 * weights[:, 2] + 0.4 * weights[:, 0] ** 0.5) ** -0.5
    columns = {f"train_{name}": weights[:, j] for j, name in enumerate(NAMES)}
    return pa.table({"run": np.arange(count), **columns, "eval/code": loss, "eval/prose": prose})


ASKED: dict[str, Any] = {"tokens": TOKENS, "target_tokens": 4e9, "regression": "effective-power"}


@pytest.fixture(scope="module")
def answer() -> Any:
    return mixwright.fit(table(), **ASKED)


def test_it_is_the_answer_to_the_question_asked_by_hand(answer: Any) -> None:
    rows = table().to_pylist()
    runs = tuple(
        RunEvidence(
            str(row["run"]),
            {name: row[f"train_{name}"] for name in NAMES},
            {"eval/code": row["eval/code"], "eval/prose": row["eval/prose"]},
        )
        for row in rows
    )
    question = Question(
        domains=Domains.of(TOKENS),
        objective={"eval/code": 1.0, "eval/prose": 1.0},
        target_tokens=4e9,
        recipe=answer.proposal.question.recipe,
        kl_weight=answer.proposal.question.kl_weight,
    )
    expected = propose(question, runs).to_dict()
    assert answer.mixture == expected["weights"]
    assert answer.document["objective"] == expected["objective"]


def test_caps_hold(answer: Any) -> None:
    # Four epochs of 1e8 tokens are a tenth of 4e9.
    assert answer.mixture["books"] == pytest.approx(0.1, abs=1e-9)
    assert answer.document["constraints"][0]["domain"] == "books"


@pytest.mark.parametrize("library", [pandas.DataFrame, polars.from_arrow])
def test_any_frame_gives_the_same_and_frames_of_its_kind(library: Any, answer: Any) -> None:
    given = table().to_pandas() if library is pandas.DataFrame else library(table())
    other = mixwright.fit(given, **ASKED)
    assert other.mixture == answer.mixture
    for frame in (other.weights, other.tasks):
        assert type(frame) is type(given)
    assert set(other.weights["name"]) == set(NAMES)
    gains = dict(zip(other.tasks["name"], other.tasks["gain"], strict=True))
    assert gains == {row["name"]: row["gain"] for row in answer.document["tasks"]}


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Numbers to the last bit, in the format of the file's name."""
    frame = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(frame, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(frame.column_names)
            writer.writerows([*map(str, row.values())] for row in rows)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("tables", [1, 2])
def test_written_read_and_fitted_again_it_is_the_same_mixture(
    suffix: str, tables: int, answer: Any, tmp_path: Path
) -> None:
    runs = answer.swarm.runs
    weights = [{"run": run.id, **{f"train_{name}": run.mixture[name] for name in NAMES}} for run in runs]
    metrics = [{"run": run.id, **run.metrics} for run in runs]
    if tables == 1:
        rows = [{**one, **other} for one, other in zip(weights, metrics, strict=True)]
        given = [write_table(tmp_path / f"runs{suffix}", rows)]
    else:
        given = [
            write_table(tmp_path / f"ratios{suffix}", weights),
            write_table(tmp_path / f"metrics{suffix}", metrics[::-1]),
        ]
    again = mixwright.fit(*given, **ASKED)
    assert again.mixture == pytest.approx(answer.mixture, abs=1e-9)


@pytest.mark.parametrize("name", ["csv", "json", "yaml", "olmix"])
def test_an_exported_mixture_comes_back_as_weights(name: str, answer: Any, tmp_path: Path) -> None:
    made = mixwright.export(answer.blend(), name)
    (file, content), *_ = made.files.items()
    (tmp_path / file).write_text(content)
    labels = answer.swarm.labels
    assert read_weights(tmp_path / file) == pytest.approx(
        {labels[domain]: weight for domain, weight in answer.mixture.items() if weight > 0}, abs=1e-12
    )


def test_without_tokens_gains_are_against_the_mean_of_the_runs() -> None:
    given = table()
    answer = mixwright.fit(given, regression="effective-power")
    natural = {row["name"]: row["natural"] for row in answer.document["domains"]}
    means = {name: float(np.mean(given[f"train_{name}"].to_numpy())) for name in NAMES}
    assert natural == pytest.approx(means)
    assert all(row["epochs"] is None and row["cap"] is None for row in answer.document["domains"])
    assert "No token counts were given" in answer.document["notes"][0]


def with_accuracy(name: str = "eval/mmlu/acc") -> pa.Table:
    given = table()
    return given.append_column(name, pa.array(1.2 - 0.3 * given["eval/code"].to_numpy()))


def test_of_hundreds_of_metrics_their_mean_has_a_law_that_bends() -> None:
    """Each metric falls with the root of one domain's weight, so the best of their mean is inside, and no line's."""
    domains, runs, metrics = 12, 90, 240
    weights = np.random.default_rng(5).dirichlet(np.full(domains, 2.0), size=runs)
    worth = np.random.default_rng(6).gamma(2.0, size=domains)
    columns = {f"train_d{j}": weights[:, j] for j in range(domains)}
    columns |= {
        f"eval/t{t}": 3.0 + t / 100 - worth[t % domains] * np.sqrt(weights[:, t % domains])
        for t in range(metrics)
    }
    answer = mixwright.fit(pa.table({"run": np.arange(runs), **columns}))
    # Of sum a_j sqrt(p_j) the best p_j is proportional to a_j^2.
    best = worth**2 / (worth**2).sum()

    def mean(p: np.ndarray) -> float:
        return float(worth @ np.sqrt(p) / domains)

    found = np.array([answer.mixture[f"d{j}"] for j in range(domains)])
    assert mean(best) - mean(found) < 0.05 * (mean(best) - mean(weights.mean(0)))
    assert answer.document["recipe"]["regression"] == "ensemble-of-objective"
    assert len(answer.document["tasks"]) == metrics
    assert answer.document["tasks"][0]["laws"] == {"linear": 1.0}
    assert any("the ensemble for the objective" in note for note in answer.document["notes"])


def test_a_metric_that_looks_like_an_accuracy_is_asked_for_its_direction() -> None:
    with pytest.raises(InvalidSetting, match=r"is eval/mmlu/acc better when higher"):
        mixwright.fit(with_accuracy(), **ASKED)
    asked = {**ASKED, "objective": {"eval/code": 1, "eval/prose": 1}}
    answer = mixwright.fit(with_accuracy(), **asked, higher_is_better=["*acc"])
    task = next(row for row in answer.document["tasks"] if row["name"] == "eval/mmlu/acc")
    assert task["direction"] == "higher"
    # It rises where the loss falls.
    loss = next(row for row in answer.document["tasks"] if row["name"] == "eval/code")
    assert np.sign(task["proposed"] - task["natural"]) == -np.sign(loss["proposed"] - loss["natural"])


def test_a_mean_over_both_directions_is_not_taken_for_an_objective() -> None:
    with pytest.raises(InvalidSetting, match="name the objective"):
        mixwright.fit(with_accuracy(), **ASKED, higher_is_better=["*acc"])


@pytest.mark.parametrize(
    ("more", "error", "complaint"),
    [
        ({"tokens": {"books": 1e8, "code": 1e9}}, MissingDomain, "no tokens are given for web"),
        ({"tokens": {**TOKENS, "pdf": 1e8}}, InvalidTokens, "tokens are given for pdf"),
        ({"objective": {"hellaswag": 1}}, InvalidSetting, "no metric 'hellaswag'"),
        ({"targettokens": 1e9}, InvalidSetting, "no setting 'targettokens'"),
        ({"shares": {"pdf": (0.1, 0.2)}}, MixingError, "'pdf' is neither a domain nor a group"),
    ],
)
def test_what_was_asked_wrongly_is_named(
    more: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        mixwright.fit(table(), **{**ASKED, **more})


def test_what_cannot_be_a_table_is_refused_by_name() -> None:
    with pytest.raises(MixingError, match="list"):
        mixwright.fit([1, 2, 3])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("files")
    frame = table().to_pandas()
    weights = [name for name in frame.columns if name.startswith("train_")]
    frame[["run", *weights]].to_csv(directory / "ratios.csv", index=False)
    frame[["run", "eval/code", "eval/prose"]].to_csv(directory / "metrics.csv", index=False)
    lines = [f"{name},{tokens:.0f},{tokens / 500:.0f}" for name, tokens in TOKENS.items()]
    (directory / "pool.csv").write_text("\n".join(["domain,tokens,documents", *lines]))
    return directory


def command(files: Path, *more: str) -> Any:
    given = ["fit", f"{files}/ratios.csv", f"{files}/metrics.csv", "--regression", "effective-power", *more]
    return CliRunner().invoke(main, given)


def pool(files: Path) -> tuple[str, ...]:
    return ("--tokens", f"{files}/pool.csv", "--target-tokens", "4e9")


def test_the_command_prints_the_mixture_and_writes_its_evidence(
    files: Path, tmp_path: Path, answer: Any
) -> None:
    done = command(files, *pool(files), "--json", f"{tmp_path}/a.json", "--html", f"{tmp_path}/a.html")
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["weights"] == pytest.approx(answer.mixture, abs=1e-9)
    line = next(line for line in done.output.splitlines() if line.startswith("books"))
    assert "10.00%" in line
    assert "(its cap)" in line
    assert "a gain of" in done.output
    # Who drew these runs is not known.
    assert document["recipe"]["sampler"] == "as given"


class _Addresses(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            str(value) for name, value in attrs if name in ("src", "href") and not str(value).startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_needs_nothing_but_itself(files: Path, tmp_path: Path) -> None:
    assert command(files, *pool(files), "--html", f"{tmp_path}/a.html").exit_code == 0
    page = _Addresses()
    page.feed((tmp_path / "a.html").read_text())
    (style,) = page.found
    assert style.startswith("data:text/css;base64,")
    assert {"books", "eval/code"} <= {text.strip() for text in page.text}


def test_the_mixture_is_written_for_a_trainer_with_what_it_will_draw(files: Path, tmp_path: Path) -> None:
    done = command(
        files,
        *pool(files),
        "--mixture",
        f"{tmp_path}/out",
        "--format",
        "megatron",
        "--path",
        "/data/{domain}",
    )
    assert done.exit_code == 0, done.output
    blend = (tmp_path / "out" / "blend.txt").read_text().split()
    assert set(blend[1::2]) == {"/data/books", "/data/code", "/data/web"}
    assert sum(map(float, blend[::2])) == pytest.approx(1)
    assert "Written as megatron, which draws every share within" in done.output


def test_the_mixture_is_written_by_the_name_of_its_file(files: Path, tmp_path: Path, answer: Any) -> None:
    assert command(files, *pool(files), "--mixture", f"{tmp_path}/m.yaml").exit_code == 0
    assert yaml.safe_load((tmp_path / "m.yaml").read_text()) == pytest.approx(answer.mixture, abs=1e-9)


def test_a_fault_of_the_tables_is_one_line(files: Path) -> None:
    done = command(files, "--objective", "nothing")
    assert done.exit_code == 1
    assert done.output.startswith("Error: there is no metric 'nothing'")
    assert "Traceback" not in done.output


def test_neither_torch_nor_lightgbm_is_loaded(files: Path) -> None:
    script = (
        "import sys; from exchange.fit import fit;"
        f"fit({str(files / 'ratios.csv')!r}, {str(files / 'metrics.csv')!r}, regression='effective-power').document;"
        "print([name for name in ('torch', 'lightgbm', 'sqlalchemy', 'fastapi') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
