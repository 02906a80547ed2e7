"""All rules on one configuration, and one error of those findings that stop a training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wan_fixes.errors import NothingUsableError, UserError
from wan_fixes.health.text import plain
from wan_fixes.models.hardware import Hardware
from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding
from wan_fixes.preflight.rules import EMPTY_CONCEPTS, RULES
from wan_fixes.settings import Settings


def check_config(
    config: Mapping[str, Any],
    *,
    base: Path,
    beside: Path | None = None,
    gpu: Hardware | None = None,
    settings: Settings | None = None,
    host_types: Collection[str] = (),
) -> list[ConfigFinding]:
    """Look over a configuration of a training: errors first. Whatever it holds, nothing is raised for it.

    Folders are listed and small files read; no clip is opened, nothing is loaded, no server is asked.

    Parameters
    ----------
    config:
        OneTrainer's, as plain JSON: a preset, a saved configuration, or `TrainConfig.to_dict()`.
    base:
        The folder in which the training works, for relative paths.
    beside:
        Where what is read is looked up first: the folder of the preset, for the standalone host.
    gpu:
        The machine that trains; None leaves its memory out.
    settings:
        The plugin's; None for the defaults.
    host_types:
        The names of the model types that the host has: a WAN of its own among them is not judged.
    """
    configuration = Configuration(config, base=base, beside=beside, gpu=gpu, settings=settings, host_types=host_types)
    findings = [_readable(found, name) for name, rule in RULES.items() for found in rule(configuration)]
    return sorted(findings, key=lambda finding: finding.severity != "error")


def _readable(found: ConfigFinding, rule: str) -> ConfigFinding:
    # Paths stand in them in full, and somebody's path can be of any length.
    return replace(found, what=plain(found.what), why=plain(found.why), fix=plain(found.fix), rule=rule)


def errors_in(findings: Sequence[ConfigFinding]) -> list[ConfigFinding]:
    """Those that stop."""
    return [finding for finding in findings if finding.severity == "error"]


def warnings_in(findings: Sequence[ConfigFinding]) -> list[ConfigFinding]:
    """Those that do not."""
    return [finding for finding in findings if finding.severity == "warning"]


def refusal(findings: Sequence[ConfigFinding], path: Path | None = None) -> UserError | None:
    """One error with all of those that stop, or None. `path` is the configuration's file, where it has one."""
    errors = errors_in(findings)
    if not errors:
        return None
    kind = NothingUsableError if all(error.rule == EMPTY_CONCEPTS for error in errors) else UserError
    one = len(errors) == 1
    return kind(
        "the configuration cannot be trained",
        path=path,
        reason="; ".join(plain(f"{error.field}: {error.what}, and {error.why}") for error in errors),
        fix=plain(errors[0].fix) if one else "; ".join(plain(f"{error.field}: {error.fix}") for error in errors),
        context={"fields": [error.field for error in errors]},
    )
