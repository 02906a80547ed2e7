"""What a plugin can hook into: pluggy specifications, docstrings and nothing else.

Both hosts (OneTrainer and the standalone trainer) call these. Write a plugin by marking methods of the same names with
``pluggy.HookimplMarker("onetrainer")`` and registering the object under the entry-point group ``onetrainer``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from wan_fixes.pipeline.context import PipelineContext

PROJECT_NAME = "onetrainer"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@hookspec
def onetrainer_register_models() -> list[Any]:  # type: ignore[empty-body]
    """Return the model variants to add, as a list of ``wan_fixes.wan.variants.WanVariant``."""


@hookspec
def onetrainer_locate_model(model_type: str, base_model: str, say: Callable[[str], None]) -> str | None:
    """Return the path to load in place of ``base_model``, or None to leave it as it is. May fetch files.

    Called before ``onetrainer_before_model_load``, which sees that path; the first answer counts. Raise
    ``wan_fixes.errors.UserError`` to refuse the load. ``say`` shows a line of what goes on.
    """


@hookspec
def onetrainer_before_model_load(model_type: str, base_model: str, config: dict[str, Any]) -> None:
    """Called before any weight is read. Raise ``wan_fixes.errors.UserError`` to refuse the load.

    :param model_type: the name of the host's model type, for example ``WAN_2_1_T2V_1_3B``
    :param base_model: the path or hub id that the user entered
    :param config: the host's training configuration as plain JSON types
    """


@hookspec
def onetrainer_rewrite_pipeline(definition: list[Any], context: PipelineContext) -> None:
    """Called with a pipeline definition before the pipeline is built. Change the list in place.

    The list is nested and may hold ``None``, as MGDS allows. Hooks run one after the other, so each sees
    what the hooks before it made of the definition.
    """


@hookspec
def onetrainer_training_event(name: str, payload: dict[str, Any]) -> None:
    """Called when something happens in a run.

    Names: ``run_started``, ``caching_started``, ``caching_finished``, ``epoch_started``, ``step_finished``,
    ``checkpoint_saved``, ``sample_saved``, ``run_finished``, ``run_failed``. The payload holds JSON types only.
    """


@hookspec
def onetrainer_ui_tabs() -> list[Any]:  # type: ignore[empty-body]
    """Return the tabs to add to the host's window, each with ``title`` and ``build(components, frame)``.

    ``build`` is called once, in the window's thread. Its ``components`` are the host's own builders of widgets
    (``label``, ``entry``, ``switch``, ``options_kv``, ``button``, …), the same for every toolkit;
    ``components.state(values)`` makes of a dictionary what they take as ``ui_state``; ``components.config()`` is the
    window's configuration as it is now. ``frame`` is where the widgets go, by row and column. It scrolls, unless the
    tab has ``scrolls = False``: then it is the whole page.
    """
