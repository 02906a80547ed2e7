"""`wan models`: which models there are, whether their files are there, and fetching and checking them."""

from __future__ import annotations

from typing import Any

import typer

from wan_fixes.cli import (
    models_check,
    models_fetch,
    models_manifest,
    models_migrate,
    models_schema,
    models_share,
    models_smoke,
    models_upkeep,
    models_versions,
)
from wan_fixes.cli.console import AsJson, Debug, out, print_json, shown
from wan_fixes.cli.models_view import (
    Models,
    all_names,
    bytes_bar,
    exit_unless_complete,
    known_size,
    names_there,
    show_statuses,
    work_on_each,
)
from wan_fixes.cli.tables import small_table

app = typer.Typer(help="Have model files present, complete and genuine.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models_manifest.app, name="manifest")
app.add_typer(models_manifest.key_app, name="key")

app.command("ensure")(models_fetch.ensure)
app.command("repair")(models_fetch.repair)
app.command("gc")(models_upkeep.gc)
app.command("pin")(models_upkeep.pin)
app.command("unpin")(models_upkeep.unpin)
app.command("dedup")(models_upkeep.dedup)
app.command("cache-info")(models_upkeep.cache_info)
app.command("check-updates")(models_versions.check_updates)
app.command("update")(models_versions.update)
app.command("rollback")(models_versions.rollback)
app.command("history")(models_versions.history)
app.command("migrate")(models_migrate.migrate)
app.command("check")(models_check.check)
app.command("smoke")(models_smoke.smoke)
app.command("share")(models_share.share)
app.command("schema")(models_schema.schema)


@app.command("list")
def list_(as_json: AsJson = False, _debug: Debug = False) -> None:
    """Show the models of the manifest."""
    from wan_fixes.models import load_manifest

    manifest = load_manifest()
    models: list[dict[str, Any]] = [
        {
            "name": str(spec.name(variant.name)),
            "short_name": spec.short_name(variant.name),
            "label": spec.label,
            "model_type": spec.model_type,
            "mode": spec.mode,
            "precision": variant.precision,
            "repository": variant.hub.repository,
            "bytes": sum(file.size or 0 for file in variant.files) if _has_sizes(variant.files) else None,
        }
        for spec, variant in manifest.variants()
    ]
    if as_json:
        print_json({"manifest": str(manifest.path), "models": models})
        return
    table = small_table("model", "what it is", "size", "from", right=(2,))
    for model in models:
        table.add_row(
            shown(model["short_name"]), shown(model["label"]), known_size(model["bytes"]), shown(model["repository"])
        )
    out.print(table)


@app.command("status")
def status(models: Models = None, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Show what is there of each model; asks no server. Exits with 4 when one that was named is not complete."""
    from wan_fixes.models import ModelEnsurer

    ensurer = ModelEnsurer()
    found = [ensurer.status(name) for name in models or all_names(ensurer)]
    show_statuses(ensurer, found, as_json=as_json)
    if models:
        # Who reads a model just now does not make it incomplete.
        exit_unless_complete([ensurer.look(ensurer.target(name)) for name in models])


@app.command("verify")
def verify(models: Models = None, as_json: AsJson = False, _debug: Debug = False) -> None:
    """Read all files of these models, or of all that are there, and compare their digests. Exits with 4 when one is
    not complete; changes nothing.
    """
    from wan_fixes.models import ModelEnsurer, ModelState, ModelStatus

    ensurer = ModelEnsurer()

    def verified(name: str) -> ModelStatus:
        there = ensurer.status(name)
        if there.state is ModelState.NOT_PRESENT:
            return there
        with bytes_bar(f"verifying {name}") as came:
            return ensurer.verify_integrity(name, on_progress=came)

    work_on_each(ensurer, models or names_there(ensurer), verified, as_json=as_json)


def _has_sizes(files: Any) -> bool:
    return bool(files) and all(file.size is not None for file in files)
