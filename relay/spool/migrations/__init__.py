"""How one schema becomes the next (Alembic). `upgrade` is called at every start."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection


class NewerSchema(Exception):
    """The database has a migration that this version does not know."""


def upgrade(connection: Connection) -> None:
    """Brings the database of the connection to the newest schema, inside the transaction that is open."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise NewerSchema("it was made by a newer slip-relay") from error
