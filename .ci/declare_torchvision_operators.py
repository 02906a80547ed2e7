"""Lets a CUDA build of torchvision import beside a CPU build of torch. For test environments only.

torchvision registers fake kernels for two compiled operators and raises where they do not exist. Declaring them is
enough: nothing in the tests calls them.
"""

import importlib.abc
import sys

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class DeclareOperators(importlib.abc.MetaPathFinder):
    """Declares them right before torchvision is imported, and is gone then."""

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002 - a finder's signature
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in OPERATORS:
                try:
                    torch.library.define(f"torchvision::{operator}", SIGNATURE)
                except RuntimeError:
                    continue  # this build has it


sys.meta_path.insert(0, DeclareOperators())
