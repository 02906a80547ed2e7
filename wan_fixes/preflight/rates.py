"""Rules on learning rates: what teaches nothing, what destroys, and what optimizers with a rate of their own want."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding, Correction
from wan_fixes.preflight.values import finite_number, shown

#: OneTrainer's optimizers for which the usual rates hold: each step has about the size of the rate.
_USUAL: Final = frozenset(
    {
        *("ADAM", "ADAM_8BIT", "ADAMW", "ADAMW_8BIT", "ADAMW_ADV", "AdEMAMix", "AdEMAMix_8BIT"),
        *("ADOPT", "ADOPT_ADV", "ADAFACTOR", "CAME", "CAME_8BIT", "LION", "LION_8BIT", "LION_ADV"),
        *("RMSPROP", "RMSPROP_8BIT", "SCHEDULE_FREE_ADAMW", "ADABELIEF", "YOGI"),
    }
)
#: Those that find their rate by themselves and multiply it by this one (`Optimizer.is_adaptive`).
_ADAPTIVE: Final = frozenset(
    {
        *("DADAPT_SGD", "DADAPT_ADAM", "DADAPT_ADAN", "DADAPT_ADA_GRAD", "DADAPT_LION"),
        *("PRODIGY", "PRODIGY_PLUS_SCHEDULE_FREE", "PRODIGY_ADV"),
    }
)
#: By training method: what is too little to learn anything, and what is so much that it harms.
_USUAL_RANGE: Final = {"LORA": (5e-6, 5e-3), "FINE_TUNE": (0.0, 5e-4)}
_ADVICE: Final = {"LORA": "1e-4 is usual for a LoRA", "FINE_TUNE": "1e-5 is usual where the whole model is trained"}
_DESTROYS: Final = 0.1
_LEAST_FACTOR: Final = 0.01


def learning_rates(configuration: Configuration) -> Iterator[ConfigFinding]:
    """Each rate by which something is trained."""
    method = configuration.text("training_method")
    optimizer = configuration.text("optimizer.optimizer")
    for field in _fields(configuration):
        value = configuration.value(field)
        rate = finite_number(value)
        if rate is None or rate <= 0:
            yield ConfigFinding(
                "error",
                field,
                f"the learning rate is {shown(value)}",
                "nothing is learned by it" if rate == 0 else "it has to be a number above 0",
                _ADVICE.get(method, "write a number above 0"),
            )
        elif optimizer in _ADAPTIVE:
            if rate < _LEAST_FACTOR:
                yield ConfigFinding(
                    "warning",
                    field,
                    f"the learning rate is {rate:g}, and {optimizer} finds its rate by itself",
                    "the rate that it finds is multiplied by this one, so that next to nothing is learned",
                    "set it to 1",
                    Correction(field, 1.0),
                )
        elif optimizer in _USUAL and method in _USUAL_RANGE and not configuration.is_on("optimizer.relative_step"):
            yield from _unusual(field, rate, method, optimizer)


def _fields(configuration: Configuration) -> list[str]:
    """Of WAN those of the parts that are trained; of another model type the one for all of it."""
    if configuration.variant is None:
        # Parts of other models may all have rates of their own, so that the one for all of it says nothing.
        parts = [part for part in configuration.values.values() if isinstance(part, Mapping)]
        has_own = any(part.get("learning_rate") is not None for part in parts)
        return [] if has_own or configuration.given("learning_rate") in (None, 0) else ["learning_rate"]
    own = [f"{part}.learning_rate" for part in configuration.experts]
    return list(dict.fromkeys(field if configuration.given(field) is not None else "learning_rate" for field in own))


def _unusual(field: str, rate: float, method: str, optimizer: str) -> Iterator[ConfigFinding]:
    low, high = _USUAL_RANGE[method]
    if rate >= _DESTROYS or rate > high:
        yield ConfigFinding(
            "error" if rate >= _DESTROYS else "warning",
            field,
            f"a learning rate of {rate:g} is far too high for {optimizer}",
            "each step changes the weights by about so much: the training diverges",
            _ADVICE[method],
        )
    elif rate < low:
        yield ConfigFinding(
            "warning",
            field,
            f"a learning rate of {rate:g} is very low for a LoRA",
            "it begins at zero, and takes thousands of steps to get anywhere"
            + (" (this is OneTrainer's default for whole models)" if rate == 3e-6 else ""),
            _ADVICE[method],
        )
