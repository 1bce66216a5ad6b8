"""Where a database is: a file of this machine, or a PostgreSQL server for several."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, urlencode

SCHEMES = ("postgresql://", "postgres://")
_SECRET = ("password", "sslpassword")


@dataclass(frozen=True)
class Server:
    """A database of a PostgreSQL server. As text it has no password in it.

    Args:
        url: as PostgreSQL's own programs read it, such as postgresql://USER@HOST/DATABASE. What it leaves out they
            look up, and so do we: PGPASSWORD, PGSSLMODE, ~/.pgpass and the like.

    Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
    """

    url: str = field(repr=False)

    def __str__(self) -> str:
        scheme, _, rest = self.url.partition("://")
        head, at, tail = rest.rpartition("@")  # in a password that is not quoted may be anything
        path, _, query = tail.partition("?")
        settings = [(name, value) for name, value in parse_qsl(query) if name not in _SECRET]
        shown = f"{scheme}://{re.split('[:/?#@]', head)[0]}{at}{path}"
        return f"{shown}?{urlencode(settings, safe='/')}" if settings else shown


Place: TypeAlias = Path | Server


def read_place(text: str) -> Place:
    """A server if it is a PostgreSQL address, else a path."""
    return Server(text) if text.startswith(SCHEMES) else Path(text)
