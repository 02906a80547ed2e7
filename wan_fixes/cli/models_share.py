"""`wan models share`: links to a model's files in a bucket, for somebody who has no credentials."""

from __future__ import annotations

from typing import Annotated

import typer

from wan_fixes.cli.console import Debug, print_json


def share(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ID, ID@VERSION or ID@VERSION#VARIANT.")],
    hours: Annotated[
        float, typer.Option("--hours", min=0.1, max=168, help="How long the links are good, at most seven days.")
    ] = 24.0,
    _debug: Debug = False,
) -> None:
    """Print links to a model's files in the bucket that WAN_MODELS_S3 or the manifest names, as JSON.

    Whoever has them can read the files, until they expire: `wan models ensure MODEL --links FILE`.
    """
    from wan_fixes.models import ErrorCode, ModelEnsurer, ModelError
    from wan_fixes.models.sources import links
    from wan_fixes.models.sources.order import OFFLINE_VARIABLES, is_offline
    from wan_fixes.models.sources.s3 import s3_stores

    ensurer = ModelEnsurer()
    target = ensurer.target(model)
    if is_offline():
        raise ModelError(
            ErrorCode.OFFLINE,
            f"{target.name} cannot be shared",
            reason=f"a bucket would have to be asked, and {' or '.join(OFFLINE_VARIABLES)} forbids that",
            fix="set WAN_MODELS_OFFLINE=0 for this command",
        )
    stores = s3_stores(target.spec, target.variant, target.name, retry=ensurer.options.retry)
    print_json(links.share(target, stores, int(hours * 3600)))
