"""A launch by a real program: its arguments, its environment, its log, its end and its cancellation."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from exchange.formats import FORMATS
from store import jobs
from store.engine import Database
from store.launchers import BadLaunchers, read_launchers
from store.launchers.base import ALLOWED_ENVIRONMENT, FORMAT_FILES, Program
from store.settings import Settings
from store.tables import DomainRow, Job, Launch, MixtureRow, Run
from tests.workers.conftest import new_revision
from workers.claims.claim import claim
from workers.claims.failures import JobError
from workers.execution.child_handle import Child
from workers.execution.execute import Worker, run_claims
from workers.jobs import external_run

Until = Callable[..., None]
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))"


def spec(tmp_path: Path, *arguments: str, stop_seconds: float = 30.0) -> dict[str, object]:
    return {
        "arguments": [sys.executable, *arguments],
        "environment": list(ALLOWED_ENVIRONMENT),
        "directory": str(tmp_path / "launch"),
        "stop_seconds": stop_seconds,
        "mixture": {"weights": {"books": 1.0}},
        "exports": {},
        "results": {"names": ["a-run"], "tasks": [], "tokens_per_step": 1, "results": [], "metrics": {}},
    }


def test_a_value_stays_one_argument_whatever_it_holds() -> None:
    launcher = Program(command=("/bin/x", "--name={name}", "{name}", "a b"))
    for value in ("a b", "$(id)", "; rm -rf /", "{seed}", "--flag", "'\"\n"):
        assert launcher.arguments({"name": value}) == ("/bin/x", f"--name={value}", value, "a b")


def test_the_program_gets_its_arguments_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXWRIGHT_TOKEN", "operator-token-0a9b8c7d")
    monkeypatch.setenv("MIXWRIGHT_DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    result = external_run.execute(spec(tmp_path, "-c", SHOW, "$(id)", "a b"), lambda _: None)
    assert result["exit_status"] == 0
    arguments, environment, directory = json.loads((tmp_path / "launch" / "log").read_text())
    assert arguments == ["$(id)", "a b"]
    assert set(environment) <= {*ALLOWED_ENVIRONMENT, "LC_CTYPE"}
    assert directory == str(tmp_path / "launch")
    assert json.loads((tmp_path / "launch" / "mixture.json").read_text()) == {"weights": {"books": 1.0}}
    assert (tmp_path / "launch" / "log").stat().st_mode & 0o777 == 0o600


def test_a_launch_is_a_job_whose_exit_status_is_stored(sqlite: Database, tmp_path: Path) -> None:
    file = tmp_path / "launchers.toml"
    command = [sys.executable, "-c", SHOW, "{name}", "--tokens={target_tokens}", "{mixture_file}"]
    file.write_text(f"[launchers.show]\ncommand = {json.dumps(command)}\n")
    settings = Settings(data_directory=tmp_path, launchers=file, heartbeat_seconds=0.05)
    with sqlite.write() as session:
        revision = new_revision(session)
        session.add(DomainRow(revision_id=revision.id, name="books", files=["/x"], declared_tokens=7))
        mixture = MixtureRow(revision_id=revision.id, kind="manual", weights={"books": 1.0})
        session.add(mixture)
        session.flush()
        asked = {"launcher": "show", "name": "a-run", "tokens": 1000, "seed": 3}
        launch = Launch(mixture_id=mixture.id, settings=asked)
        session.add(launch)
        session.flush()
        run = Run(launch_id=launch.id, position=0, seed=3, weights=mixture.weights)
        session.add(run)
        session.flush()
        session.add(jobs.new_job(jobs.EXTERNAL_RUN, run.id, launch.id))
    claimed = claim(sqlite, "tester", 30.0)
    assert claimed is not None
    child = Child()
    run_claims(Worker(sqlite, settings, threading.Event()), [claimed], child)
    child.kill()
    with sqlite.read() as session:
        job = session.get_one(Job, claimed.job_id)
        assert (job.state, job.failure_detail) == (jobs.SUCCEEDED, None)
        assert (session.get_one(Run, claimed.subject).result or {})["exit_status"] == 0
    directory = tmp_path / "artifacts" / "launches" / claimed.owner
    arguments = json.loads((directory / "log").read_text())[0]
    assert arguments == ["a-run", "--tokens=1000", str(directory / "mixture.json")]
    domains = json.loads((directory / "mixture.json").read_text())["domains"]
    assert domains == {"books": {"weight": 1.0, "tokens": 7, "files": ["/x"]}}


WRITE = """
import json, os
os.makedirs("eval")
json.dump({"results": {"hellaswag": {"acc,none": 0.5, "acc_stderr,none": 0.1}, "piqa": {"acc,none": 0.7}}},
          open("eval/results_2026.json", "w"))
json.dump({"log_history": [{"step": 10, "loss": 3.5}, {"step": 20, "loss": 3.0, "eval_c4": 2.5},
                           {"step": 30, "eval_c4": 2.25}]}, open("trainer_state.json", "w"))
open("metrics_bad.json", "w").write("{")
os.symlink("/etc", "eval/etc")
"""


def test_the_files_a_program_leaves_are_its_launchs_results(tmp_path: Path) -> None:
    told = spec(tmp_path, "-c", WRITE)
    told["results"] = {
        "names": ["a-run", "launch_1"],
        "tasks": ["hellaswag", "c4"],
        "tokens_per_step": 1000,
        "results": ["eval/**/*.json", "trainer_state.json", "metrics_bad.json", "nothing.json"],
        "metrics": {"hellaswag/acc": "hellaswag", "eval_c4": "c4"},
    }
    result = external_run.execute(told, lambda _: None)
    assert result["exit_status"] == 0
    assert result["final"] == {"hellaswag": 0.5, "c4": 2.25}
    curves = [(one["step"], one["tokens"], one["task"], one["value"]) for one in result["metrics"]]
    assert sorted(curves) == [
        (10, 10_000, "training/loss", 3.5),
        (20, 20_000, "c4", 2.5),
        (20, 20_000, "training/loss", 3.0),
        (30, 30_000, "c4", 2.25),
    ]
    notes = " ".join(result["notes"])
    for said in ("nothing.json", "piqa/acc"):
        assert said in notes


def test_a_program_that_fails_says_how(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"ended with status 3; its log ends: no disk") as error:
        external_run.execute(spec(tmp_path, "-c", "print('no disk'); raise SystemExit(3)"), lambda _: None)
    assert (error.value.code, error.value.retryable) == ("launcher_failed", False)


def test_whoever_loses_the_runner_ends_the_whole_process_group(tmp_path: Path, until: Until) -> None:
    """SIGTERM is ignored by the program and its child; both are gone after the deadline."""
    program = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork();"
        "open(f'pid-{os.getpid()}', 'w').close()\nwhile True: time.sleep(1)"
    )
    directory = tmp_path / "launch"
    directory.mkdir()
    order = {**spec(tmp_path, "-c", program, stop_seconds=0.2), "environment": dict(os.environ)}
    runner = subprocess.Popen(
        [sys.executable, "-m", "workers.execution.launcher"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert runner.stdin is not None
    runner.stdin.write(json.dumps(order) + "\n")
    runner.stdin.flush()
    until(lambda: len(list(directory.glob("pid-*"))) == 2, what="both processes run")
    processes = [int(path.name[4:]) for path in directory.glob("pid-*")]
    output, _ = runner.communicate(timeout=30)  # closes the lifeline
    assert json.loads(output) == {"exit_status": -9}
    until(lambda: not any(_runs(one) for one in processes), what="both processes are gone")


def _runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "text",
    [
        'command = ["train"]',
        'command = ["/bin/{name}"]',
        'command = ["/bin/x", "{secret}"]',
        'command = ["/bin/x", "{name.__class__}"]',
        'command = "/bin/x --all"',
        "command = []",
        'command = ["/bin/x"]\nenvironment = ["MIXWRIGHT_TOKEN"]',
        'command = ["/bin/x"]\nshell = true',
        'command = ["/bin/x"]\nresults = ["../other/results.json"]',
        'command = ["/bin/x"]\nresults = ["/etc/*.json"]',
    ],
)
def test_a_template_that_cannot_be_meant_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "launchers.toml"
    path.write_text(f"[launchers.one]\n{text}\n")
    with pytest.raises(BadLaunchers, match=r"launchers\.toml"):
        read_launchers(path)
    path.write_text('[launchers.one]\ncommand = ["/bin/x", "{name}"]\n')
    assert list(read_launchers(path)) == ["one"]


def test_a_launcher_gets_the_mixture_as_its_trainer_reads_it(sqlite: Database, tmp_path: Path) -> None:
    program = tmp_path / "launchers.toml"
    command = json.dumps([sys.executable, "-c", SHOW, "--sources={olmo_core_file}"])
    run = 'path = "/data/{domain}/*.npy"\nsequence_length = 128\nbatch_rows = 4\n'
    program.write_text(f"[launchers.olmo-core]\ncommand = {command}\n{run}")
    settings = Settings(data_directory=tmp_path, launchers=program)
    weights = {"books": 0.25, "web": 0.75}
    with sqlite.write() as session:
        revision = new_revision(session)
        session.add_all(
            DomainRow(revision_id=revision.id, name=name, files=[f"/{name}.jsonl"], declared_tokens=10**6)
            for name in weights
        )
        mixture = MixtureRow(revision_id=revision.id, kind="manual", weights=weights)
        session.add(mixture)
        session.flush()
        asked = {"launcher": "olmo-core", "name": None, "tokens": 51_200, "seed": 0, "repetition_cap": 4}
        launch = Launch(mixture_id=mixture.id, settings=asked)
        session.add(launch)
        session.flush()
        run_row = Run(launch_id=launch.id, position=0, seed=0, weights=weights)
        session.add(run_row)
        session.flush()
        job = jobs.new_job(jobs.EXTERNAL_RUN, run_row.id, launch.id)
        session.add(job)
        session.flush()
        told = external_run.describe(session, job, settings)
    assert external_run.execute(told, lambda _: None)["exit_status"] == 0
    folder = Path(told["directory"])
    (sources,) = json.loads((folder / "log").read_text())[0]
    assert sources == f"--sources={folder / 'olmo-core' / 'sources.yaml'}"
    written = yaml.safe_load((folder / "olmo-core" / "sources.yaml").read_text())["sources"]
    assert {row["source_name"]: row["target_ratio"] for row in written} == weights
    assert written[0]["paths"] == ["/data/books/*.npy"]
    drawn = json.loads((folder / "olmo-core" / "realised.json").read_text())
    assert drawn["target_tokens"] == 51_200


def test_every_placeholder_of_a_format_is_the_file_it_writes() -> None:
    assert set(FORMAT_FILES.values()) == {f"{name}/{format.file}" for name, format in FORMATS.items()}
