"""Processes that start together upgrade once; all of them go on with the newest schema."""

import subprocess
import sys

from store.schema import current, head

PROCESSES = 4
# Ready when it has imported everything, so that all of them reach for the database together.
UPGRADE = """
import sys
from store.schema import upgrade
print("ready", flush=True)
sys.stdin.readline()
upgrade(sys.argv[1])
"""


def test_processes_that_start_together_all_find_the_newest_schema(empty_database: str) -> None:
    command = [sys.executable, "-c", UPGRADE, empty_database]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * PROCESSES
    assert current(empty_database) == head()
