"""The database's tables, and opening a file that has them: ours, of this version, or new."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from stoker.errors import Broken, NodeError, StorageFull, Unsupported

APPLICATION = 0x53544F4B  # "STOK": tells our files from other people's
SCHEMA = 1
LOCK_WAIT_S = 5.0  # somebody looks with the sqlite3 program

METADATA = sa.MetaData()
PAGES = sa.Table(
    "pages",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("first", sa.Text, nullable=False),
    sa.Column("last", sa.Text, nullable=False, index=True),
    sa.Column("functions", sa.Text, nullable=False),
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("page", sa.LargeBinary, nullable=False),
)
FUNCTIONS = sa.Table(
    "functions",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("record", sa.Text, nullable=False),
)


def connect(path: Path) -> sa.Connection:
    """The one connection to the file, every statement its own transaction. Belongs to this thread.

    Raises `Unsupported` for a file of a newer Stoker, `Broken` for one that is not ours or not whole.
    """
    _make_private(path)
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.StaticPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"timeout": LOCK_WAIT_S},
    )
    try:
        with translated(path):
            connection = engine.connect()
            _prepare(connection, path)
    except NodeError:
        engine.dispose()
        raise
    return connection


def _make_private(path: Path) -> None:
    """Nobody else reads what functions printed. SQLite gives its other files the mode of this one."""
    with contextlib.suppress(OSError):  # said better by SQLite
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _prepare(connection: sa.Connection, path: Path) -> None:
    said = connection.exec_driver_sql
    said("PRAGMA journal_mode = WAL")
    said("PRAGMA synchronous = NORMAL")
    said("BEGIN IMMEDIATE")
    _check(connection, path)
    METADATA.create_all(connection)
    said(f"PRAGMA application_id = {APPLICATION}")
    said(f"PRAGMA user_version = {SCHEMA}")
    said("COMMIT")


def _check(connection: sa.Connection, path: Path) -> None:
    application = pragma(connection, "application_id")
    version = pragma(connection, "user_version")
    is_new = connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one() == 0
    if application != APPLICATION and not is_new:
        raise Broken(f"{path} is a database of another program; move it away, or choose another home")
    if version > SCHEMA:
        raise Unsupported(
            f"{path} was written by a newer Stoker (its schema is {version}, this one knows {SCHEMA}); "
            "update Stoker, or move the file away to start with empty records"
        )


def pragma(connection: sa.Connection, name: str) -> int:
    value: int = connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
    return value


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns the library's errors into ours, a broken constraint apart; this is the room's edge."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise  # the statement's own business
    except sa.exc.DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise Broken(
                f"{path} is damaged ({error.orig}); stop the node and move the file away to start with "
                "empty records, or restore it from a backup"
            ) from error
        if code == sqlite3.SQLITE_FULL:
            raise StorageFull(f"no space left for {path}; make room, or lower record_keep") from error
        raise Broken(f"{path}: {error.orig}") from error
