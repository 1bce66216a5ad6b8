"""Where to try to reach a broker: at the addresses it is known by, and then where its network says that it is."""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections.abc import Callable, Iterable, Sequence

from wire import mdns
from wire.mdns import Found

log = logging.getLogger("hidenseek")
ASK_AGAIN_S = 60.0
Node = tuple[str, int]  # host and port


class Routes:
    """The nodes of a broker, one of which is tried at a time.

    Args:
        nodes: those that it is known by.
        discover: ask the network too, once none of them has answered.
        certified: a certificate is shown, and there may be a port for that.
        look: asks it.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        discover: bool,
        certified: bool = False,
        look: Callable[[], Iterable[Found]] = mdns.look,
    ) -> None:
        self._known, self._discover, self._look = list(nodes), discover, look
        self._nodes, self._certified = self._known, certified
        self._at = random.randrange(len(nodes))  # so that a fleet shares itself out among a cluster's
        self._names: dict[Node, str] = {}  # of the nodes that are hearsay: what they say they are
        self._left, self._asked_s = len(nodes), float("-inf")
        self._last: ssl.SSLSocket | None = None

    @property
    def here(self) -> Node:
        """The one to try now."""
        return self._nodes[self._at]

    @property
    def is_hearsay(self) -> bool:
        """Whether that is one that the network has told of."""
        return self.here in self._names

    @property
    def several(self) -> bool:
        """Whether there is, or may be, another to try."""
        return len(self._nodes) > 1 or self._discover

    def advance(self, *, failed: bool) -> None:
        """Go on to the next.

        Args:
            failed: this one did not answer; once none has, the network is asked, for two seconds.
        """
        self._left -= failed
        if failed and self._last is not None:  # paho leaves open what fails in its handshake
            self._last.close()
            self._last = None
        if self._left <= 0 and self._discover and time.monotonic() - self._asked_s > ASK_AGAIN_S:
            self._ask()
        self._at = (self._at + 1) % len(self._nodes)

    def named(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """The context, which now holds certificates against the known host name also where the network said to go."""
        wrap = context.wrap_socket

        def wrap_socket(*arguments: object, **options: object) -> ssl.SSLSocket:
            name = self._names.get(self.here, options.get("server_hostname"))
            self._last = wrap(*arguments, **options | {"server_hostname": name})  # type: ignore[arg-type]
            return self._last

        context.wrap_socket = wrap_socket  # type: ignore[method-assign]
        return context

    def _ask(self) -> None:
        self._asked_s = time.monotonic()
        hosts = {host.lower() for host, _ in self._known}
        told = [one for one in self._look() if one.host.lower() in hosts]
        ports = [(one.certificates if self._certified else 0) or one.port for one in told]
        names = {(one.address, port): one.host for one, port in zip(told, ports, strict=True)}
        self._names = {node: name for node, name in names.items() if node not in self._known}
        for (address, port), name in self._names.items():
            log.info("this network says that %s is at %s:%d; trying that, its certificate decides", name, address, port)
        self._nodes = [*self._known, *self._names]
        self._at, self._left = len(self._known) - 1, len(self._nodes)
