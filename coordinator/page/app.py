"""The page's addresses, and what is answered there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from coordinator.fleet_actions import TO_RUNS
from coordinator.page import charts
from coordinator.page.actions import NAMES, STOP, Actions
from coordinator.page.answers import Answers
from coordinator.page.feed import Feed
from coordinator.page.guard import COOKIE, FORM_KEY, Guard, address_of, is_browser, read_form, too_many
from coordinator.page.history import History
from coordinator.page.invites import JOIN, Inviter, phone_page
from coordinator.page.login import Login
from coordinator.page.runner import Runner
from coordinator.page.snapshot import Source
from coordinator.report import page as report
from wire import signing
from wire.errors import ConfigError, HidenseekError, StateError

FOLDER = Path(__file__).parent
REPORT_CSS = Path(report.__file__).with_name("page.css")
MOST_LISTED = 50  # rounds in the table of a device


@dataclass
class Page:
    """All that is shown of a run.

    Args:
        source: of what is shown.
        login: who may see it.
        secure: it is served over HTTPS.
    """

    source: Source
    login: Login
    secure: bool = False
    feed: Feed = field(init=False)
    history: History = field(init=False)
    _actions: Actions = field(init=False)
    _inviter: Inviter = field(init=False)
    _runner: Runner = field(init=False)
    _answers: Answers = field(init=False)

    def __post_init__(self) -> None:
        self.feed, self.history = Feed(self.source), History(self.source)
        self._actions, self._inviter = Actions(self.source), Inviter(self.source)
        self._runner = Runner(self.source)
        self._answers = Answers(self.source.name, self.login, self.secure)

    def show(self, source: Source) -> None:
        """Show another run from now on."""
        self.source, self.feed.source = source, source
        self.history, self._actions, self._inviter = History(source), Actions(source), Inviter(source)
        self._runner = Runner(source)
        self._answers.federation = source.name

    def app(self) -> Starlette:
        """The page as an ASGI application."""
        phones = phone_page()
        return Starlette(
            routes=[
                Route("/", self._fleet),
                Route("/charts", self._charts),
                Route("/events", self._events),
                Route("/api/fleet", self._api_fleet),
                Route("/devices/{name}", self._device),
                Route("/devices/{name}/{action}", self._do_to_device, methods=["POST"]),
                Route("/run", self._show_run),
                Route("/run/change", self._change_run, methods=["POST"]),
                Route("/run/start", self._start_run, methods=["POST"]),
                Route("/run/{action}", self._do_to_run, methods=["POST"]),
                Route("/invite", self._show_invite),
                Route("/invite", self._invite, methods=["POST"]),
                _packed(JOIN, StaticFiles(directory=phones, html=True)) if phones else Route(JOIN, self._not_built),
                Route("/login", self._show_login),
                Route("/login", self._log_in, methods=["POST"]),
                Route("/logout", self._log_out, methods=["POST"]),
                Route("/static/report.css", self._report_css),
                _packed("/static", StaticFiles(directory=FOLDER / "static")),
            ],
            middleware=[Middleware(Guard, login=self.login)],
            exception_handlers={
                HTTPException: self._answers.failed,
                HidenseekError: self._answers.failed,
                500: self._answers.failed,
            },
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.feed.run)
            yield
            tasks.cancel_scope.cancel()

    # What is shown. Functions without `async` run in threads of their own.

    def _fleet(self, request: Request) -> Response:
        return self._answers.render(
            request,
            "fleet.html.j2",
            run=self.source.take().run,
            stays=self.source.extent.stays,
            charts=self._run_charts(),
        )

    def _charts(self, request: Request) -> Response:
        return self._answers.render(request, "charts.html.j2", charts=self._run_charts())

    def _run_charts(self) -> list[tuple[str, list[Markup]]]:
        return charts.of_run(self.history.rounds(), self.history.ticket())

    def _device(self, request: Request) -> Response:
        name = request.path_params["name"]
        row = self.source.take().devices.get(name)
        if row is None:
            raise HTTPException(404, f"no device is called '{name}' here")
        history = self.history.device(name)
        known = history.introduced
        return self._answers.render(
            request,
            "device.html.j2",
            name=name,
            state=row[0],
            revoked=row[0] == "revoked",
            row=row,
            known=known,
            key=signing.fingerprint(known["key"]) if known else None,
            rounds=history.rounds[: -MOST_LISTED - 1 : -1],
            total=len(history.rounds),
            total_bytes=sum(one["payload_bytes"] for one in history.rounds),
            charts=charts.of_device(name, history.rounds),
            card=self.source.cards().get(name),
        )

    def _api_fleet(self, _request: Request) -> Response:
        found = self.source.take()
        return JSONResponse({"run": vars(found.run), "devices": found.devices})

    async def _events(self, _request: Request) -> Response:
        if self.feed.full:
            raise HTTPException(503, f"{self.feed.LISTENERS} browsers are listening already")
        return StreamingResponse(self.feed.events(), media_type="text/event-stream")

    def _report_css(self, _request: Request) -> Response:
        return Response(REPORT_CSS.read_bytes(), media_type="text/css")

    # What is done.

    async def _do_to_device(self, request: Request) -> Response:
        name, action = request.path_params["name"], request.path_params["action"]
        if action not in NAMES:
            raise HTTPException(404, f"nothing is called '{action}' here")
        await self._answers.checked_form(request)
        said = await run_in_threadpool(self._actions.to_device, action, name)
        return self._answers.said(request, said, "/" if action == "forget" else f"/devices/{name}")

    async def _do_to_run(self, request: Request) -> Response:
        action = request.path_params["action"]
        if action not in (*TO_RUNS, STOP):
            raise HTTPException(404, f"nothing is called '{action}' here")
        await self._answers.checked_form(request)
        return self._answers.said(request, await run_in_threadpool(self._actions.to_run, action), "/")

    def _show_run(self, request: Request) -> Response:
        return self._render_run(request)

    async def _change_run(self, request: Request) -> Response:
        return await self._order(request, self._runner.change)

    async def _start_run(self, request: Request) -> Response:
        return await self._order(request, self._runner.start)

    async def _order(self, request: Request, order: Callable[[Mapping[str, str]], str]) -> Response:
        texts = await self._answers.checked_form(request)
        texts.pop(FORM_KEY, None)
        try:
            return self._answers.said(request, await run_in_threadpool(order, texts), "/")
        except (ConfigError, StateError) as error:  # with what was filled in, to be put right
            if not is_browser(request):
                raise
            return await run_in_threadpool(self._render_run, request, texts, error)

    def _render_run(
        self, request: Request, texts: Mapping[str, str] | None = None, wrong: HidenseekError | None = None
    ) -> Response:
        run = self.source.take().run
        return self._answers.render(
            request,
            "run.html.j2",
            status=400 if wrong else 200,
            run=run,
            form=self._runner.form(run, texts, wrong),
            extent=self.source.extent,
            settings=_flat(json.loads(self.history.settings())),
            ticket=self.history.ticket(),
        )

    def _show_invite(self, request: Request) -> Response:
        return self._render_invite(request, self._inviter.suggestion(), str(request.base_url).rstrip("/"))

    async def _invite(self, request: Request) -> Response:
        fields = await self._answers.checked_form(request)
        device, address = fields.get("device", ""), fields.get("address", "") or str(request.base_url)
        try:
            made = await run_in_threadpool(self._inviter.invite, device, address)
        except ConfigError as error:
            if not is_browser(request):
                raise
            return self._render_invite(request, device, address, status=400, wrong=str(error))
        if not is_browser(request):
            return JSONResponse(asdict(made.invitation) | {"doubts": made.doubts})
        return self._render_invite(request, device, address, made=made)

    def _render_invite(
        self, request: Request, device: str, address: str, *, status: int = 200, wrong: str = "", made: Any = None
    ) -> Response:
        return self._answers.render(
            request,
            "invite.html.j2",
            status=status,
            device=device,
            address=address,
            wrong=wrong,
            made=made,
            deploy=self.source.deploy,
            built=phone_page() is not None,
        )

    def _not_built(self, _request: Request) -> Response:
        raise HTTPException(404, "the page for phones is not built here: make web, and start hidenseek serve again")

    # Who may see it.

    def _show_login(self, request: Request) -> Response:
        return self._answers.render(request, "login.html.j2", wrong=False)

    async def _log_in(self, request: Request) -> Response:
        address = address_of(request)
        wait_s = self.login.wait_s(address)
        if wait_s:
            return too_many(wait_s)
        token = (await read_form(request)).get("token", "").strip()
        if not self.login.admits(token, address):
            return self._answers.render(request, "login.html.j2", status=401, wrong=True)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, self.login.cookie(), max_age=int(self.login.good_for_s), **self._answers.cookies)
        return answer

    async def _log_out(self, request: Request) -> Response:
        await self._answers.checked_form(request)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, **self._answers.cookies)
        return answer


def _packed(path: str, files: StaticFiles) -> Mount:
    """Files below an address, compressed on their way."""
    return Mount(path, files, middleware=[Middleware(GZipMiddleware)])


def _flat(settings: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Settings and their values, those inside others with both names."""
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            found += _flat(value, f"{above}{name}.")
        elif value is not None:
            found.append((above + name, json.dumps(value) if isinstance(value, bool | list) else str(value)))
    return found
