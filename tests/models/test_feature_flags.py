"""What is new can be switched off on one machine, and a word that is not understood is named (M16)."""

from __future__ import annotations

from dataclasses import fields

import pytest

from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.feature_flags import FEATURES_VARIABLE, FeatureFlags

NAMES = [field.name for field in fields(FeatureFlags)]


def test_m16_everything_is_on_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FEATURES_VARIABLE, raising=False)
    assert FeatureFlags.from_environment() == FeatureFlags(*[True] * len(NAMES))
    monkeypatch.setenv(FEATURES_VARIABLE, " , ")
    assert FeatureFlags.from_environment() == FeatureFlags()


@pytest.mark.parametrize("name", NAMES)
def test_m16_each_can_be_switched_off_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(FEATURES_VARIABLE, f"{name}=off")
    found = FeatureFlags.from_environment()
    assert [other for other in NAMES if not getattr(found, other)] == [name]


def test_m16_several_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FEATURES_VARIABLE, "link_from_hub_cache=off, Negative_Cache = OFF,check_components=on,")
    assert FeatureFlags.from_environment() == FeatureFlags(link_from_hub_cache=False, negative_cache=False)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("link_from_moon=off", "no feature 'link_from_moon'"),
        ("off", "no feature 'off'"),
        ("=off", "no feature ''"),
        ("negative_cache", "negative_cache is ''"),
        ("negative_cache=maybe", "negative_cache is 'maybe'"),
        ("negative_cache=off=on", "negative_cache is 'off=on'"),
        ("negative_cache=off,negative_cache=on", "negative_cache is there twice"),
        ("negative_cache=\x1b[31m", r"'\\x1b\[31m'"),
    ],
)
def test_m16_what_is_not_understood_is_named_with_what_is_known(
    monkeypatch: pytest.MonkeyPatch, said: str, problem: str
) -> None:
    monkeypatch.setenv(FEATURES_VARIABLE, f"check_components=off,{said},also=wrong")
    with pytest.raises(ModelError, match=problem) as caught:
        FeatureFlags.from_environment()
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    assert "'also'" in caught.value.reason and all(name in caught.value.fix for name in NAMES)
