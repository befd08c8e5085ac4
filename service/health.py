"""``/healthz`` (the process answers) and ``/readyz`` (what it needs answers too). Neither wants a token."""

from fastapi import APIRouter, Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from service.dependencies import DatabaseDependency, SettingsDependency

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The web process is alive."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(response: Response, database: DatabaseDependency, settings: SettingsDependency) -> dict[str, str]:
    """Database and storage can be used; 503 naming what cannot."""
    checks = {
        "database": _answers(database),
        "storage": "ok" if settings.data_directory.is_dir() else "no data directory",
    }
    if any(state != "ok" for state in checks.values()):
        response.status_code = 503
    return checks


def _answers(database: DatabaseDependency) -> str:
    try:
        with database.read() as session:
            session.execute(text("select 1 from alembic_version"))
    except SQLAlchemyError as error:
        return type(error).__name__
    return "ok"
