"""Reading media in processes of their own: a file that hangs, crashes or swells its reader takes only that with it."""

from wan_fixes.media.workers.pool import WorkerPool, WorkersUnavailableError

__all__ = ["WorkerPool", "WorkersUnavailableError"]
