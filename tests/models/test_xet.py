"""Where somebody asks for it the hub's own client brings the files; what comes is looked at all the same (M4)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wan_fixes.models.sources.hub import HubStore
from wan_fixes.models.sources.order import sources_of
from wan_fixes.models.sources.web import RetryPolicy
from wan_fixes.models.sources.xet import XetStore
from wan_fixes.models.target import Target

from .hub_server import Hub
from .test_ensure import LARGE, whole
from .world import content_of, ensurer


def xet_sources(hub: Hub, target: Target) -> list[XetStore]:
    return [XetStore(target.variant.hub, endpoint=hub.address, token="", retry=RetryPolicy(2, 0.001))]


def test_m4_the_hubs_client_brings_the_files(hub: Hub, tmp_path: Path) -> None:
    folder = ensurer(tmp_path, hub, make_sources=lambda target: xet_sources(hub, target)).ensure("tiny")
    assert content_of(folder) == whole()
    requests = [headers for _, path, headers in hub.requests if "resolve" in path]
    agents = {value for headers in requests for name, value in headers.items() if name.lower() == "user-agent"}
    assert agents and all("hf_hub" in agent for agent in agents)
    assert hub.bytes_served == sum(map(len, whole().values()))


def test_m4_what_the_client_brings_wrong_is_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    hub.fail("wrong bytes", LARGE, 1, lambda content: b"X" + content[1:])
    folder = ensurer(tmp_path, hub, make_sources=lambda target: xet_sources(hub, target)).ensure("tiny")
    assert content_of(folder) == whole()


def test_m4_where_the_client_fails_it_is_fetched_without_it(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fail("status", "resolve", 1, (404, {"X-Error-Code": "EntryNotFound"}))
    folder = ensurer(tmp_path, hub, make_sources=lambda target: xet_sources(hub, target)).ensure("tiny")
    assert content_of(folder) == whole()
    assert "fetching without it" in caplog.text


def test_m4_where_the_client_is_missing_it_is_said(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    folder = ensurer(tmp_path, hub, make_sources=lambda target: xet_sources(hub, target)).ensure("tiny")
    assert content_of(folder) == whole()
    assert "wan-fixes[xet]" in caplog.text


def test_m4_it_is_asked_for_by_the_environment(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = ensurer(tmp_path, hub).target("tiny")
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    kinds = []
    for value in ("", "1"):
        monkeypatch.setenv("WAN_MODELS_XET", value)
        kinds.append([type(source) for source in sources_of(target, RetryPolicy()) if isinstance(source, HubStore)])
    assert kinds == [[HubStore], [XetStore]]
