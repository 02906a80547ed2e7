"""The service as an ASGI application. Importing this module needs the extra `serve`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException

from wan_fixes import __version__
from wan_fixes.errors import NoRunError, WanFixesError
from wan_fixes.health import plain
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.revalidation import Revalidation
from wan_fixes.service.deadline import Deadline, OverdueError
from wan_fixes.service.guard import FAULT, Guard, error_of
from wan_fixes.service.host_header import LOOPBACK_NAMES
from wan_fixes.service.metrics import ModelsCollector
from wan_fixes.service.models_health import ModelsLook
from wan_fixes.service.options import LOOK_SECONDS
from wan_fixes.service.replies import Alive, ModelDetail, ModelsHealth, ProblemReply, RunAlerts, UnreadableReply
from wan_fixes.service.runs import RunCollector, RunLook

_TEXT_LIMIT: Final = 4096
_METHODS: Final = "GET, HEAD"
_NO_DISK: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": UnreadableReply, "description": "The disk does not answer in time, refuses, or has a forged record."}
}
_UNKNOWN: Final[dict[int | str, dict[str, Any]]] = {404: {"model": ProblemReply, "description": "There is none."}}


def create_app(
    ensurer: ModelEnsurer,
    *,
    hosts: Iterable[str] = LOOPBACK_NAMES,
    token: str = "",
    last_run: Callable[[], dict[str, Any]] | None = None,
    run_database: Callable[[], Path] | None = None,
    revalidation: Revalidation | None = None,
    look_seconds: float = LOOK_SECONDS,
) -> Guard:
    """The application, which answers GET and HEAD, and changes nothing.

    Parameters
    ----------
    hosts:
        Names and addresses that it may be called by.
    token:
        What each request must bring; "" for none.
    last_run:
        Gives the last run of a workspace as JSON types, with finite numbers, for ``/stats``; raises NoRunError where
        there is none. None where no workspace is served.
    run_database:
        Gives the run database of that workspace, for ``/alerts`` and ``/metrics``; raises NoRunError where there is
        none.
    revalidation:
        Begun and ended with the application.
    look_seconds:
        How long the disk is waited for.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if revalidation is not None:
            revalidation.start()
        yield
        if revalidation is not None:
            await asyncio.to_thread(revalidation.stop)

    # The pages with documentation load scripts from elsewhere.
    app = FastAPI(
        title="wan-fixes",
        version=__version__,
        description="Model files and runs of wan-fixes, to be read.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    look = ModelsLook(ensurer)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ModelsCollector(look))
    runs = None if run_database is None else RunLook(run_database)
    if runs is not None:
        registry.register(RunCollector(runs))
    deadline = Deadline(look_seconds)

    @app.get("/health/live", response_model=Alive, summary="Whether the service runs; no disk is asked")
    async def live() -> Response:
        return JSONResponse(asdict(Alive()))

    @app.get(
        "/health/models",
        response_model=ModelsHealth,
        responses=_NO_DISK,
        summary="All models of the manifest",
        description="`dry_run` may be given, and is always so: nothing is changed or fetched.",
    )
    async def models() -> Response:
        return JSONResponse(asdict(await deadline.run(look.all)))

    @app.get(
        "/health/models/{name}",
        response_model=ModelDetail,
        responses=_NO_DISK | _UNKNOWN,
        summary="One model with its components and files",
        description="`name` is ID, ID@VERSION or ID@VERSION%23VARIANT.",
    )
    async def model(name: str) -> Response:
        try:
            return JSONResponse(asdict(await deadline.run(lambda: look.one(name))))
        except ModelError as error:
            if error.code is not ErrorCode.UNKNOWN_MODEL:
                raise
            return JSONResponse(_problem(error, error.code.value) | {"known": look.names()}, 404)

    @app.get(
        "/metrics",
        response_class=Response,
        responses=_NO_DISK | {200: {"content": {"text/plain": {}}}},
        summary="Prometheus metrics: of models, and of the last run where a workspace is served",
    )
    async def metrics(request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(await deadline.run(lambda: encoder(registry)), media_type=content_type)

    @app.get(
        "/stats",
        responses=_NO_DISK | _UNKNOWN,
        summary="The last run of the workspace, as `wan stats --json` gives it",
    )
    async def stats() -> Response:
        if last_run is None:
            return _no_workspace()
        try:
            return JSONResponse(await deadline.run(last_run))
        except WanFixesError as error:
            return _without_run(error)

    @app.get(
        "/alerts",
        response_model=RunAlerts,
        responses=_NO_DISK | _UNKNOWN,
        summary="What goes wrong in the last run of the workspace just now, and whether it is silent",
    )
    async def alerts() -> Response:
        if runs is None:
            return _no_workspace()
        try:
            return JSONResponse(asdict(await deadline.run(runs.alerts)))
        except WanFixesError as error:
            return _without_run(error)

    @app.exception_handler(OverdueError)
    async def overdue(_: Request, _error: Exception) -> Response:
        error = error_of(
            "TIMEOUT",
            "the disk does not answer",
            reason=f"nothing came for {look_seconds:g} s",
            fix="check the drive that the models, or the workspace, lie on",
        )
        return JSONResponse({"status": "timeout", "error": error}, 503)

    @app.exception_handler(OSError)
    async def refused(_: Request, error: Exception) -> Response:
        reason = plain(getattr(error, "strerror", None) or error)
        said = error_of(
            "UNREADABLE", "the disk cannot be read", reason=reason, fix="check the drive and its permissions"
        )
        return JSONResponse({"status": "unreadable", "error": said}, 503)

    @app.exception_handler(ModelError)
    async def not_believed(_: Request, error: ModelError) -> Response:
        return JSONResponse({"status": "unreadable", **_problem(error, error.code.value)}, 503)

    @app.exception_handler(HTTPException)
    async def no_such_thing(_: Request, error: Exception) -> Response:
        status, detail = getattr(error, "status_code", 404), getattr(error, "detail", "")
        headers = {"Allow": _METHODS} if status == 405 else {}
        said = error_of(f"HTTP_{status}", plain(detail), fix="/openapi.json says what there is")
        return JSONResponse({"error": said}, status, headers)

    @app.exception_handler(Exception)
    async def fault(_: Request, _error: Exception) -> Response:
        return JSONResponse(FAULT.as_json(), FAULT.status)

    return Guard(app, hosts, token)


def _no_workspace() -> Response:
    missing = error_of("NO_WORKSPACE", "no workspace is served", fix="start it with --workspace PLACE")
    return JSONResponse({"error": missing}, 404)


def _without_run(error: WanFixesError) -> Response:
    """None has been recorded yet, or what was recorded cannot be read."""
    if isinstance(error, NoRunError):
        return JSONResponse(_problem(error, "NO_RUN"), 404)
    return JSONResponse({"status": "unreadable", **_problem(error, "UNREADABLE")}, 503)


def _problem(error: WanFixesError, code: str) -> dict[str, Any]:
    what = error.what if error.path is None else f"{error.what}: {error.path}"
    texts = {"what": what, "reason": error.reason, "fix": error.fix}
    shown = {name: plain(text, limit=_TEXT_LIMIT) for name, text in texts.items()}
    return {"error": error_of(code, **shown)}
