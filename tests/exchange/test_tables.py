"""Tables as people have them: every format and layout gives the same runs, and what is wrong is named."""

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mixwright
from exchange.columns import Reading
from exchange.sheets import InvalidTable, read_sheet
from exchange.swarm import Swarm, read_swarm
from mixing.errors import InvalidSetting

Rows = Sequence[Mapping[str, Any]]


def rows(count: int = 6) -> list[dict[str, Any]]:
    """Runs over three domains with two metrics; the numbers survive being written as text."""
    mixtures = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=count).round(6)
    return [
        {
            "run": f"r{k}",
            "web": float(a),
            "code": float(b),
            "books": float(c),
            "loss": 2 - a,
            "eval/x": 1 + b * c,
        }
        for k, (a, b, c) in enumerate(mixtures.tolist())
    ]


def csv_file(path: Path, table: Rows, separator: str = ",", columns: Sequence[str] | None = None) -> Path:
    names = list(columns or table[0])
    lines = [separator.join(names)]
    lines += [separator.join("" if row[name] is None else str(row[name]) for name in names) for row in table]
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path: Path, measured: Path | None = None, /, **reading: Any) -> Swarm:
    return read_swarm(
        read_sheet(path), None if measured is None else read_sheet(measured), Reading(**reading)
    )


def same(one: Swarm, other: Swarm) -> bool:
    return [(run.id, run.mixture, run.metrics) for run in one.runs] == [
        (run.id, run.mixture, run.metrics) for run in other.runs
    ]


def test_every_format_gives_the_same_runs(tmp_path: Path) -> None:
    table, asked = rows(), {"weights": ("web", "code", "books"), "metrics": ("loss", "eval/x")}
    files = {name: tmp_path / name for name in ("a.csv", "a.tsv", "a.parquet", "a.jsonl", "a.json")}
    csv_file(files["a.csv"], table)
    csv_file(files["a.tsv"], table, "\t")
    pq.write_table(pa.Table.from_pylist(table), files["a.parquet"])
    files["a.jsonl"].write_text("\n".join(map(json.dumps, table)))
    nested = [
        {**{k: v for k, v in row.items() if k != "eval/x"}, "eval": {"x": row["eval/x"]}} for row in table
    ]
    files["a.json"].write_text(json.dumps(nested, indent=1))
    expected = [(row["run"], {k: row[k] for k in ("web", "code", "books")}, row["loss"]) for row in table]
    for path in files.values():
        swarm = read(path, **asked)
        assert [(run.id, dict(run.mixture), run.metrics["loss"]) for run in swarm.runs] == expected
        assert [run.metrics["eval/x"] for run in swarm.runs] == [row["eval/x"] for row in table]


def test_a_format_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    pq.write_table(pa.Table.from_pylist(rows()), path)
    assert list(read_sheet(path).columns) == list(rows()[0])


def test_two_tables_are_joined_by_the_run_and_not_by_its_place(tmp_path: Path) -> None:
    table = rows(20)
    ratios = csv_file(tmp_path / "ratios.csv", table, columns=["run", "web", "code", "books"])
    shuffled = random.Random(1).sample(table, len(table))
    expected = read(ratios, csv_file(tmp_path / "m.csv", table, columns=["run", "loss", "eval/x"]))
    assert same(
        read(ratios, csv_file(tmp_path / "n.csv", shuffled, columns=["loss", "eval/x", "run"])), expected
    )
    assert expected.metrics == ("loss", "eval/x")


def test_a_runs_number_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    weights = tmp_path / "w.csv"
    weights.write_text("index,a,b\n1,.5,.5\n2,.25,.75\n")
    metrics = tmp_path / "m.csv"
    metrics.write_text("index,x\n2.0,3\n1.0,4\n")
    assert [(run.id, run.metrics) for run in read(weights, metrics).runs] == [
        ("1", {"x": 4.0}),
        ("2", {"x": 3.0}),
    ]


def test_olmixs_labels_are_no_domains(tmp_path: Path) -> None:
    ratios = tmp_path / "ratios.csv"
    ratios.write_text("run,name,index,dclm:art,wiki\na1,swarm-1,0,.4,.6\nb2,swarm-2,1,.5,.5\n")
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("run,name,index,arc_bpb\nb2,swarm-2,1,1.5\na1,swarm-1,0,1.25\n")
    swarm = read(ratios, metrics)
    assert swarm.domains == ("dclm:art", "wiki")
    assert [run.metrics["arc_bpb"] for run in swarm.runs] == [1.25, 1.5]


def marin(domains: int = 39, runs: int = 8) -> list[dict[str, Any]]:
    """A tracker's export: two phases, epochs beside the weights, states, and metrics named by a path."""
    random_state = np.random.default_rng(2)
    table = []
    for run in range(runs):
        first, second = random_state.dirichlet(np.ones(domains), size=2)
        weights = {
            f"phase_{phase}_cc/d{j}": float(weight)
            for phase, mixture in enumerate((first, second))
            for j, weight in enumerate(mixture)
        }
        epochs = {f"phase_0_cc/d{j}_epochs": 3.0 for j in range(domains)}
        metrics = {f"eval/t{t}/bpb": float(1 + t + first[0]) for t in range(300)}
        state = "completed" if run else "crashed"
        table.append({"run_id": f"w{run}", "status": state, **weights, **epochs, **metrics})
    return table


def test_an_export_with_two_phases_is_read_by_phase_or_by_their_shares(tmp_path: Path) -> None:
    table = marin()
    path = csv_file(tmp_path / "runs.csv", table)
    with pytest.raises(InvalidTable, match="2 phases"):
        read(path)
    swarm = read(path, phase=1, keep={"status": "completed"})
    assert len(swarm.domains) == 39
    assert len(swarm.metrics) == 300
    assert [run.id for run in swarm.runs] == [f"w{k}" for k in range(1, 8)]
    assert swarm.domains[:2] == ("cc:d0", "cc:d1")
    assert swarm.runs[0].mixture["cc:d3"] == table[1]["phase_1_cc/d3"]
    averaged = read(path, phase_shares=(0.75, 0.25)).runs[2].mixture["cc:d5"]
    assert averaged == pytest.approx(0.75 * table[2]["phase_0_cc/d5"] + 0.25 * table[2]["phase_1_cc/d5"])
    assert any("1 of 8 rows" in note for note in swarm.notes)


def test_the_weights_of_one_table_are_the_columns_of_a_prefix_that_sum_to_1(tmp_path: Path) -> None:
    table = [
        {"run": row["run"], **{f"ratio/{k}": row[k] for k in ("web", "code", "books")}, "eval/a": row["loss"]}
        for row in rows()
    ]
    swarm = read(csv_file(tmp_path / "t.csv", table))
    assert [swarm.columns[name] for name in swarm.domains] == ["ratio/web", "ratio/code", "ratio/books"]
    assert swarm.metrics == ("eval/a",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("run,a,b\nx,50,50\n", r"percent: divide them by 100"),
        ("run,a,b,step\nx,.5,.5,100\n", r"without step they would: is it a domain"),
        ("run,a,b\nx,.5,.3\n", r"sum to 0\.8, not 1; is a domain's column forgotten"),
        ("run,a,b\nx,1.5,-.5\n", r"row 2, column 'b': a weight of -0\.5 is below 0"),
        ("run,a,b\nx,,1\n", r"row 2, column 'a': no weight; write 0"),
        ("run,a,b\nx,half,.5\n", r"row 2, column 'a': 'half' is no finite number"),
        (
            "run;a;b\nx;0,5;.5\n",
            r"row 2, column 'a': '0,5' is no finite number; write its decimals behind a point",
        ),
        ("run,a,b\nx,.5,inf\n", r"row 2, column 'b': 'inf' is no finite number"),
        ("run,a,a\nx,.5,.5\n", r"two columns a"),
        ("run,a,b\nx,.5,.5\nx,.4,.6\n", r"two rows of run x"),
        ("run,a,b\nx,.5\n", r"row 2: 2 cells under 3 column names"),
        ("run,a,b\n", r"no rows"),
        ("number,a,b\nx,.5,.5\n", r"is a run's id"),
    ],
)
def test_what_is_wrong_with_a_table_of_weights_is_named(text: str, complaint: str, tmp_path: Path) -> None:
    weights, metrics = tmp_path / "weights.csv", tmp_path / "metrics.csv"
    weights.write_text(text)
    metrics.write_text("run,loss\nx,2\n")
    with pytest.raises(InvalidTable, match=complaint):
        read(weights, metrics)


def test_a_column_of_decimal_commas_is_told_what_to_write(tmp_path: Path) -> None:
    weights, metrics = tmp_path / "weights.csv", tmp_path / "metrics.csv"
    weights.write_text("run,a,b\nx,.5,.5\ny,.4,.6\n")
    metrics.write_text("run;loss\nx;1,25\ny;1,5\n")
    with pytest.raises(InvalidTable, match=r"'1,25'.*no metric; write its decimals behind a point"):
        read(weights, metrics)


def test_runs_of_one_table_only_are_listed(tmp_path: Path) -> None:
    table = rows(4)
    weights = csv_file(tmp_path / "w.csv", table, columns=["run", "web", "code", "books"])
    metrics = csv_file(tmp_path / "m.csv", table[1:], columns=["run", "loss"])
    with pytest.raises(InvalidTable, match=r"1 runs are not in m\.csv, by run: r0") as caught:
        read(weights, metrics)
    assert caught.value.names == ("r0",)
    swarm = read(weights, metrics, without_faulty=True)
    assert [run.id for run in swarm.runs] == ["r1", "r2", "r3"]


def test_a_column_that_is_no_domain_is_named_though_the_sums_are_within_bounds(tmp_path: Path) -> None:
    table = [{**row, "lr": 0.0005 * (number + 1)} for number, row in enumerate(rows(6))]
    metrics = csv_file(tmp_path / "m.csv", table, columns=["run", "loss"])
    for column, said in (
        ("lr", "without column 'lr' the weights of every run"),
        ("note", "has no number in any row"),
    ):
        given = [{**row, "note": "first try"} for row in table]
        weights = csv_file(tmp_path / "w.csv", given, columns=["run", "web", "code", "books", column])
        with pytest.raises(InvalidTable, match=said) as caught:
            read(weights, metrics)
        assert caught.value.names == (column,)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv.gz", b"\x1f\x8bno gzip", "damaged"),
        ("t.csv.gz", gzip.compress(b"run,web\n" * 1000)[:40], "ends early"),
        ("t.parquet", b"PAR1no parquet", "no Parquet"),
    ],
)
def test_a_file_that_is_damaged_is_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidTable, match=said) as caught:
        read(tmp_path / name)
    assert caught.value.field == str(tmp_path / name)


def test_every_run_with_a_gap_is_named_and_left_out_only_as_asked(tmp_path: Path) -> None:
    table = rows(6)
    table[2]["loss"] = None
    table[4]["loss"] = "nan"
    path = csv_file(tmp_path / "t.csv", table)
    asked = {"weights": ("web", "code", "books"), "metrics": ("loss", "eval/x")}
    with pytest.raises(
        InvalidTable, match=r"2 of 6 runs cannot be read: run r2: t\.csv, row 4, column 'loss'"
    ) as caught:
        read(path, **asked)
    assert caught.value.names == ("r2", "r4")
    assert [run.id for run in read(path, without_faulty=True, **asked).runs] == ["r0", "r1", "r3", "r5"]
    kept = read(path, with_gaps=True, **asked)
    assert [sorted(run.metrics) for run in kept.runs][2] == ["eval/x"]
    assert any("loss in 2" in note for note in kept.notes)


def test_a_number_that_may_or_may_not_be_a_metric_is_asked_for(tmp_path: Path) -> None:
    table = [{**row, "step": 1000} for row in rows()]
    path = csv_file(tmp_path / "t.csv", table)
    with pytest.raises(InvalidTable, match=r"is loss, step of t\.csv a metric"):
        read(path, weights=("web", "code", "books"))
    swarm = read(path, weights=("web", "code", "books"), ignored=("step", "loss"))
    assert swarm.metrics == ("eval/x",)


def test_columns_that_would_be_one_domain_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_text("run,a/b,a:b\nx,.5,.5\n")
    with pytest.raises(InvalidTable, match=r"a/b, a:b would all be the domain 'a:b'"):
        read(path, path, metrics=("a/b",))


def test_rows_are_named_as_the_file_has_them(tmp_path: Path) -> None:
    weights, metrics = tmp_path / "w.csv", tmp_path / "m.csv"
    weights.write_text("run,a,b\n\nx,.5,.5\n\ny,oops,.5\n")
    metrics.write_text("run,loss\nx,1\ny,2\n")
    with pytest.raises(InvalidTable, match=r"w\.csv, row 5, column 'a'"):
        read(weights, metrics)


def test_what_is_said_of_a_metrics_direction_holds_whatever_its_name() -> None:
    weights = np.random.default_rng(0).dirichlet([2, 2, 2], size=30)
    frame = pd.DataFrame({"run": range(30), **{f"w/{name}": weights[:, j] for j, name in enumerate("abc")}})
    frame["eval/acc"], frame["eval/x_loss"] = 1 - 0.3 * weights[:, 0] ** 0.5, 2 - weights[:, 1] ** 0.4
    asked = {"weights": ["w/*"], "metrics": ["eval/*"], "regression": "effective-power"}
    with pytest.raises(InvalidSetting, match="is eval/acc better when higher"):
        mixwright.fit(frame, **asked)
    said = mixwright.fit(frame, **asked, lower_is_better=["*acc"]).document
    assert {row["name"]: row["direction"] for row in said["tasks"]} == {
        "eval/acc": "lower",
        "eval/x_loss": "lower",
    }
    said = mixwright.fit(frame, **asked, higher_is_better=["*"]).document
    assert {row["direction"] for row in said["tasks"]} == {"higher"}


def test_whoever_waits_is_told_what_is_done_and_how_long_it_takes() -> None:
    weights = np.random.default_rng(0).dirichlet([2, 2, 2], size=30)
    frame = pd.DataFrame({"run": range(30), **{f"w/{name}": weights[:, j] for j, name in enumerate("abc")}})
    frame["eval/loss"] = 2 - weights[:, 1] ** 0.4
    told: list[tuple[str, float]] = []
    mixwright.fit(
        frame,
        weights=["w/*"],
        metrics=["eval/*"],
        regression="effective-power",
        progress=lambda what, seconds: told.append((what, seconds)),
    )
    assert [what for what, _ in told] == [
        "reading the tables",
        "fitting 30 runs of 1 metrics by effective-power",
    ]
    assert all(seconds > 0 for _, seconds in told)


def scaled(tmp_path: Path, count: int = 30, **columns: Sequence[Any]) -> Path:
    """One table of runs with further columns."""
    table = rows(count)
    for number, row in enumerate(table):
        row |= {name: values[number % len(values)] for name, values in columns.items()}
    named = {"web": "w/web", "code": "w/code", "books": "w/books", "loss": "eval/loss"}
    return csv_file(tmp_path / "t.csv", [{named.get(k, k): v for k, v in row.items()} for row in table])


def test_what_a_run_trained_is_read_beside_its_weights_and_metrics(tmp_path: Path) -> None:
    table = scaled(tmp_path, tokens=["1e9", "2000000000.0"], parameters=[1_000_000], seed=[1, 2, ""])
    swarm = read(table)
    assert (swarm.domains, swarm.metrics) == (("w:web", "w:code", "w:books"), ("eval/loss", "eval/x"))
    assert [each.tokens for each in swarm.trained[:3]] == [10**9, 2 * 10**9, 10**9]
    assert {each.parameters for each in swarm.trained} == {10**6}
    assert [run.seed for run in swarm.runs[:3]] == [1, 2, None]
    unnamed = read(table, ignored=("seed", "tokens"))
    assert {(each.tokens, each.seed) for each in unnamed.trained} == {(None, None)}
    called = scaled(tmp_path, **{"train/tokens": [5, 7]})
    assert [each.tokens for each in read(called, run_tokens="train/tokens").trained[:2]] == [5, 7]
    with pytest.raises(InvalidTable, match="no column 'train/toks'"):
        read(called, run_tokens="train/toks")
    for cell in ("-1", "1.5", "many"):
        with pytest.raises(InvalidTable, match=r"t\.csv, row 2, column 'seed'"):
            read(scaled(tmp_path, seed=[cell]))


@pytest.mark.parametrize("column", ["parameters", "tokens"])
def test_runs_of_several_sizes_or_lengths_are_refused_until_those_of_one_are_kept(
    column: str, tmp_path: Path
) -> None:
    table = scaled(tmp_path, **{column: ["1000000", "6e7", "1000000.0"]})
    with pytest.raises(InvalidTable, match=f"20 of 1,000,000, 10 of 60,000,000.*{column}=1000000"):
        mixwright.fit(table, regression="effective-power")
    kept = mixwright.fit(table, regression="effective-power", keep={column: "1000000"})
    assert kept.document["runs_used"] == 20
    near = scaled(tmp_path, **{column: [1_000_000, 1_030_000]})
    assert mixwright.fit(near, regression="effective-power").document["runs_used"] == 30


def test_a_law_that_looks_at_lengths_is_told_them(tmp_path: Path) -> None:
    table = scaled(tmp_path, tokens=[10**8, 10**9])
    answer = mixwright.fit(table, regression="multi-fidelity")
    assert set(answer.proposal.learned.evidence.table.tokens.tolist()) == {0.1, 1.0}


def test_a_stated_unit_is_that_of_the_answer(tmp_path: Path) -> None:
    answer = mixwright.fit(scaled(tmp_path), regression="effective-power", units={"eval/*": "BPB"})
    assert answer.document["objective"]["unit"] == "BPB"
    with pytest.raises(InvalidSetting, match="there is no metric 'none'"):
        mixwright.fit(scaled(tmp_path), units={"none": "BPB"})
