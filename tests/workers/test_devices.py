"""Idle slots lend their devices; who holds what is known to the kernel alone, so nobody's death is in the way."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from proxy_models.evaluation.evaluator_handle import Evaluator
from proxy_models.evaluation.lending import Lending, Loan
from proxy_models.training.run import train_run
from proxy_models.training.run_spec import RunSpec
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import WorkerRow
from tests.proxy_models.conftest import pool, spec_json  # noqa: F401 - fixtures of another package
from tests.workers.test_faults import add_tokenizer_job, job_with
from workers import supervisor
from workers.claims.registry import ACTIVE, PAUSED
from workers.claims.slots import Slot
from workers.execution.child import _Order
from workers.execution.devices import Neighbours, OwnDevice
from workers.jobs.training_run import execute_run
from workers.jobs.wave import execute_together
from workers.supervisor import supervise

Until = Callable[..., None]
NEVER = threading.Event()
HOLDER = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from workers.execution.devices import Neighbours, OwnDevice\n"
    "from workers.claims.slots import Slot\n"
    "held = {held}\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)
OFFERS = "OwnDevice(Path(sys.argv[1]), Slot('cpu-1', 'cpu', None)); held.offer()"
BORROWS = "Neighbours(Path(sys.argv[1]), 'cpu').borrow()"


def own(directory: Path, name: str = "cpu-1", device: str = "cpu") -> OwnDevice:
    return OwnDevice(directory, Slot(name, device, None))


def process(held: str, directory: Path) -> "subprocess.Popen[bytes]":
    """Another process that offers or borrows, once it does."""
    command = [sys.executable, "-c", HOLDER.format(held=held), str(directory)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stdout.readline() == b"held\n"
    return started


def kill(started: "subprocess.Popen[bytes]") -> None:
    started.kill()
    started.communicate()


def test_an_idle_slot_lends_its_device_to_one_at_a_time_and_gets_it_back_when_it_wants(
    tmp_path: Path,
) -> None:
    device, neighbours = own(tmp_path), Neighbours(tmp_path, "cpu")
    assert neighbours.borrow() is None, "nothing was offered"
    device.offer()
    loan = neighbours.borrow()
    assert loan is not None
    assert (loan.device, loan.wanted()) == ("cpu", False)
    assert neighbours.borrow() is None, "it is lent already"
    loan.close()
    loan.close()
    again = Neighbours(tmp_path, "cpu").borrow()
    assert again is not None
    device.withdraw()
    assert again.wanted()
    again.close()
    assert neighbours.borrow() is None, "its slot is at work"


def test_accelerators_are_lent_to_each_other_and_processors_to_processors(tmp_path: Path) -> None:
    own(tmp_path, "cpu-0", "cpu").offer()
    first, second = own(tmp_path, "cuda:0", "cuda:0"), own(tmp_path, "cuda:1", "cuda:1")
    for device in (first, second):
        device.offer()
    for trained_on in ("cuda", "cuda:0"):  # two names of one device
        loan = Neighbours(tmp_path, trained_on).borrow()
        assert loan is not None
        assert loan.device == "cuda:1"
        loan.close()
    assert Neighbours(tmp_path, "mps").borrow() is None
    on_processor = Neighbours(tmp_path, "cpu").borrow()
    assert on_processor is not None
    assert on_processor.device == "cpu"


def test_no_name_leads_out_of_the_directory_or_is_taken_for_another(tmp_path: Path) -> None:
    for name in ("../../a/b", "..", "a@cuda:1", "%2e%2e"):
        device = own(tmp_path / "devices", name)
        device.offer()
        loan = Neighbours(tmp_path / "devices", "cpu").borrow()
        assert loan is not None
        assert loan.device == "cpu"
        loan.close()
        device.withdraw()
    assert [path.name for path in tmp_path.iterdir()] == ["devices"]
    (here,) = (tmp_path / "devices").iterdir()
    assert all(path.is_file() for path in here.iterdir())
    assert len(list(here.iterdir())) == 2 * 4


def test_the_device_of_a_killed_worker_is_not_lent_and_what_was_lent_of_it_is_given_back(
    tmp_path: Path,
) -> None:
    worker = process(OFFERS, tmp_path)
    loan = Neighbours(tmp_path, "cpu").borrow()
    assert loan is not None
    assert not loan.wanted()
    kill(worker)
    assert loan.wanted()
    loan.close()
    assert Neighbours(tmp_path, "cpu").borrow() is None


def test_a_killed_borrower_keeps_nothing(tmp_path: Path) -> None:
    own(tmp_path).offer()
    borrower = process(BORROWS, tmp_path)
    assert Neighbours(tmp_path, "cpu").borrow() is None
    kill(borrower)
    assert Neighbours(tmp_path, "cpu").borrow() is not None


def test_a_processor_begins_its_order_at_once_and_an_accelerator_when_it_has_its_memory_back(
    tmp_path: Path, until: Until
) -> None:
    processor = own(tmp_path)
    processor.offer()
    assert Neighbours(tmp_path, "cpu").borrow() is not None
    processor.take_back(NEVER, 3600.0)
    accelerator = own(tmp_path, "cuda:1", "cuda:1")
    accelerator.offer()
    loan = Neighbours(tmp_path, "cuda:0").borrow()
    assert loan is not None
    order = threading.Thread(target=accelerator.take_back, args=(NEVER, 3600.0))
    order.start()
    until(loan.wanted, what="the slot wants its device")
    assert order.is_alive(), "it did not wait for the loan to end"
    loan.close()
    order.join(timeout=60)
    assert not order.is_alive()
    accelerator.offer()
    kept = Neighbours(tmp_path, "cuda:0").borrow()
    assert kept is not None
    accelerator.take_back(NEVER, 0.0)  # it goes on beside who does not give it back


def test_a_supervisor_lends_what_is_idle_and_not_what_is_at_work_or_paused(
    sqlite: Database, tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        data_directory=tmp_path, data_roots=str(tmp_path), slots=2, heartbeat_seconds=0.05, poll_seconds=0.02
    )
    monkeypatch.setattr(supervisor, "BEAT_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "TICK_SECONDS", 0.02)
    stopping = threading.Event()
    thread = threading.Thread(target=supervise, args=(settings, stopping))
    thread.start()

    def lent() -> int:
        loans = []
        while (loan := Neighbours(settings.devices, "cpu").borrow()) is not None:
            loans.append(loan)
        for loan in loans:
            loan.close()
        return len(loans)

    def set_states(state: str) -> None:
        with sqlite.write() as session:
            session.execute(update(WorkerRow).values(state=state))

    try:
        until(lambda: lent() == 2, what="two idle devices")
        os.mkfifo(tmp_path / "text.txt")
        job_id = add_tokenizer_job(sqlite, tmp_path / "text.txt")  # under way until something ends it
        until(lambda: job_with(sqlite, job_id).state == jobs.RUNNING, what="a slot at work")
        assert lent() == 1
        set_states(PAUSED)
        until(lambda: lent() == 0, what="no device of a paused slot")
        set_states(ACTIVE)
        until(lambda: lent() >= 1, what="the device of a slot that is active again")
    finally:
        stopping.set()
        thread.join()
    assert lent() == 0


class Desk:
    """Where a test's runs tell what becomes of them (`workers.jobs.Report` and `Office`)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.results: dict[int, dict[str, Any]] = {}

    def __call__(self, progress: dict[str, Any], /) -> None:
        pass

    def progress(self, member: int, progress: dict[str, Any]) -> None:
        pass

    def succeeded(self, member: int, result: dict[str, Any]) -> None:
        self.results[member] = result

    def failed(self, member: int, error: Exception) -> None:
        raise error

    def cancelled(self, member: int) -> bool:
        return False

    def stopping(self) -> bool:
        return False

    def lending(self, device: str) -> Lending:
        return Lending(Neighbours(self.directory, device), 0.0)  # however little it is worth


def test_runs_are_evaluated_on_the_device_of_an_idle_slot(
    spec_json: dict,  # noqa: F811 - the imported fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec_json["training"]["tokens"] = 15_000
    expected = train_run(RunSpec.from_dict({**spec_json, "directory": str(tmp_path / "alone")}))
    started: list[Loan | None] = []
    original = Evaluator.__init__

    def begun(self: Evaluator, *order: Any) -> None:
        started.append(Neighbours(tmp_path / "devices", "cpu").borrow())
        original(self, *order)

    monkeypatch.setattr(Evaluator, "__init__", begun)
    own(tmp_path / "devices").offer()
    desk = Desk(tmp_path / "devices")
    result = execute_run(dict(spec_json), desk)
    assert result["final"] == expected.final
    together = [{**spec_json, "directory": str(tmp_path / f"wave-{number}")} for number in range(2)]
    execute_together(together, "one-by-one", desk)
    assert [desk.results[member]["final"] for member in range(2)] == [expected.final] * 2
    assert started == [None, None], "while it was lent it was lent to another"
    assert Neighbours(tmp_path / "devices", "cpu").borrow() is not None, "it was not given back"


def test_a_child_borrows_where_its_order_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Lending] = []
    monkeypatch.setattr(
        "workers.jobs.proxy_run.execute", lambda _, report: seen.append(report.lending("cpu")) or {}
    )
    own(tmp_path).offer()

    class Answers:
        def write(self, message: dict[str, Any]) -> None:
            assert "result" in message, message

    for around in ({"devices": str(tmp_path)}, {}):
        order = {"order": 1, "kind": jobs.PROXY_RUN, "specs": [dict(around)], "backend": None}
        _Order(order, Answers(), None).serve()  # type: ignore[arg-type]
    loan = seen[0].lender.borrow()
    assert loan is not None
    loan.close()
    assert seen[1].lender.borrow() is None
