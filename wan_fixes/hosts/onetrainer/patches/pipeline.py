"""Every pipeline definition goes through the plugins' hook before MGDS builds the pipeline, for every model type."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wan_fixes.errors import WanFixesError
from wan_fixes.hosts.onetrainer.patching import Patch, shielded, wrap

if TYPE_CHECKING:
    from wan_fixes.hosts.onetrainer.training import Training
    from wan_fixes.pipeline import PipelineContext

logger = logging.getLogger(__name__)

NAME = "pipeline substitution"


def _apply(module: ModuleType) -> None:
    wrap(module.DataLoaderMgdsMixin, "_create_mgds", _around)


def _around(stock: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(stock)

    def create_mgds(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        is_validation = bool(arguments.get("is_validation", False))
        rewritten = rewrite(arguments["config"], arguments["definition"])
        dataset = stock(*args, **kwargs)
        if rewritten is not None:
            shielded(_observe, dataset, rewritten[1], is_validation)
            shielded(_share_between_ranks, dataset, arguments["config"], rewritten[1])
            shielded(_report_first_epoch, dataset, *rewritten, _data(is_validation))
        return dataset

    return create_mgds


def rewrite(config: Any, definition: list[Any]) -> tuple[Training, PipelineContext] | None:
    """Let the plugins change `definition` in place; None when it is left as stock OneTrainer made it.

    Raises what a plugin raises on purpose (``WanFixesError``). A fault of ours is logged, and training goes on with the
    stock pipeline.
    """
    from wan_fixes.hosts.onetrainer import training as trainings
    from wan_fixes.plugins import call_hooks, copy_nested

    before = copy_nested(definition)
    try:
        # Without a trainer (the script that measures losses) nothing is recorded, but bad files are left out as well.
        training = trainings.current() or shielded(trainings.begin_unrecorded, config)
        if training is None or not training.settings.validate_pipelines:
            return None
        context = training.new_context(config.cache_dir, fills_cache=_ranks(config) < 2 or _is_first_rank())
        call_hooks(training.plugins, "onetrainer_rewrite_pipeline", definition=definition, context=context)
        return training, context
    except WanFixesError:
        raise
    except Exception:
        definition[:] = before
        logger.exception("the data pipeline is left as OneTrainer made it, without validation")
        return None


def _ranks(config: Any) -> int:
    """How many processes share this pipeline's batches. Validation has one: its configuration says so."""
    if not getattr(config, "multi_gpu", False):
        return 1
    from modules.util import multi_gpu_util

    return int(multi_gpu_util.world_size())


def _is_first_rank() -> bool:
    """Stock has the first process open an epoch, and fill the cache, before the others."""
    from modules.util import multi_gpu_util

    return bool(multi_gpu_util.is_master())


def _share_between_ranks(dataset: Any, config: Any, context: PipelineContext) -> None:
    if _ranks(config) > 1:
        from wan_fixes.hosts.onetrainer import ranks

        ranks.share(dataset, context)


def _observe(dataset: Any, context: PipelineContext, is_validation: bool) -> None:
    from wan_fixes.pipeline.observing import observe

    observe(dataset.loading_pipeline.modules, context, _data(is_validation))


def _data(is_validation: bool) -> str:
    return "validation" if is_validation else "training"


def _report_first_epoch(dataset: Any, training: Training, context: PipelineContext, what: str) -> None:
    """Say how many samples there are as soon as the first epoch is open: before the first step."""
    start_next_epoch = dataset.start_next_epoch
    is_first = True

    def start_and_report() -> None:
        nonlocal is_first
        if is_first:
            training.emit("caching_started", data=what)
        start_next_epoch()
        if is_first:
            is_first = False
            shielded(training.samples_ready, dataset, context, what)

    dataset.start_next_epoch = start_and_report


PATCHES = (
    Patch(
        name=NAME,
        module="modules.dataLoader.mixin.DataLoaderMgdsMixin",
        needs=("DataLoaderMgdsMixin._create_mgds",),
        apply=_apply,
        why="validation of training data: one bad file ends the run",
    ),
)
