"""How the page answers: a template filled in, what was done, what has failed; and which forms are heard."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from jinja2 import Environment
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from coordinator.page.guard import COOKIE, FORM_KEY, is_browser, read_form
from coordinator.page.login import Login
from coordinator.report import html
from wire.errors import HidenseekError, StateError

TEMPLATES = Path(__file__).parent / "templates"
SAID = "hidenseek-said"  # a cookie: what was done a moment ago


@dataclass
class Answers:
    """What all answers have in common.

    Args:
        federation: whose page it is.
        login: who may see it.
        secure: it is served over HTTPS.

    Attributes:
        cookies: how every one is set.
    """

    federation: str
    login: Login
    secure: bool
    cookies: dict[str, Any] = field(init=False)
    _templates: Environment = field(init=False)

    def __post_init__(self) -> None:
        self.cookies = {"httponly": True, "samesite": "strict", "secure": self.secure}
        self._templates = html.environment(TEMPLATES)

    def render(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page made of a template; it says once what was done a moment ago."""
        cookie = request.cookies.get(COOKIE, "")
        said = unquote(request.cookies.get(SAID, ""))
        text = self._templates.get_template(template).render(
            federation=self.federation,
            form_key=self.login.form_key(cookie) if cookie else "",
            said=said,
            **values,
        )
        answer = HTMLResponse(text, status)
        if said:
            answer.delete_cookie(SAID, **self.cookies)
        return answer

    def said(self, request: Request, text: str, path: str) -> Response:
        """What was done: for programs as JSON; browsers go on to a page, which says so once."""
        if not is_browser(request):
            return JSONResponse({"said": text})
        answer = RedirectResponse(path, 303)
        answer.set_cookie(SAID, quote(text), max_age=60, **self.cookies)
        return answer

    async def checked_form(self, request: Request) -> dict[str, str]:
        """The fields of a form that one of our pages made, or of whoever sends the token itself.

        Raises:
            HTTPException: 403 if another site made it; as `read_form`.
        """
        fields = await read_form(request)
        ours = self.login.wrote(request.cookies.get(COOKIE, ""), fields.get(FORM_KEY, ""))
        if not ours and "authorization" not in request.headers:  # which the guard has looked at
            raise HTTPException(403, "this form is not from this page, or is too old: load the page again")
        return fields

    def failed(self, request: Request, error: Exception) -> Response:
        """What is said of an error, as an exception handler."""
        match error:
            case HTTPException():
                status, text = error.status_code, error.detail
            case StateError():
                status, text = 503, str(error)
            case HidenseekError():
                status, text = 400, str(error)
            case _:
                status, text = 500, "the page has failed; the run goes on"
        if not is_browser(request):
            return JSONResponse({"error": text}, status)
        with suppress(HidenseekError):
            return self.render(request, "error.html.j2", status=status, code=status, text=text)
        return Response(text, status)
