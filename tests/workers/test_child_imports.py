"""What the process loads that trains: nothing of the web, whose memory every slot would pay for."""

import pytest

from workers.execution.child_handle import Child

WEB = {"fastapi", "starlette", "uvicorn", "celery", "jinja2", "service"}
OF_ARCHITECTURES = {"transformers"}
"""Seconds to import; only who trains an architecture of the library waits for it."""


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("proxy_run", "proxy_models.training.run_spec"),
        ("full_run", "proxy_models.training.run_spec"),
        ("solve", "store.question"),
    ],
)
def test_a_child_loads_no_web_framework_whatever_it_is_told_to_do(
    kind: str, part: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real child tells what it imports; the order is refused only when the kind's modules are there."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    child = Child()
    try:
        child.order(kind, [{"artifact_store": None}])
        while (answer := child.message(timeout=240.0)) is None:
            pass
    finally:
        child.kill()
    assert "failure" in answer
    imported = {
        line.rpartition("|")[2].strip() for line in capfd.readouterr().err.splitlines() if "|" in line
    }
    assert part in imported
    loaded = {name.partition(".")[0] for name in imported}
    assert not loaded & (WEB | OF_ARCHITECTURES)
    assert kind == "solve" or "sqlalchemy" not in loaded, "who trains knows no database"
