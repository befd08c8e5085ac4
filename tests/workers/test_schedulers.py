"""What schedulers are given, and what is made of what they say: without one."""

import base64
import hashlib
import hmac
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from store.launchers import BadLaunchers, read_launchers
from store.launchers.base import Work
from store.launchers.kubernetes import Kubernetes
from store.launchers.kubernetes import standing_of as standing_of_job
from store.launchers.scheduler import OnNodes, Refused, Scheduler, SchedulerAway, Seen, submission_directory
from store.launchers.skypilot import SkyPilot
from store.launchers.skypilot import standing_of as standing_of_task
from store.launchers.slurm import Slurm
from store.launchers.webhook import Webhook

VOLUME = {"mount": "/srv", "source": {"persistentVolumeClaim": {"claimName": "data"}}}


def work(directory: Path, built_in: bool = True) -> Work:
    return Work(
        launch_id="launch_01931f0c2b7a4e1f6c0d2a98",
        number=2,
        directory=directory / "launches" / "it's one",
        values={"name": "a $(id) 'b'", "mixture_file": "/m.json"},
        mixture={"weights": {"books": 1.0}},
        run_directory=directory / "runs" / "one",
        order={"run": {}} if built_in else None,
    )


def launchers(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "launchers.toml"
    file.write_text(f"[launchers.x]\n{text}\n")
    return read_launchers(file)["x"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('kind = "pbs"', "there are kubernetes, program, skypilot, slurm, torchrun, webhook"),
        ('kind = "program"', "command: Field required"),
        ('kind = "slurm"\ncommand = ["/x", "{secret}"]', "unknown placeholder {secret}"),
        ('kind = "slurm"\noptions = ["--array=0-9"]', "is how a submission is found"),
        ('kind = "slurm"\noptions = ["--qos=a\\n#SBATCH --uid=0"]', "no option of sbatch on one line"),
        ('kind = "slurm"\npartition = "a b"', "String should match pattern"),
        ('kind = "slurm"\nenvironment = ["MIXWRIGHT_TOKEN"]', "may hold a secret"),
        ('kind = "kubernetes"\nimage = "x"', "volumes: Field required"),
        ('kind = "webhook"\nurl = "file:///etc/passwd"\nsecret_file = "/x"', "is no http address"),
        (
            'kind = "webhook"\nurl = "https://x"\nsecret_file = "/x"\nstatus_url = "https://x"',
            "has no {name}",
        ),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(BadLaunchers) as error:
        launchers(tmp_path, text)
    assert complaint in str(error.value)


def scripts(launcher: Scheduler, given: Work) -> list[str]:
    """Every shell script it renders."""
    files = launcher.render(given).files
    found = [content for path, content in files.items() if path.endswith(".sh")]
    found += [yaml.safe_load(content)["run"] for path, content in files.items() if path.endswith("task.yaml")]
    return found


ON_NODES: list[dict[str, Any]] = [
    {"kind": "slurm"},
    {"kind": "slurm", "nodes": 2, "processes": 4, "device": "cuda"},
    {"kind": "kubernetes", "image": "x", "volumes": [VOLUME], "nodes": 2},
    {"kind": "skypilot", "nodes": 2},
]
KINDS: dict[str, type[OnNodes]] = {"slurm": Slurm, "kubernetes": Kubernetes, "skypilot": SkyPilot}


@pytest.mark.parametrize("table", ON_NODES, ids=lambda table: f"{table['kind']}-{table.get('nodes', 1)}")
@pytest.mark.parametrize("built_in", [True, False])
def test_a_shell_reads_what_is_rendered(tmp_path: Path, table: dict[str, Any], built_in: bool) -> None:
    command = () if built_in else ("/bin/train", "--name={name}")
    launcher = KINDS[table["kind"]].model_validate({**table, "command": command})
    (script,) = scripts(launcher, work(tmp_path, built_in))
    checked = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
    assert checked.stderr == ""


@pytest.mark.parametrize("table", ON_NODES[2:], ids=lambda table: table["kind"])
def test_a_value_stays_one_argument_and_only_one_trains(tmp_path: Path, table: dict[str, Any]) -> None:
    """By a shell itself: twice under the same id, as a pod that comes again, and then under another."""
    printer = tmp_path / "print"
    printer.write_text('#!/bin/sh\necho "$#:$1" >>ran\nexit 3\n')
    printer.chmod(0o755)
    given = work(tmp_path, built_in=False)
    launcher = KINDS[table["kind"]].model_validate({**table, "command": (str(printer), "--name={name}")})
    submission_directory(given).mkdir(parents=True)
    (script,) = scripts(launcher, given)
    rank = {"JOB_COMPLETION_INDEX": "0", "SKYPILOT_NODE_RANK": "0"}
    for _ in range(2):
        assert subprocess.run(["sh"], input=script, text=True, env=rank, check=False).returncode == 3
    assert (given.directory / "ran").read_text() == "1:--name=a $(id) 'b'\n" * 2
    assert (submission_directory(given) / "exit_status").read_text() == "3\n"
    other = script.replace(f"me={given.name}", "me=another")
    assert subprocess.run(["sh"], input=other, text=True, env=rank, check=False).returncode == 0
    second = {"JOB_COMPLETION_INDEX": "1", "SKYPILOT_NODE_RANK": "1"}
    assert subprocess.run(["sh"], input=script, text=True, env=second, check=False).returncode == 3
    assert len((given.directory / "ran").read_text().splitlines()) == 3
    assert "another: " in (given.directory / "log").read_text()
    assert (submission_directory(given) / "exit_status-1").read_text() == "3\n"


def test_the_time_to_end_reaches_the_program_and_its_status_is_kept(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\ntrap 'exit 75' TERM\ntouch begun\nwhile :; do sleep 0.05; done\n")
    program.chmod(0o755)
    given = work(tmp_path, built_in=False)
    submission_directory(given).mkdir(parents=True)
    launcher = Kubernetes.model_validate(
        {"kind": "kubernetes", "image": "x", "volumes": [VOLUME], "command": (str(program),)}
    )
    (script,) = scripts(launcher, given)
    file = tmp_path / "job.sh"
    file.write_text(script)
    with subprocess.Popen(
        ["sh", str(file)], env={"JOB_COMPLETION_INDEX": "0", "PATH": "/bin:/usr/bin"}
    ) as node:
        while not (given.directory / "begun").exists():
            assert node.poll() is None
        node.terminate()
    assert node.returncode == 75
    assert (submission_directory(given) / "exit_status").read_text() == "75\n"


def test_what_nodes_see_is_known_from_their_volumes() -> None:
    pods = Kubernetes.model_validate({"kind": "kubernetes", "image": "x", "volumes": [VOLUME]})
    assert not pods.hidden("/srv/data")
    assert pods.hidden("/srvdata")
    assert SkyPilot.model_validate({"kind": "skypilot"}).hidden("/srv")
    assert not Slurm.model_validate({"kind": "slurm"}).hidden("/srv")  # nobody said
    assert Slurm.model_validate({"kind": "slurm", "shared": ["/home"]}).hidden("/srv")


@pytest.mark.parametrize(
    ("job", "state", "status"),
    [
        ({"status": {"conditions": [{"type": "Suspended", "status": "True"}]}}, "queued", None),
        ({"status": {"active": 2, "ready": 0}}, "queued", None),
        ({"status": {"active": 2, "ready": 1}}, "running", None),
        ({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, "ended", 0),
        ({"status": {"conditions": [{"type": "Failed", "status": "True"}]}}, "ended", None),
        ({"status": {"conditions": [{"type": "Failed", "status": "False"}], "ready": 1}}, "running", None),
        ({"metadata": {"deletionTimestamp": "now"}}, "running", None),
    ],
)
def test_a_job_of_kubernetes_is_one_of_our_states(
    job: dict[str, Any], state: str, status: int | None
) -> None:
    standing = standing_of_job(job)
    assert (standing.state, standing.exit_status) == (state, status)


@pytest.mark.parametrize(
    ("status", "state", "exit_status"),
    [
        ("PENDING", "queued", None),
        ("RECOVERING", "queued", None),
        ("ManagedJobStatus.RUNNING", "running", None),
        ("SUCCEEDED", "ended", 0),
        ("FAILED_NO_RESOURCE", "ended", None),
        ("CANCELLED", "ended", None),
    ],
)
def test_a_managed_job_of_skypilot_is_one_of_our_states(
    status: str, state: str, exit_status: int | None
) -> None:
    standing = standing_of_task({"status": status, "job_name": "x"})
    assert (standing.state, standing.exit_status, standing.cancelled) == (
        state,
        exit_status,
        status == "CANCELLED",
    )


SECRET = base64.b64encode(bytes(range(32))).decode()


@contextmanager
def receiver(
    answers: list[tuple[int, dict[str, Any]]],
) -> Iterator[tuple[str, list[tuple[str, dict[str, str], str]]]]:
    """A service that answers in turn; what it was sent, by method, headers and body."""
    sent: list[tuple[str, dict[str, str], str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            sent.append(
                (f"{self.command} {self.path}", {k.lower(): v for k, v in self.headers.items()}, body)
            )
            status, document = answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


def webhook(tmp_path: Path, url: str, **further: str) -> Webhook:
    (tmp_path / "secret").write_text(f"whsec_{SECRET}\n")
    table = {"kind": "webhook", "url": f"{url}/launches", "secret_file": str(tmp_path / "secret"), **further}
    return Webhook.model_validate(table)


def test_a_webhook_is_signed_and_may_be_sent_again(tmp_path: Path) -> None:
    given = work(tmp_path, built_in=False)
    with receiver([(503, {}), (202, {"id": "theirs-7"}), (409, {}), (422, {"why": "no"})]) as (url, sent):
        launcher = webhook(tmp_path, url)
        rendering = launcher.render(given)
        with pytest.raises(SchedulerAway, match="503"):
            launcher.submit(rendering, given.name)
        assert launcher.submit(rendering, given.name) == "theirs-7"
        assert launcher.submit(rendering, given.name) == given.name
        with pytest.raises(Refused, match="no"):
            launcher.submit(rendering, given.name)
    assert {headers["webhook-id"] for _, headers, _ in sent} == {given.name}
    for _, headers, body in sent:
        signed = f"{given.name}.{headers['webhook-timestamp']}.{body}".encode()
        expected = base64.b64encode(hmac.new(bytes(range(32)), signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
    assert json.loads(sent[0][2])["weights"] == {"books": 1.0}


def test_a_webhook_is_followed_where_it_was_posted_or_by_what_is_posted_back(tmp_path: Path) -> None:
    seen = Seen("mixwright-launch-1", "theirs-7", {"state": "running", "progress": {"done": 1, "total": 9}})
    running = webhook(tmp_path, "http://127.0.0.1:9").follow(seen)
    assert running is not None
    assert (running.state, running.progress) == ("running", {"done": 1, "total": 9})
    answers = [(200, {"state": "succeeded"}), (404, {}), (200, {"state": "done"}), (202, {})]
    with receiver(answers) as (url, sent):
        launcher = webhook(tmp_path, url, status_url=f"{url}/launches/{{name}}")
        ended = launcher.follow(seen)
        assert ended is not None
        assert (ended.state, ended.exit_status) == ("ended", 0)
        assert launcher.find(seen.name) is None
        with pytest.raises(SchedulerAway, match="'done' is no state"):
            launcher.follow(seen)
        launcher.cancel(seen)
    assert sent[0][0] == "GET /launches/mixwright-launch-1"
    assert json.loads(sent[-1][2])["event"] == "cancel"
