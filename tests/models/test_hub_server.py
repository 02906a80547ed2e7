"""The server that the other tests fetch from speaks the hub's protocol: the real client gets along with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError

from .hub_server import Hub
from .world import REPOSITORY, content_of, model_files


def test_the_real_client_lists_a_repository(hub: Hub) -> None:
    info = HfApi(endpoint=hub.address, token=False).model_info(REPOSITORY, files_metadata=True)
    assert info.sha == hub.repositories[REPOSITORY].head
    assert {sibling.rfilename: sibling.size for sibling in info.siblings or []} == {
        path: len(content) for path, content in model_files().items()
    }


def test_the_real_client_fetches_files_and_whole_repositories(hub: Hub, tmp_path: Path) -> None:
    path = hf_hub_download(REPOSITORY, "vae/config.json", endpoint=hub.address, cache_dir=tmp_path / "one", token=False)
    assert Path(path).read_bytes() == b"{}"
    folder = snapshot_download(REPOSITORY, endpoint=hub.address, cache_dir=tmp_path / "all", token=False)
    assert content_of(Path(folder)) == model_files()


def test_the_real_client_lists_the_commits(hub: Hub) -> None:
    first = hub.repositories[REPOSITORY].head
    hub.repositories[REPOSITORY].files["README.md"] = b"more"
    commits = HfApi(endpoint=hub.address, token=False).list_repo_commits(REPOSITORY)
    assert [commit.commit_id for commit in commits] == [hub.repositories[REPOSITORY].head, first]


def test_the_real_client_sees_what_it_may_not(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_right"
    with pytest.raises(RepositoryNotFoundError):
        snapshot_download(REPOSITORY, endpoint=hub.address, cache_dir=tmp_path, token="hf_wrong")
    snapshot_download(REPOSITORY, endpoint=hub.address, cache_dir=tmp_path, token="hf_right")
