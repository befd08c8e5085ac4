"""What endpoints are given: the database, the settings, and the headers they all set."""

from typing import Annotated

from fastapi import Depends, Query, Request

from store.engine import Database
from store.settings import Settings


# Coroutines, though they wait for nothing: FastAPI calls a plain function in a thread, which costs more than a query.
async def _database(request: Request) -> Database:
    return request.app.state.database


async def _settings(request: Request) -> Settings:
    return request.app.state.settings


DatabaseDependency = Annotated[Database, Depends(_database)]
SettingsDependency = Annotated[Settings, Depends(_settings)]

DryRun = Annotated[bool, Query(description="Answer what would be, and store nothing.")]

RETRY_AFTER_SECONDS = "1"
