"""In front of every request: who may come in, and what browsers may do with the answer."""

from __future__ import annotations

import math
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.page.invites import JOIN
from coordinator.page.login import Login

COOKIE = "hidenseek-page"
FORM_KEY = "form_key"
LARGEST_FORM_BYTES = 8192
OPEN = ("/login", "/static/", JOIN)  # for whoever has no token, or another one
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

# The page for phones computes in a worker, with WebAssembly, and talks to brokers.
JOIN_HEADERS = HEADERS | {
    "content-security-policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self'; img-src 'self'; manifest-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-cache",
}


class Guard:
    """Lets those in who have the token or its cookie, and gives every answer its headers.

    Args:
        app: what is guarded.
        login: who knows the token.
    """

    def __init__(self, app: ASGIApp, login: Login) -> None:
        self._app, self._login = app, login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        wanted = JOIN_HEADERS if scope["path"].startswith(JOIN) else HEADERS

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(wanted)
            await send(message)

        refusal = self._refusal(HTTPConnection(scope))
        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, request: HTTPConnection) -> Response | None:
        path = request.url.path
        if path.startswith(OPEN):
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            address = address_of(request)
            wait_s = self._login.wait_s(address)
            if wait_s:
                return too_many(wait_s)
            if self._login.admits(token.strip(), address):
                return None
            return PlainTextResponse("wrong token\n", 401, {"www-authenticate": "Bearer"})
        if self._login.knows(request.cookies.get(COOKIE, "")):
            return None
        if is_browser(request):
            return RedirectResponse("/login", 303)
        return PlainTextResponse("log in first, or send the token as a bearer\n", 401, {"www-authenticate": "Bearer"})


def is_browser(request: HTTPConnection) -> bool:
    """Whether a person is to read the answer; programs get JSON."""
    return "text/html" in request.headers.get("accept", "")


def address_of(request: HTTPConnection) -> str:
    """Whoever asks, as far as the network knows."""
    return request.client.host if request.client else ""


def too_many(wait_s: float) -> PlainTextResponse:
    """The answer to too many wrong tokens."""
    seconds = math.ceil(wait_s)
    return PlainTextResponse(f"too many wrong tokens; try again in {seconds} s\n", 429, {"retry-after": str(seconds)})


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        HTTPException: 413 if it is too large, 400 if it is none.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM_BYTES:
            raise HTTPException(413, "this form is too large")
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode(), max_num_fields=40).items()}
    except ValueError:
        raise HTTPException(400, "this is no form") from None
