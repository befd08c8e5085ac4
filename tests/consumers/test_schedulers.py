"""What is rendered for a scheduler, read by its own parser, in an environment of its own."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from store.launchers.base import Work
from store.launchers.kubernetes import Kubernetes
from store.launchers.pool import Array
from store.launchers.skypilot import SkyPilot
from tests.consumers.conftest import python_of

pytestmark = pytest.mark.consumer
VOLUMES = [
    {"mount": "/srv", "source": {"persistentVolumeClaim": {"claimName": "data"}}},
    {"mount": "/dev/shm", "source": {"emptyDir": {"medium": "Memory"}}},
]
TABLES: list[dict[str, Any]] = [
    {},
    {"nodes": 4, "processes": 8, "device": "cuda"},
    {"command": ("/bin/train", "{name}"), "variables": {"WANDB_MODE": "offline"}},
]


def rendered(launcher: Kubernetes | SkyPilot, directory: Path) -> Path:
    """The file that the scheduler reads."""
    work = Work(
        launch_id="launch_01931f0c2b7a4e1f6c0d2a98",
        number=1,
        directory=directory / "launch",
        values={"name": "one"},
        mixture={},
        run_directory=directory / "run",
        order=None if launcher.is_program else {"run": {}},
    )
    (content,) = (text for path, text in launcher.render(work).files.items() if path.endswith(".yaml"))
    file = directory / "rendered.yaml"
    file.write_text(content)
    return file


def run(consumer: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [python_of(consumer), *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.parametrize("table", TABLES, ids=["one", "several", "program"])
@pytest.mark.parametrize(
    "further", [{}, {"queue": "team", "requests": {"cpu": "8"}, "pod": {"hostIPC": True}}]
)
def test_kubernetes_knows_every_field_of_a_manifest(
    tmp_path: Path, table: dict[str, Any], further: dict[str, Any]
) -> None:
    launcher = Kubernetes.model_validate(
        {"kind": "kubernetes", "image": "registry/x:1", "volumes": VOLUMES, **table, **further}
    )
    run("kubernetes", "-m", "kubernetes_validate", "--strict", str(rendered(launcher, tmp_path)))


@pytest.mark.parametrize("further", [{}, {"queue": "team"}, {"processes": 8, "device": "cuda"}])
def test_kubernetes_knows_every_field_of_an_array_of_workers(tmp_path: Path, further: dict[str, Any]) -> None:
    launcher = Kubernetes.model_validate(
        {"kind": "kubernetes", "image": "registry/x:1", "volumes": VOLUMES, "workers": 4, **further}
    )
    array = Array("mixwright-workers-0a1b2c3d4e5f", "mixwright-workers-0a1b2c3d4e5f-01234567", tmp_path, 3)
    manifest = tmp_path / "job.yaml"
    manifest.write_text(launcher.array(array).files[str(manifest)])
    run("kubernetes", "-m", "kubernetes_validate", "--strict", str(manifest))
    spec = yaml.safe_load(manifest.read_text())["spec"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (3, 3, "Indexed")
    (container,) = spec["template"]["spec"]["containers"]
    gpus = container["resources"]["limits"].get("nvidia.com/gpu")
    assert gpus == (str(further["processes"]) if "device" in further else None)


@pytest.mark.parametrize("table", TABLES, ids=["one", "several", "program"])
def test_skypilot_reads_a_task(tmp_path: Path, table: dict[str, Any]) -> None:
    mounts = {"/srv": {"source": "s3://bucket/mixwright", "mode": "MOUNT"}}
    resources = {"accelerators": "H100:8", "use_spot": True}
    launcher = SkyPilot.model_validate(
        {"kind": "skypilot", "resources": resources, "file_mounts": mounts, "setup": "true", **table}
    )
    reads = (
        "import sys, sky; task = sky.Task.from_yaml(sys.argv[1]); "
        f"assert task.num_nodes == {table.get('nodes', 1)} and task.name.startswith('mixwright-'), task"
    )
    run("skypilot", "-c", reads, str(rendered(launcher, tmp_path)))
