"""`wan serve`: what is known of models and runs, over HTTP, for monitoring."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from wan_fixes.cli.console import Debug, finite, out, shown
from wan_fixes.cli.models_view import finite_only
from wan_fixes.cli.places import find_run, find_run_database
from wan_fixes.cli.stats import as_dict
from wan_fixes.errors import UserError
from wan_fixes.service.host_header import LOOPBACK_NAMES
from wan_fixes.service.options import PORT, TOKEN_VARIABLE, ServeOptions


def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; another one than this needs TLS.")
    ] = LOOPBACK_NAMES[0],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any that is free.")] = PORT,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A further name that it is called by; may be repeated."),
    ] = None,
    token_required: Annotated[
        bool, typer.Option("--token-required", help="Refuse to start where no token is set (WAN_SERVE_TOKEN).")
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="Serve https with this certificate (PEM).")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's key (PEM).")
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", metavar="PLACE", help="Serve the last run of it, and its alerts.")
    ] = None,
    revalidate: Annotated[
        float | None,
        typer.Option(
            "--revalidate",
            metavar="HOURS",
            min=0.1,
            callback=finite_only,
            help="Read complete models again when so old, in the background.",
        ),
    ] = None,
    _debug: Debug = False,
) -> None:
    """Serve the health of models, metrics and the last run over HTTP, to be read alone, until Ctrl-C."""
    from wan_fixes.models import ModelEnsurer
    from wan_fixes.models.credentials import secret
    from wan_fixes.models.revalidation import Revalidation
    from wan_fixes.service.serving import serve as serve_until_stopped

    token = secret("serve-token")
    if token_required and not token:
        raise UserError(
            "there is no token",
            reason=f"neither the keyring has one nor {TOKEN_VARIABLE}, and --token-required is given",
            fix=f"set {TOKEN_VARIABLE}",
        )
    options = ServeOptions(host, port, tuple(allow_host or ()), token, tls_cert, tls_key)
    ensurer = ModelEnsurer()

    def last_run() -> dict[str, Any]:
        return run_as_json(workspace or Path())

    def run_database() -> Path:
        return find_run_database(workspace or Path())

    with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
        serve_until_stopped(
            ensurer,
            options,
            on_address=lambda address: out.print(shown(address), soft_wrap=True),
            last_run=None if workspace is None else last_run,
            run_database=None if workspace is None else run_database,
            revalidation=None if revalidate is None else Revalidation(ensurer, revalidate),
        )


def run_as_json(place: Path) -> dict[str, Any]:
    """The last run of a workspace, or of a preset's, as `wan stats --json` prints it. Raises UserError."""
    from wan_fixes.health import RunReader
    from wan_fixes.ui.view_model import view_run

    path = find_run_database(place)
    reader = RunReader(path)
    view = view_run(reader, find_run(reader, None).id)
    assert view is not None
    found: dict[str, Any] = finite({"database": str(path), **as_dict(view)})
    return found
