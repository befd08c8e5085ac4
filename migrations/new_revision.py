"""Write the next migration: ``python -m migrations.new_revision "add the noise column to tasks"``.

Compares the models with a scratch SQLite database at the newest revision. What it writes is a draft to be
read and corrected: a renamed column, for one, looks like one dropped and one added.
"""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.util import CommandError

from store.engine import Database
from store.schema import alembic_config, head, upgrade


def next_number() -> str:
    """The revision id after the newest one: ``0001``, ``0002``, ..."""
    return f"{int(head() or 0) + 1:04d}"


def write_revision(message: str) -> None:
    """Put the draft of a migration from the newest revision to the models into ``migrations/versions``."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'scratch.db'}"
        if head() is not None:
            upgrade(url)
        database = Database(url)
        with database.write() as session:
            config = alembic_config(session.connection())
            command.revision(config, message, autogenerate=True, rev_id=next_number())
        database.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('usage: python -m migrations.new_revision "what changes"')
    try:
        write_revision(sys.argv[1])
    except CommandError as error:
        sys.exit(str(error))
