"""Checks at the edges of the pipeline: files, items against a schema, memory; expected against actual in words."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from wan_fixes.errors import SampleError
from wan_fixes.health import MemoryStats, Metrics, memory_stats
from wan_fixes.pipeline.checks import describe, problem_with
from wan_fixes.pipeline.media_reader import reader_for
from wan_fixes.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class ValidationResult:
    """What a validation found.

    Attributes
    ----------
    metadata:
        What was measured, as plain values.
    processing_time:
        Seconds that the validation took.
    """

    is_valid: bool
    error_message: str | None = None
    warnings: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    processing_time: float = 0.0


@dataclass(frozen=True, slots=True)
class ItemSpec:
    """What an item must be.

    Attributes
    ----------
    type:
        Its Python type.
    shape:
        For tensors: the size of each dimension, None where any will do.
    optional:
        True when the item may be missing or None.
    """

    type: type = object
    shape: tuple[int | None, ...] | None = None
    optional: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with the value, as expected against actual, or None."""
        if value is None:
            return None if self.optional else f"expected {self}, got None"
        if not isinstance(value, self.type):
            return f"expected {self}, got {describe(value)}"
        if self.shape is not None and isinstance(value, torch.Tensor):
            actual = tuple(value.shape)
            fits = len(actual) == len(self.shape) and all(
                wanted is None or wanted == size for wanted, size in zip(self.shape, actual, strict=True)
            )
            if not fits:
                return f"expected {self}, got {describe(value)}"
        return problem_with(value)

    def __str__(self) -> str:
        if self.shape is None:
            return self.type.__name__
        sizes = ", ".join("*" if size is None else str(size) for size in self.shape)
        return f"{self.type.__name__} [{sizes}]"


class DataFlowValidator:
    """The validator of the seed document. Usable by itself; within a pipeline it shares the pipeline's metrics."""

    def __init__(self, settings: Settings | None = None, metrics: Metrics | None = None) -> None:
        self.settings = settings or Settings()
        self.metrics = metrics or Metrics()

    def validate_video_file(self, video_path: str) -> ValidationResult:
        """Measure a video without decoding its pictures. Never raises for a bad file."""
        started = time.perf_counter()
        try:
            metadata = reader_for(self.settings).probe(video_path)
        except SampleError as error:
            return ValidationResult(False, str(error), processing_time=time.perf_counter() - started)
        facts = asdict(metadata)
        return ValidationResult(
            not metadata.is_corrupted,
            metadata.error_details,
            list(metadata.warnings),
            facts,
            time.perf_counter() - started,
        )

    def validate_pipeline_item(self, item: dict[str, Any], expected_schema: Mapping[str, type | ItemSpec]) -> bool:
        """True when the item has each name of the schema, as it must be. The differences are logged."""
        problems = self.explain(item, expected_schema)
        for problem in problems:
            logger.warning("pipeline item: %s", problem)
        return not problems

    def explain(self, item: dict[str, Any], expected_schema: Mapping[str, type | ItemSpec]) -> list[str]:
        """The differences between the item and the schema, one sentence each."""
        if not isinstance(item, Mapping):
            return [f"expected a dict, got {describe(item)}"]
        problems = []
        for name, expected in expected_schema.items():
            spec = expected if isinstance(expected, ItemSpec) else ItemSpec(expected)
            problem = spec.problem(item.get(name))
            if problem is not None:
                problems.append(f"'{name}': {problem}")
        return problems

    def check_memory_usage(self) -> MemoryStats:
        """Memory of this process and machine now; logs a warning above the limit of the settings."""
        stats = memory_stats()
        total = stats.current_usage_mb + stats.available_mb
        if total and stats.current_usage_mb / total > self.settings.memory_limit_fraction:
            logger.warning(
                "memory is nearly used up: this process holds %.0f MB, %.0f MB are free",
                stats.current_usage_mb,
                stats.available_mb,
            )
        return stats

    def log_pipeline_metrics(self, module_name: str, processing_time: float) -> None:
        """Add the seconds that a module took for one item."""
        self.metrics.time(module_name, processing_time)
