"""The hub by its own client, which knows Xet: only when somebody asks for it with `WAN_MODELS_XET=1`.

Xet fetches what changed of a large file, by many connections. What it has of a file is not kept over a kill, and the
limit of speed does not hold for it; digests are compared all the same, and what it does not bring is fetched as usual.
"""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path
from typing import Final

from wan_fixes.health.text import plain
from wan_fixes.models.correlation import model_logger
from wan_fixes.models.listing import Listing
from wan_fixes.models.sources.hub import HubStore

XET_VARIABLE: Final = "WAN_MODELS_XET"

logger = model_logger(__name__)


def is_xet_wanted() -> bool:
    """Whether the environment asks for it."""
    return os.environ.get(XET_VARIABLE, "").lower() in ("1", "on", "yes", "true")


class XetStore(HubStore):
    """One repository of the hub, whose files come by the hub's own client."""

    def fetch_whole(self, listing: Listing, folder: Path) -> None:
        """Have the client bring these files into `folder`. What fails is logged, and left to be fetched as usual."""
        try:
            from huggingface_hub import snapshot_download
        except ImportError:
            logger.warning('%s is set and huggingface_hub is missing: pip install "wan-fixes[xet]"', XET_VARIABLE)
            return
        try:
            snapshot_download(
                self._source.repository,
                revision=listing.revision,
                endpoint=self._endpoint,
                token=self._token or False,
                allow_patterns=[glob.escape(file.path) for file in listing.files],
                local_dir=folder,
            )
        except Exception as error:  # noqa: BLE001 - the boundary to a client with many ways to fail
            logger.warning("%s: the hub's client failed, fetching without it: %s", self.label, plain(error, 300))
        finally:
            shutil.rmtree(folder / ".cache", ignore_errors=True)  # its notes
