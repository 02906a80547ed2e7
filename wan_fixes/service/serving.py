"""Running the service: the port, the server, and its end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wan_fixes.errors import UserError
from wan_fixes.service.options import LOOK_SECONDS, ServeOptions

if TYPE_CHECKING:
    import uvicorn

    from wan_fixes.models.ensure import ModelEnsurer
    from wan_fixes.models.revalidation import Revalidation

_EXTRA: Final = ("fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic")
# Requests that wait for the disk are answered before.
_END_SECONDS: Final = int(LOOK_SECONDS) + 2


def serve(
    ensurer: ModelEnsurer,
    options: ServeOptions,
    *,
    on_address: Callable[[str], None],
    last_run: Callable[[], dict[str, Any]] | None = None,
    run_database: Callable[[], Path] | None = None,
    revalidation: Revalidation | None = None,
) -> None:
    """Answer requests until Ctrl-C, or until the process is asked to end.

    `on_address` is told where, once requests are taken. `last_run`, `run_database` and `revalidation` are for
    `create_app`. Raises UserError where the extra `serve` is missing, or the port cannot be had.
    """
    try:
        from wan_fixes.service.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise UserError(
            f"{error.name} is not installed",
            reason="the service needs the extra `serve`",
            fix='pip install "wan-fixes[serve]"',
        ) from error
    with listen(options) as listener:
        app = create_app(
            ensurer,
            hosts=options.names,
            token=options.token,
            last_run=last_run,
            run_database=run_database,
            revalidation=revalidation,
        )
        on_address(options.url(listener.getsockname()[1]))
        server_of(app, options).run(sockets=[listener])


def listen(options: ServeOptions) -> socket.socket:
    """A socket that takes connections: from here on none is lost. Raises UserError where the port cannot be had."""
    family = socket.AF_INET if options.address.version == 4 else socket.AF_INET6
    try:
        listener = socket.create_server((str(options.address), options.port), family=family)
        # Connections inherit it. asyncio sets it on sockets alone whose protocol number is TCP's, and create_server's
        # is 0: each answer would wait 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise UserError(
            f"the service cannot listen at {options.url(options.port)}",
            reason=error.strerror or str(error),
            fix="end what listens there, or choose another --port (0 takes any that is free)",
        ) from error


def server_of(app: Any, options: ServeOptions) -> uvicorn.Server:
    """The server of an application. It logs as the rest of the program does, and no requests."""
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_END_SECONDS,
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
        )
    )
