"""PostgreSQL as a `Backend`, for several machines: psycopg, and what the same SQL needs to mean the same there.

Sources: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS,
https://www.psycopg.org/psycopg3/docs/
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import conninfo
from psycopg.errors import (
    DuplicateTable,
    InsufficientPrivilege,
    InterfaceError,
    InternalError,
    LockNotAvailable,
    OperationalError,
)
from psycopg.pq import TransactionStatus

from coordinator.backend import Cursor
from coordinator.place import Server
from coordinator.postgres_values import Number, Text, rows
from wire.errors import ConfigError, StateError

CLAIM_S = 5.0  # for the server to notice that the one before is gone
# A server that is gone is noticed within half a minute; what the address says otherwise goes before.
CONNECTION = {
    "connect_timeout": "10",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "fallback_application_name": "hidenseek",
}
# What was committed may be acknowledged: it has to be on disk. And nobody waits for ever.
SESSION = """
SET lock_timeout = '2s';
SET client_encoding = 'UTF8';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
"""
# As SQLite has them: texts ordered by their bytes. It does not enforce REFERENCES, nor do we here.
TYPES = {
    r"\bBLOB\b": "BYTEA",
    r"\bREAL\b": "DOUBLE PRECISION",
    r"\bINTEGER\b": "BIGINT",
    r"\bTEXT\b": 'TEXT COLLATE "C"',
    r"\) STRICT;": ");",
    r" REFERENCES run\b": "",
}
GONE = "Start again when the server answers: a run goes on where it stopped"


class PostgresServer:
    """A database of a server: the schema that is first in its search path.

    Args:
        server: its address.
        read_only: nothing can be written.

    Raises:
        ConfigError: if the address is none.
        StateError: if it cannot be reached, does not let us in, or is of another kind than ours.
    """

    row_id = "ctid"

    def __init__(self, server: Server, *, read_only: bool = False) -> None:
        self._server = server
        settings = CONNECTION | _read_url(server)
        try:
            self._db = psycopg.connect(**settings, autocommit=True, row_factory=rows)
        except psycopg.Error as error:
            raise StateError(
                f"cannot be reached ({_words(error)})",
                where=str(server),
                hint="Is the server up, and the address right?",
            ) from error
        self._db.adapters.register_loader("numeric", Number)
        self._db.adapters.register_dumper(str, Text)
        try:
            self._begin_session(read_only)
        except BaseException:
            self._db.close()
            raise

    def _begin_session(self, read_only: bool) -> None:
        encoding = self._db.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise StateError(
                f"texts are {encoding} in this database, and UTF8 is needed",
                where=str(self._server),
                hint="createdb --encoding UTF8 --template template0 NAME makes one",
            )
        with self._telling():
            self._db.execute(SESSION)
            if read_only:
                self._db.execute("SET default_transaction_read_only = on")
            (schema,) = self._db.execute("SELECT current_schema()", binary=True).fetchone() or (None,)
        if schema is None:
            raise StateError(
                "no schema of its search path is there", where=str(self._server), hint="CREATE SCHEMA makes one"
            )
        self._write_key, self._claim_key = (_key(role, schema) for role in ("write", "claim"))

    @property
    def in_transaction(self) -> bool:
        """See `Backend`."""
        return self._db.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def version(self) -> int:
        """See `Backend`."""
        # Not by to_regclass, which may remember that it was not there before somebody else made it.
        there = "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'hidenseek'"
        if self.execute(there).fetchone() is None:
            return 0
        return int(self.execute("SELECT version FROM hidenseek").fetchone()[0])

    def make(self, tables: str, version: int) -> None:
        """See `Backend`."""
        for pattern, ours in TYPES.items():
            tables = re.sub(pattern, ours, tables)
        with self._telling():
            self._db.execute(tables)
            self._db.execute("CREATE TABLE IF NOT EXISTS hidenseek (version BIGINT NOT NULL)")
            self._db.execute("DELETE FROM hidenseek")
        self.execute("INSERT INTO hidenseek VALUES (?)", (version,))

    def execute(self, sql: str, values: Sequence[object] = ()) -> Cursor:
        """See `Backend`."""
        with self._telling():
            return self._db.execute(_translated(sql), values, binary=True)

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> object:
        """See `Backend`."""
        with self._telling(), self._db.cursor() as cursor:
            cursor.executemany(_translated(sql), rows)
        return None

    def begin(self) -> None:
        """See `Backend`: a lock that all of us ask for stands for SQLite's one writer."""
        with self._telling():
            self._db.execute(f"BEGIN; SELECT pg_advisory_xact_lock({self._write_key})")

    def begin_reading(self) -> None:
        """See `Backend`."""
        with self._telling():
            self._db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    def commit(self) -> None:
        """See `Backend`."""
        with self._telling():
            done = self._db.execute("COMMIT").statusmessage
        if done != "COMMIT":  # of a transaction that has failed it says ROLLBACK, and that it went well
            raise StateError(f"nothing was committed ({done})", where=str(self._server), hint=GONE)

    def rollback(self) -> None:
        """See `Backend`; without a connection the server does it by itself."""
        if self.in_transaction:
            with self._telling():
                self._db.execute("ROLLBACK")

    def claim(self, who: str) -> None:
        """See `Backend`: a lock of this connection, which the server lifts when the connection is gone."""
        self.execute("SELECT set_config('application_name', ?, false)", (f"hidenseek {who}"[:63],))
        with self._telling():  # so it notices a machine that is gone, too
            self._db.execute(
                "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
            )
        until_s = time.monotonic() + CLAIM_S
        while not self.execute("SELECT pg_try_advisory_lock(?)", (self._claim_key,)).fetchone()[0]:
            if time.monotonic() > until_s:
                raise StateError(
                    f"another coordinator is at work on it: {self._holder()}",
                    where=str(self._server),
                    hint="Stop it first; where its machine is gone, the server notices within a minute",
                )
            time.sleep(0.25)

    def _holder(self) -> str:
        found = self.execute(
            "SELECT application_name, host(client_addr) FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND classid = ? AND objid = ?",
            (self._claim_key >> 32 & 0xFFFFFFFF, self._claim_key & 0xFFFFFFFF),
        ).fetchone()
        if not found:
            return "it has just ended"
        name, address = found
        return f"{name.removeprefix('hidenseek ') or 'it does not say who'}{f', from {address}' if address else ''}"

    def close(self) -> None:
        """See `Backend`."""
        self._db.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What a person can do something about is said in our words; a row that breaks a rule is not among it."""
        try:
            yield
        except LockNotAvailable as error:
            hint = "Another hidenseek writes to it; try again"
            raise StateError("cannot be written now", where=str(self._server), hint=hint) from error
        except (DuplicateTable, InsufficientPrivilege) as error:
            hint = "Give hidenseek a database of its own: createdb --owner USER NAME"
            raise StateError(f"no usable database ({_words(error)})", where=str(self._server), hint=hint) from error
        except (OperationalError, InterfaceError, InternalError) as error:
            if self._db.closed:
                what, hint = "the connection was lost", GONE
            elif (error.sqlstate or "").startswith("53"):
                what, hint = (
                    "the server has no room",
                    "Make room there, then start again: a run goes on where it stopped",
                )
            else:
                what, hint = "it does not do as asked", GONE
            raise StateError(f"{what} ({_words(error)})", where=str(self._server), hint=hint) from error


def measure(server: Server) -> tuple[int | None, None]:
    """Bytes of the database; None if the server does not answer, or how many are free there."""
    try:
        with closing(PostgresServer(server, read_only=True)) as db:
            return int(db.execute("SELECT pg_database_size(current_database())").fetchone()[0]), None
    except StateError:
        return None, None


@lru_cache(maxsize=256)
def _translated(sql: str) -> str:
    """SQL of ours has no `?` but for a value."""
    return sql.replace("%", "%%").replace("?", "%s")


def _read_url(server: Server) -> dict[str, Any]:
    """What an address says; of one that is none nothing is repeated, for it may be a part of the password.

    Raises:
        ConfigError: if it is none.
    """
    try:
        found = conninfo.conninfo_to_dict(server.url)
        if re.fullmatch(r"[\d,]*", str(found.get("port", ""))) and "@" not in str(found.get("dbname", "")):
            return found
    except psycopg.ProgrammingError:
        pass
    raise ConfigError(
        "no address that PostgreSQL reads, such as postgresql://USER@HOST/DATABASE",
        where=str(server),
        hint="In a password, / : @ # and % are %2F %3A %40 %23 %25; better, keep it in PGPASSWORD or ~/.pgpass",
    ) from None


def _key(role: str, schema: str) -> int:
    """Of a lock: 64 bits that other programs do not happen to use in the same database."""
    digest = hashlib.sha256(f"hidenseek\0{role}\0{schema}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
