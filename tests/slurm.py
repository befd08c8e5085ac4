"""A Slurm cluster of one node for the tests: real daemons, on ports and below a directory of their own."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
START_SECONDS = 60.0
_CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=1
ReturnToService=2
KillWait=5
MinJobAge=20
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def missing() -> str:
    """Which of Slurm's programs are not installed; empty where all are."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return ", ".join(name for name in PROGRAMS if shutil.which(name, path=path) is None)


class Cluster:
    """Its daemons are children of this process, to be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.configuration = directory / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        self.environment["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """All of it, until the node takes jobs."""
        for name in ("state", "spool", "munge"):
            (self.directory / name).mkdir(mode=0o700)
        key = self.directory / "munge" / "key"
        key.write_bytes(os.urandom(64))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        ports = dict(zip(("controller", "node"), free_ports(2), strict=True))
        self.configuration.write_text(
            _CONFIGURATION.format(host=host, user=getpass.getuser(), directory=self.directory, **ports)
        )
        munge = self.directory / "munge"
        self._run(
            *("munged", "--foreground", "--force", f"--key-file={key}", f"--seed-file={munge}/seed"),
            *(
                f"--socket={self.directory}/munge.socket",
                f"--pid-file={munge}/pid",
                f"--log-file={munge}/log",
            ),
        )
        self.start_controller("-c")
        self.start_node()
        self.wait_for_node()

    def start_controller(self, *options: str) -> None:
        """Slurm's controller."""
        self._run("slurmctld", "-D", *options)

    def start_node(self) -> None:
        """The node's daemon."""
        self._run("slurmd", "-D")

    def kill(self, name: str) -> None:
        """One daemon, by SIGKILL."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def wait_for_node(self) -> None:
        """Until it takes jobs."""
        give_up = time.monotonic() + START_SECONDS
        while self.ask("sinfo", "--noheader", "--format=%T") not in ("idle", "mixed", "allocated"):
            assert time.monotonic() < give_up, (self.directory / "slurmctld.log").read_text()[-2000:]
            Event().wait(0.2)

    def ask(self, *arguments: str) -> str:
        """What a command of Slurm's prints."""
        answer = subprocess.run(arguments, env=self.environment, capture_output=True, text=True, check=False)
        return answer.stdout.strip()

    def submitted(self) -> int:
        """How many jobs were ever handed to it: their ids are counted up from 1."""
        return int(self.ask("sbatch", "--parsable", "--hold", "--wrap=true")) - 1

    def stop(self) -> None:
        """Every job and every daemon."""
        if "slurmctld" in self.daemons:
            self.ask("scancel", "--full", f"--user={getpass.getuser()}")
            give_up = time.monotonic() + START_SECONDS
            while self.ask("squeue", "--noheader") and time.monotonic() < give_up:
                Event().wait(0.2)
        for name in ("slurmd", "slurmctld", "munged"):
            if (daemon := self.daemons.get(name)) is not None:
                daemon.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    daemon.wait(10)
                daemon.kill()
                daemon.wait()

    def _run(self, *command: str) -> None:
        with (self.directory / f"{command[0]}.out").open("ab") as output:
            self.daemons[command[0]] = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """One that runs; its directory's name is short, for it has sockets."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as directory:
        cluster = Cluster(Path(directory))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
