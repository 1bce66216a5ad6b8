"""Who may see the page: whoever has the token. Browsers get a cookie for it. No network here.

A cookie is the time of its end and a MAC of that under the token: it outlives the coordinator's process, and a new
token ends all of them. Forms carry a MAC of the cookie, which no other site can know.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from coordinator.brokers.process import write_private
from wire.errors import ConfigError

TOKEN_BYTES = 24
LEAST_CHARACTERS = 16


def read_token(path: Path) -> str:
    """The token in the first line of a file, which is made with mode 0600 if it is missing.

    Raises:
        ConfigError: if it cannot be read, or can be guessed.
        StateError: if it cannot be written.
    """
    try:
        token = (path.read_text(encoding="utf-8").splitlines() or [""])[0].strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        write_private(path, token + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the page's token cannot be read ({error})", where=str(path)) from error
    if len(token) < LEAST_CHARACTERS:
        raise ConfigError(
            f"the page's token has {len(token)} characters, at least {LEAST_CHARACTERS} expected",
            where=str(path),
            hint="Remove the file: a new one is made",
        )
    return token


@dataclass
class Login:
    """Checks tokens, cookies and forms.

    Args:
        token: what lets in.
        now: seconds since 1970.
    """

    good_for_s: ClassVar[float] = 7 * 86400.0
    wrong: ClassVar[int] = 5  # tokens from one address
    within_s: ClassVar[float] = 60.0
    addresses: ClassVar[int] = 10_000  # that are remembered; the oldest is forgotten

    token: str
    now: Callable[[], float] = time.time
    _wrong: dict[str, deque[float]] = field(default_factory=dict)

    def wait_s(self, address: str) -> float:
        """For how long no token from this address is looked at, after too many wrong ones."""
        times = self._wrong.get(address)
        if times is None or len(times) < self.wrong:
            return 0.0
        return max(times[0] + self.within_s - self.now(), 0.0)

    def admits(self, token: str, address: str) -> bool:
        """Whether this is the token; a wrong one is remembered for its address. `wait_s` is to be asked first."""
        if hmac.compare_digest(token.encode(), self.token.encode()):
            self._wrong.pop(address, None)
            return True
        if address not in self._wrong and len(self._wrong) >= self.addresses:
            del self._wrong[next(iter(self._wrong))]
        self._wrong.setdefault(address, deque(maxlen=self.wrong)).append(self.now())
        return False

    def cookie(self) -> str:
        """A new one."""
        end = f"{self.now() + self.good_for_s:.0f}"
        return f"{end}.{self._mac('cookie', end)}"

    def knows(self, cookie: str) -> bool:
        """Whether a cookie is one of ours, and still good."""
        end, _, mac = cookie.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac("cookie", end).encode()):
            return False
        return self.now() < float(end)

    def form_key(self, cookie: str) -> str:
        """What a form has to carry that is sent with this cookie."""
        return self._mac("form", cookie)

    def wrote(self, cookie: str, form_key: str) -> bool:
        """Whether a form comes from a page that was made for this cookie."""
        return hmac.compare_digest(form_key.encode(), self.form_key(cookie).encode())

    def _mac(self, what: str, of: str) -> str:
        return hmac.digest(self.token.encode(), f"{what}\0{of}".encode(), "sha256").hex()
