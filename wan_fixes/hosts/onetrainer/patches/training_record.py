"""Every training is recorded in its workspace's run database, and told to the plugins, from start to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wan_fixes.hosts.onetrainer.patching import Patch, shielded, wrap

if TYPE_CHECKING:
    from wan_fixes.hosts.onetrainer.training import Training


def _apply_to_trainer(module: ModuleType) -> None:
    is_master = module.multi.is_master
    wrap(module.GenericTrainer, "start", lambda stock: _around_start(stock, is_master))
    wrap(module.GenericTrainer, "train", _around_train)
    wrap(module.GenericTrainer, "end", _around_end)


def _around_start(stock: Callable[..., Any], is_master: Callable[[], bool]) -> Callable[..., Any]:
    def start(trainer: Any) -> Any:
        # Before stock clears the cache: by then no file of an earlier training is open.
        training = shielded(_begin, trainer, is_master())
        with _failures_recorded(training):
            if training is not None:
                _check_configuration(training)
            return stock(trainer)

    return start


def _check_configuration(training: Training) -> None:
    """Not shielded: what cannot be trained is refused here, before anything is cleared or loaded."""
    from wan_fixes.hosts.onetrainer.configuration import preflight_or_refuse

    for finding in preflight_or_refuse(training.config, training.say, tells_warnings=training.run is not None):
        training.note("config_warning", str(finding), field=finding.field, fix=finding.fix, rule=finding.rule)


def _around_train(stock: Callable[..., Any]) -> Callable[..., Any]:
    def train(trainer: Any) -> Any:
        training = _current()
        with _failures_recorded(training):
            result = stock(trainer)
        if training is not None and trainer.commands.get_stop_command():
            shielded(training.end, "interrupted", "stopped by the user")
        return result

    return train


def _around_end(stock: Callable[..., Any]) -> Callable[..., Any]:
    def end(trainer: Any) -> Any:
        training = _current()
        try:
            if training is not None:
                shielded(training.write_last_scalars)
            with _failures_recorded(training):
                result = stock(trainer)
            if training is not None:
                shielded(training.end, "finished")
            return result
        finally:
            shielded(_close)

    return end


def _apply_to_callbacks(module: ModuleType) -> None:
    wrap(module.TrainCallbacks, "on_update_status", _around_status)
    wrap(module.TrainCallbacks, "on_sample_default", _around_sample)


def _around_status(stock: Callable[..., Any]) -> Callable[..., Any]:
    def on_update_status(callbacks: Any, status: str) -> Any:
        training = _current()
        if training is not None:
            shielded(training.note_status, status)
            training.say = callbacks.on_update_status
        return stock(callbacks, status)

    return on_update_status


def _around_sample(stock: Callable[..., Any]) -> Callable[..., Any]:
    def on_sample_default(callbacks: Any, output: Any) -> Any:
        training = _current()
        if training is not None:
            shielded(training.note_saved, "sample_saved", "a sample was made")
        return stock(callbacks, output)

    return on_sample_default


def _begin(trainer: Any, recorded: bool) -> Training | None:
    from wan_fixes.hosts.onetrainer import training as trainings

    training = trainings.begin(trainer.config, recorded=recorded)
    if training is not None and recorded:
        training.say = trainer.callbacks.on_update_status
        _listen(trainer, training)
    return training


def _listen(trainer: Any, training: Training) -> None:
    """Take the scalars that this training writes, and where TensorBoard is switched on, add ours to them."""
    from wan_fixes.hosts.onetrainer.scalars import Scalars

    tensorboard, config = trainer.tensorboard, trainer.config
    add_scalar = tensorboard.add_scalar
    if getattr(config, "tensorboard", False) or getattr(config, "tensorboard_always_on", False):
        samples_per_step = getattr(config, "batch_size", 1) * getattr(config, "gradient_accumulation_steps", 1)
        training.scalars = Scalars(add_scalar, samples_per_step)

    def note_and_add(tag: str, scalar_value: Any, global_step: Any = None, *args: Any, **kwargs: Any) -> Any:
        shielded(training.note_scalar, tag, scalar_value, global_step)
        return add_scalar(tag, scalar_value, global_step, *args, **kwargs)

    tensorboard.add_scalar = note_and_add


def _current() -> Training | None:
    from wan_fixes.hosts.onetrainer import training as trainings

    return trainings.current()


def _close() -> None:
    from wan_fixes.hosts.onetrainer import training as trainings

    trainings.close_current()


@contextmanager
def _failures_recorded(training: Training | None) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if training is not None:
            shielded(training.fail, error)
        raise


PATCHES = (
    Patch(
        name="training record",
        module="modules.trainer.GenericTrainer",
        needs=("GenericTrainer.start", "GenericTrainer.train", "GenericTrainer.end", "multi"),
        apply=_apply_to_trainer,
        why="record of a training's samples, losses and end",
    ),
    Patch(
        name="training status",
        module="modules.util.callbacks.TrainCallbacks",
        needs=("TrainCallbacks.on_update_status", "TrainCallbacks.on_sample_default"),
        apply=_apply_to_callbacks,
        why="record of what a training was doing when",
    ),
)
