"""WAN 2.x video training for OneTrainer, with a data pipeline that never crashes, hangs or lies."""

from wan_fixes._version import __version__

__all__ = ["__version__"]
