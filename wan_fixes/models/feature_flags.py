"""What can be switched off on one machine while it is new: `WAN_MODELS_FEATURES`."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Final

from wan_fixes.models.failures import ErrorCode, ModelError

FEATURES_VARIABLE: Final = "WAN_MODELS_FEATURES"
_SAID: Final = {"on": True, "off": False}


@dataclass(frozen=True)
class FeatureFlags:
    """What is switched on. Whatever is switched off, files are still verified, and nothing partial counts as complete.

    Attributes
    ----------
    link_from_other_models:
        A file that another model below the root has is linked; off: it is fetched.
    link_from_hub_cache:
        A file that the hub client's cache has is linked; off: it is fetched.
    negative_cache:
        A source that just failed is asked last for a while; off: each is asked in its order, always.
    record_operations:
        What is done to models is written to the run database; off: it is only logged.
    check_components:
        Of a model that was fetched, configurations and indexes are looked at too; off: digests alone.
    """

    link_from_other_models: bool = True
    link_from_hub_cache: bool = True
    negative_cache: bool = True
    record_operations: bool = True
    check_components: bool = True

    @classmethod
    def from_environment(cls) -> FeatureFlags:
        """As `WAN_MODELS_FEATURES` says: ``NAME=on`` or ``NAME=off``, separated by commas; the others are on.

        Raises ModelError (INVALID_CONFIG) naming all that is wrong with it.
        """
        known = [field.name for field in fields(cls)]
        switches: dict[str, bool] = {}
        problems = []
        for entry in os.environ.get(FEATURES_VARIABLE, "").split(","):
            name, _, said = (part.strip().lower() for part in entry.partition("="))
            if not name and not said:
                continue
            if name not in known:
                problems.append(f"there is no feature {name[:100]!r}")
            elif name in switches:
                problems.append(f"{name} is there twice")
            elif said not in _SAID:
                problems.append(f"{name} is {said[:100]!r}, and neither on nor off")
            else:
                switches[name] = _SAID[said]
        if problems:
            raise ModelError(
                ErrorCode.INVALID_CONFIG,
                f"{FEATURES_VARIABLE} cannot be read",
                reason="; ".join(problems),
                fix=f"write NAME=on or NAME=off, separated by commas; the names are {', '.join(known)}",
                context={"known": known},
            )
        return cls(**switches)
