"""A folder of clips, cached in threads as training does: in a test, or in a process that is short of memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from painted import read_frame_number

from wan_fixes.media import VIDEO_EXTENSIONS
from wan_fixes.pipeline import (
    PipelineContext,
    RobustVideoLoader,
    SafeAspectBatchSorting,
    SafeVariationSorting,
    SafeVideoFrameSampler,
    ValidatedCollectPaths,
    ValidatedDiskCache,
    rewrite_definition,
)

from .toys import Contexts, RandomAccess, concept_of, output, samples_of
from .world import make_pipeline

FRAMES = 9


def definition(context: PipelineContext, cache_dir: Path, name: str) -> list[Any]:
    """From paths to cached clips, at their own size, through the rewrite table as a host's definition goes.

    `name` is what is cached and trained: "image", or the "numbers" painted into it.
    """

    def numbers(module: Any, variation: int, index: int, name: str) -> dict[str, Any]:
        return {"numbers": numbers_in(module._get_previous_item(variation, "image", index))}

    modules = [
        ValidatedCollectPaths(
            "concept", "path", "concept.include_subdirectories", "enabled", "image_path", "concept",
            VIDEO_EXTENSIONS, None, None, context=context,
        ),
        SafeVideoFrameSampler("image_path", "settings.frames", "plan", 16.0, context=context),
        RobustVideoLoader(
            "image_path", "settings.frames", "image", target_frame_rate=16.0, context=context, frame_plan_in_name="plan"
        ),
        RandomAccess(lambda module, variation, index, name: {"size": (1, 64)}, ("size",), "image_path"),
        RandomAccess(numbers, ("numbers",), "image"),
        ValidatedDiskCache(str(cache_dir), [name], ["image_path", "size"], context=context),
        SafeVariationSorting(["concept"], context=context),
        SafeAspectBatchSorting("size", [name, "image_path", "concept"], 1, context=context),
        output(name, "image_path", ("concept.loss_weight", "loss_weight")),
    ]  # fmt: skip
    rewrite_definition(modules, context)
    return modules


def train(context: PipelineContext, folder: Path, cache_dir: Path, threads: int, name: str = "image") -> dict[str, Any]:
    """What an epoch trains of each path."""
    concept = concept_of(path=str(folder))
    pipeline = make_pipeline([concept], definition(context, cache_dir, name), {"frames": str(FRAMES)}, threads=threads)
    pipeline.start_next_epoch()
    return {sample["image_path"]: sample[name] for sample in pipeline if sample["loss_weight"] > 0}


def numbers_in(clip: Any) -> list[int | None]:
    """The numbers painted into the frames of `[C, F, H, W]`."""
    return [read_frame_number(picture.permute(1, 2, 0).numpy()) for picture in clip.unbind(1)]


def main(folder: Path, files: Path, megabytes: int, threads: int) -> None:
    """Train with so much more memory than there is in use now; prints paths and numbers, paths and reasons, as JSON."""
    import resource

    status = Path("/proc/self/status").read_text(encoding="ascii")
    in_use = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (in_use + (megabytes << 20),) * 2)
    contexts = Contexts(files)
    context = contexts.new()
    trained = train(context, folder, files / "cache", threads, "numbers")
    skipped = {path: [record.reason, record.fix] for path, record in samples_of(context).items()}
    sys.stdout.write(json.dumps([trained, skipped]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
