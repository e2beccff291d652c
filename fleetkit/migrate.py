"""Alembic, apart from `fleetkit.store`: loaded only where a database is not up to date (90 ms, 10 MiB)."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from fleetkit.errors import Unavailable


class Migrations:
    """A folder of migrations."""

    def __init__(self, folder: Path) -> None:
        self._config = Config()
        self._config.set_main_option("script_location", str(Path(__file__).parent / "alembic"))
        self._config.set_main_option("version_locations", str(folder))
        self._config.set_main_option("path_separator", "os")
        self._script = ScriptDirectory.from_config(self._config)

    def pending(self, revision: str | None, database: str) -> bool:
        """Whether something is to be done; raises Unavailable for a revision that this program does not know."""
        try:
            self._script.get_revision(revision or "base")
        except CommandError as error:
            raise Unavailable(
                f"database {database} was written by a newer version ({error}): "
                "update this program, or restore the backup beside it"
            ) from error
        return revision != self._script.get_current_head()

    def upgrade(self, connection: sa.Connection) -> None:
        """Run what is pending in the connection's transaction."""
        self._config.attributes["connection"] = connection
        command.upgrade(self._config, "head")
