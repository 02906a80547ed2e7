"""What every test may use: the clip and model makers of `examples/`, and real MGDS where WAN_FIXES_MGDS names it."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.toys import put_mgds_on_path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
put_mgds_on_path()  # here, before any test module chooses an engine by importing the pipeline
