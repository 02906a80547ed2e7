"""Opens a folder in the user's file manager, without waiting for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def open_folder(folder: Path) -> str:
    """Show a folder; "" when that was begun, else why not, in words."""
    folder = folder.absolute()
    if not folder.is_dir():
        return "There is no such folder any more."
    try:
        if sys.platform == "win32":
            os.startfile(folder)  # a folder, which is shown and never run
            return ""
        program = "open" if sys.platform == "darwin" else "xdg-open"
        if shutil.which(program) is None:
            return f"No file manager is known here ({program} is missing)."
        nowhere = subprocess.DEVNULL
        subprocess.Popen([program, str(folder)], stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)
    except OSError as error:
        return f"The folder cannot be opened: {error.strerror or error}."
    return ""
