"""A Slurm cluster for the tests: real daemons, one node or several of one machine, in a directory of their own."""

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
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
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
{nodes}
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def missing() -> str:
    """Which of Slurm's programs are not installed; empty where all are."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return ", ".join(name for name in PROGRAMS if shutil.which(name, path=path) is None)


class Cluster:
    """Its daemons are children of this process, to be killed and started again."""

    def __init__(self, directory: Path, nodes: int = 1) -> None:
        self.directory, self.nodes = directory, nodes
        self.configuration = directory / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        self.environment["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        self.daemons: dict[str, list[subprocess.Popen[bytes]]] = {}

    def start(self) -> None:
        """All of it, until the node takes jobs."""
        for name in ("state", "munge", *(f"spool-{node}" for node in self.names())):
            (self.directory / name).mkdir(mode=0o700)
        key = self.directory / "munge" / "key"
        key.write_bytes(os.urandom(64))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        controller, *ports = free_ports(1 + self.nodes)
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=2000 State=UNKNOWN"
            for name, port in zip(self.names(), ports, strict=True)
        )
        self.configuration.write_text(
            _CONFIGURATION.format(
                host=host,
                user=getpass.getuser(),
                directory=self.directory,
                controller=controller,
                nodes=nodes,
            )
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

    def names(self) -> list[str]:
        """Of the nodes: each is found by its name, which is an address of this machine."""
        return [f"127.0.0.{number + 1}" for number in range(self.nodes)]

    def start_controller(self, *options: str) -> None:
        """Slurm's controller."""
        self._run("slurmctld", "-D", *options)

    def start_node(self) -> None:
        """The daemon of each node."""
        for name in self.names():
            self._run("slurmd", "-D", "-N", name)

    def kill(self, name: str) -> None:
        """The daemons of a name, by SIGKILL."""
        for daemon in self.daemons.pop(name):
            daemon.kill()
            daemon.wait()

    def wait_for_node(self) -> None:
        """Until every node takes jobs."""
        give_up = time.monotonic() + START_SECONDS
        ready = {"idle", "mixed", "allocated"}
        while not set(self.ask("sinfo", "--noheader", "--format=%T").split()) <= ready:
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
            for daemon in self.daemons.get(name, []):
                daemon.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    daemon.wait(10)
                daemon.kill()
                daemon.wait()

    def _run(self, *command: str) -> None:
        with (self.directory / f"{command[0]}.out").open("ab") as output:
            daemon = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        self.daemons.setdefault(command[0], []).append(daemon)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running_cluster(nodes: int = 1) -> Iterator[Cluster]:
    """One that runs; its directory's name is short, for it has sockets."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as directory:
        cluster = Cluster(Path(directory), nodes)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
