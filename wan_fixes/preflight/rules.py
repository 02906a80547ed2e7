"""The rules, by name, in the order in which their findings are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from wan_fixes.preflight import (
    adapter,
    base_model,
    combinations,
    concepts,
    frames_and_sizes,
    memory,
    outputs,
    rates,
    run_length,
)
from wan_fixes.preflight.configuration import Configuration
from wan_fixes.preflight.finding import ConfigFinding

#: Says all that is wrong in one respect, of whatever a configuration holds, and raises nothing.
Rule: TypeAlias = Callable[[Configuration], Iterator[ConfigFinding]]

EMPTY_CONCEPTS: Final = "empty_concepts"

RULES: Final[Mapping[str, Rule]] = {
    "model_type": base_model.model_type,
    "base_model": base_model.base_model,
    "other_weights": base_model.other_weights,
    "training_method": combinations.training_method,
    "trained_parts": combinations.trained_parts,
    "concept_list": concepts.concept_list,
    "concept_folders": concepts.concept_folders,
    EMPTY_CONCEPTS: concepts.empty_concepts,
    "repeated_folders": concepts.repeated_folders,
    "captions": concepts.captions,
    "concept_numbers": concepts.concept_numbers,
    "frames": frames_and_sizes.frames,
    "still_images": frames_and_sizes.still_images,
    "resolution": frames_and_sizes.resolution,
    "resolution_overrides": frames_and_sizes.resolution_overrides,
    "memory": memory.memory,
    "learning_rates": rates.learning_rates,
    "rank_and_alpha": adapter.rank_and_alpha,
    "counts": run_length.counts,
    "large_batch": run_length.large_batch,
    "long_accumulation": run_length.long_accumulation,
    "long_warmup": run_length.long_warmup,
    "noise_bounds": combinations.noise_bounds,
    "noise_schedule": combinations.noise_schedule,
    "text_encoder": combinations.text_encoder,
    "offloaded_encoder": combinations.offloaded_encoder,
    "layer_filter": combinations.layer_filter,
    "half_precision": combinations.half_precision,
    "uncached": combinations.uncached,
    "masks": combinations.masks,
    "stale_cache": combinations.stale_cache,
    "destination": outputs.destination,
    "sample_file": outputs.sample_file,
    "written_folders": outputs.written_folders,
    "network_cache": outputs.network_cache,
    "own_output_as_data": outputs.own_output_as_data,
}
