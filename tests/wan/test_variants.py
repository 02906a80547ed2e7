"""The table of variants: what must hold between its columns, and what an unknown name says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wan_fixes.errors import UserError
from wan_fixes.wan.variants import VARIANTS, get_variant


def test_the_six_wan_models_are_there_under_onetrainers_names():
    assert set(VARIANTS) == {
        "WAN_2_1_T2V_1_3B",
        "WAN_2_1_T2V_14B",
        "WAN_2_1_I2V_14B",
        "WAN_2_2_T2V_A14B",
        "WAN_2_2_I2V_A14B",
        "WAN_2_2_TI2V_5B",
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_agrees_with_itself(name: str):
    variant = get_variant(name)
    assert variant.name == name
    assert (variant.default_frames - 1) % variant.temporal_compression == 0
    assert (variant.experts == 2) == (variant.boundary_ratio is not None) == name.endswith("A14B")
    assert variant.in_channels == {"t2v": 16, "i2v": 36, "ti2v": 48}[variant.mode]
    assert (variant.fps, variant.spatial_multiple) == ((24, 32) if variant.mode == "ti2v" else (16, 16))
    assert not variant.standalone or variant.mode == "t2v"


def test_the_experts_change_where_the_released_models_do():
    assert get_variant("WAN_2_2_T2V_A14B").boundary_ratio == 0.875
    assert get_variant("WAN_2_2_I2V_A14B").boundary_ratio == 0.9


def test_names_and_folders_are_checked_without_torch():
    """`wan check` must not wait for it."""
    code = (
        "import sys, wan_fixes.wan.variants, wan_fixes.hosts.standalone.model_files\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError) as caught:
        get_variant("STABLE_DIFFUSION_15")
    assert "STABLE_DIFFUSION_15" in str(caught.value)
    assert all(name in caught.value.fix for name in VARIANTS)
