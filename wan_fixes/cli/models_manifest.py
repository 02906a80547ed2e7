"""`wan models manifest` and `wan models key`: what is trusted, and the key of sensitive models."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from wan_fixes.cli.console import AsJson, Debug, ExitCode, out, print_json, say_above_bars, shown
from wan_fixes.cli.models_view import Models, all_names, some_of
from wan_fixes.cli.tables import small_table
from wan_fixes.health.text import size_text

app = typer.Typer(
    help="Look after a manifest of models, and what is pinned.", no_args_is_help=True, rich_markup_mode=None
)
key_app = typer.Typer(help="The key of sensitive models.", no_args_is_help=True, rich_markup_mode=None)

_REVISION_SHOWN = 12


@app.command("validate")
def validate(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A manifest (default: the one in use).")] = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Check a manifest and name everything that is wrong with it; also whether somebody who is trusted signed it."""
    from wan_fixes.models.manifest import load_manifest, manifest_bytes, manifest_path, parse_manifest
    from wan_fixes.models.signatures import KEY_VARIABLE, signed_by, trusted_keys

    path = file or manifest_path()
    manifest = parse_manifest(manifest_bytes(path), path)
    is_checked = bool(trusted_keys())
    if is_checked:
        manifest = load_manifest(path)
    signer = signed_by(path)
    names = [str(spec.name(variant.name)) for spec, variant in manifest.variants()]
    if as_json:
        signature = None if signer is None else {"key": signer, "is_checked": is_checked}
        print_json({"manifest": str(manifest.path), "models": names, "signature": signature})
        return
    out.print(shown(f"{manifest.path}: {len(names)} models, nothing is wrong"), soft_wrap=True)
    checked = "which is trusted" if is_checked else f"which nobody checked: {KEY_VARIABLE} is not set"
    out.print(shown("not signed" if signer is None else f"signed with {signer}, {checked}"), soft_wrap=True)


@app.command("lock")
def lock(
    models: Models = None,
    check: Annotated[bool, typer.Option("--check", help="Compare only; exit with 4 when something differs.")] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Ask which files models have, all of them or these, and pin those in models.lock. Nothing is fetched."""
    from wan_fixes.models import ModelEnsurer
    from wan_fixes.models.pinning import compare

    ensurer = ModelEnsurer()
    found = [compare(ensurer, name) for name in models or all_names(ensurer)]
    differing = {one.name: one.listing for one in found if one.state != "same"}
    if differing and not check:
        ensurer.lock_file.pin(differing)
    if as_json:
        print_json({"lock": str(ensurer.lock_file.path), "models": [one.as_json() for one in found]})
    else:
        table = small_table("model", "pin", "revision", "files", "size", right=(3, 4))
        for one in found:
            revision = shown(one.listing.revision[:_REVISION_SHOWN])
            count = str(len(one.listing.files))
            table.add_row(shown(one.name), shown(one.state), revision, count, size_text(one.listing.bytes))
        out.print(table)
        for one in found:
            if one.changed:
                out.print(shown(f"{one.name}: changed: {some_of(one.changed)}"), soft_wrap=True)
        out.print(shown(f"in {ensurer.lock_file.path}"), soft_wrap=True)
    if check and differing:
        raise typer.Exit(ExitCode.INCOMPLETE)


@app.command("sign")
def sign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A manifest, or a models.lock.")],
    key: Annotated[Path, typer.Option("--key", metavar="PEM", help="The private key (Ed25519).")],
    new_key: Annotated[bool, typer.Option("--new-key", help="Make the key first; the file must not exist.")] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Write FILE.sig, the signature of a file that is sound, and print the line that has others trust its key."""
    from wan_fixes.models import signatures
    from wan_fixes.models.manifest import manifest_bytes
    from wan_fixes.models.pinning import signable
    from wan_fixes.models.signing_key import load_signing_key, make_signing_key

    data = manifest_bytes(file)
    kind = signable(file, data)
    if new_key:
        private = make_signing_key(key, lambda: _passphrase(key, is_new=True))
    else:
        private = load_signing_key(key, lambda: _passphrase(key, is_new=False))
    public = signatures.sign(file, data, kind, private)
    target = signatures.signature_path(file)
    if as_json:
        found = {"signature": str(target), "kind": kind.value, "key": public.fingerprint, "public_key": public.text}
        print_json(found)
        return
    out.print(shown(f"{target}: the {kind.value} is signed with {public.fingerprint}"), soft_wrap=True)
    out.print(shown(f"{signatures.KEY_VARIABLE}={public.text}"), soft_wrap=True)


@key_app.command("new")
def new(
    print_it: Annotated[
        bool, typer.Option("--print", help="Print the key, this once, instead of putting it into the keyring.")
    ] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Make the key that sensitive models are encrypted with, and put it into the system's keyring."""
    from wan_fixes.errors import UserError
    from wan_fixes.models.credentials import SERVICE, VARIABLES, secret, store_secret
    from wan_fixes.models.sealing import new_key

    variable = VARIABLES["encryption-key"][0]
    if not print_it and secret("encryption-key"):
        raise UserError(
            "there is a key already",
            reason="what was sealed with it could not be opened with another one",
            fix=f"keep it; or, to begin anew, remove `encryption-key` of `{SERVICE}` from the keyring, or {variable}",
        )
    key = new_key()
    if print_it:
        # The one place where a secret is shown, since that was asked for: past everything that masks.
        if as_json:
            print_json({"key": key})
        else:
            sys.stdout.write(f"{variable}={key}\n")
        say_above_bars(f"keep it where nobody else reads it; set {variable} for each run. It cannot be shown again")
        return
    store_secret("encryption-key", key)
    if as_json:
        print_json({"service": SERVICE, "name": "encryption-key"})
    else:
        out.print(shown(f"the key is in the system's keyring: `encryption-key` of `{SERVICE}`"), soft_wrap=True)


def _passphrase(key: Path, *, is_new: bool) -> str:
    """That of the environment, else as somebody types it; "" for none. Raises UserError where nobody can be asked."""
    from wan_fixes.errors import UserError
    from wan_fixes.models.signing_key import PASSPHRASE_VARIABLE

    if PASSPHRASE_VARIABLE in os.environ:
        return os.environ[PASSPHRASE_VARIABLE]
    if not sys.stdin.isatty():
        raise UserError(
            "the passphrase of the key cannot be asked for",
            path=key,
            reason="this is no terminal",
            fix=f"set {PASSPHRASE_VARIABLE}" + (", to nothing for a key without one" if is_new else ""),
        )
    text = "passphrase of the new key (empty for none)" if is_new else "passphrase of the key"
    typed: str = typer.prompt(
        text, default="", hide_input=True, confirmation_prompt=is_new, show_default=False, err=True
    )
    return typed
