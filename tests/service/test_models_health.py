"""What the service tells of models, runs and metrics, and that asking changes nothing (M13, M18)."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from models.world import NEEDED, NEEDED_BYTES, PART, manifest_of
from prometheus_client.parser import text_string_to_metric_families

from wan_fixes.cli.serve import run_as_json
from wan_fixes.health import RunDatabase
from wan_fixes.models.ensure import ModelEnsurer
from wan_fixes.models.failures import ErrorCode, ModelError
from wan_fixes.models.installed import Verified
from wan_fixes.models.layout import ModelResolver
from wan_fixes.models.listing import Listing, RemoteFile
from wan_fixes.models.names import ModelName
from wan_fixes.models.recording import ModelRecorder, record_path
from wan_fixes.models.records import FileRecord
from wan_fixes.models.revalidation import Revalidation
from wan_fixes.models.signatures import public_key_of
from wan_fixes.service.deadline import Deadline
from wan_fixes.service.metrics import Totals, split_key

from .server import running

LARGE = "transformer/diffusion_pytorch_model.safetensors"
TINY = ModelName("tiny", "1.0.0", "original")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def tree_of(root: Path) -> dict[str, tuple[int, int, int]]:
    """All there is below a folder, with it: sizes, times and inodes."""
    states = ((path, path.lstat()) for path in [root, *root.rglob("*")])
    return {str(path): (state.st_size, state.st_mtime_ns, state.st_ino) for path, state in states}


def samples_of(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def record_a_fetch(models: ModelEnsurer, count: int = 1000) -> None:
    with ModelRecorder(models.resolver).operation("ensure", TINY) as operation:
        operation.came("hub:Wan-AI/Tiny-Diffusers", count)


def test_m18_the_states_of_a_model(complete: ModelEnsurer, root: Path) -> None:
    folder = root / "wan21" / str(TINY.folder_name)
    with running(complete) as address, httpx.Client(base_url=address) as client:

        def found() -> tuple[int, str, dict[str, Any]]:
            answer = client.get("/health/models?dry_run=true&whatever=1")
            (model,) = answer.json()["models"]
            return answer.status_code, answer.json()["status"], model

        status, verdict, model = found()
        assert (status, verdict, model["state"]) == (200, "ok", "COMPLETE")
        assert (model["name"], model["bytes_there"], model["bytes_needed"]) == (str(TINY), NEEDED_BYTES, 0)
        assert model["verified_at"] == pytest.approx(time.time(), abs=600)
        assert model["last_validation"] is None
        (folder / "vae/config.json").unlink()
        status, verdict, model = found()
        assert (status, verdict, model["state"], model["missing"]) == (200, "degraded", "PARTIAL", 1)
        assert (model["missing_components"], model["bytes_needed"]) == (["vae"], 2)
        (folder / LARGE).write_bytes(b"short")
        status, verdict, model = found()
        assert (status, verdict, model["state"], model["corrupt"]) == (200, "degraded", "CORRUPT", 1)
        with complete.locks.hold(TINY.folder_name):
            assert found()[1:] == ("ok", {**model, "state": "VERIFYING"})


def test_m18_a_model_that_is_not_there_is_not_missed(models: ModelEnsurer, root: Path) -> None:
    with running(models) as address:
        answer = httpx.get(f"{address}/health/models").json()
        detail = httpx.get(f"{address}/health/models/tiny").json()
    assert (answer["status"], answer["models"][0]["state"]) == ("ok", "NOT_PRESENT")
    assert answer["models"][0]["missing_components"] == [
        "scheduler",
        "text_encoder",
        "tokenizer",
        "transformer",
        "vae",
    ]
    assert {component["state"] for component in detail["components"]} == {"UNKNOWN"}
    assert not root.exists()


@pytest.mark.parametrize("name", ["tiny", "TINY@1.0.0", "tiny@1.0.0#original", "tiny#original"])
def test_m18_one_model_with_its_components_and_files(complete: ModelEnsurer, root: Path, name: str) -> None:
    (root / "wan21" / TINY.folder_name / "vae/config.json").unlink()
    with running(complete) as address:
        answer = httpx.get(f"{address}/health/models/{quote(name, safe='')}")
    detail = answer.json()
    assert (answer.status_code, detail["status"], detail["health"]["name"]) == (200, "degraded", str(TINY))
    components = {component["name"]: component for component in detail["components"]}
    assert set(components) == {"", "scheduler", "text_encoder", "tokenizer", "transformer", "vae"}
    assert {name: one["state"] for name, one in components.items() if one["state"] != "COMPLETE"} == {"vae": "MISSING"}
    assert {file["path"] for one in components.values() for file in one["files"]} == set(NEEDED)
    assert components["transformer"]["bytes"] == 10 * PART + 2


@pytest.mark.parametrize("name", ["t3v", "tiny@9.9", "tiny#fp8", "..", "%2e%2e%5cx", "a\nb", "<script>", "x" * 5000])
def test_m18_an_unknown_model_lists_the_known_ones(models: ModelEnsurer, name: str) -> None:
    with running(models) as address:
        answer = httpx.get(f"{address}/health/models/{quote(name, safe='').replace('..', '%2E%2E')}")
    assert answer.status_code == 404
    assert answer.json()["known"] == [str(TINY)]
    assert answer.json()["error"]["code"] == "UNKNOWN_MODEL"
    assert len(answer.content) < 2000


def test_m18_asking_changes_nothing(complete: ModelEnsurer, root: Path) -> None:
    record_a_fetch(complete)
    with (
        running(complete, last_run=lambda: run_as_json(root / ".state")) as address,
        httpx.Client(base_url=address) as client,
    ):
        before = tree_of(root)
        for path in ("/health/models", "/health/models/tiny", "/health/models/none", "/metrics", "/stats"):
            for ask in (client.get, client.head, client.post):
                ask(path)
        assert client.get("/stats").json()["kind"] == "models"
        assert tree_of(root) == before


def test_m18_metrics_say_what_is_there_and_what_came(complete: ModelEnsurer) -> None:
    record_a_fetch(complete)
    with pytest.raises(ModelError), ModelRecorder(complete.resolver).operation("verify", TINY):
        raise ModelError(ErrorCode.NOT_FOUND, "no")
    with running(complete) as address:
        text = httpx.get(f"{address}/metrics").text
        modern = httpx.get(f"{address}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        record_a_fetch(complete, 500)
        later = samples_of(httpx.get(f"{address}/metrics").text)
    samples, of_tiny = samples_of(text), (("model_id", "tiny@1.0.0"), ("variant", "original"))
    assert samples["wan_models_complete", of_tiny] == 1
    assert samples["wan_models_present_bytes", of_tiny] == NEEDED_BYTES
    assert samples["wan_models_verify_failures_total", of_tiny] == 1
    fetched = "wan_models_fetched_bytes_total", (of_tiny[0], ("source", "hub"), of_tiny[1])
    assert samples[fetched] >= 1000 and later[fetched] - samples[fetched] == 500
    assert later["wan_models_ensure_runs_total", of_tiny] - samples["wan_models_ensure_runs_total", of_tiny] == 1
    assert {label for _, labels in samples for label, _ in labels} == {"model_id", "variant", "source"}
    assert modern.headers["content-type"].startswith("application/openmetrics-text") and "# EOF" in modern.text


def test_m18_totals_only_grow_when_runs_are_dropped() -> None:
    totals = Totals()
    assert totals.updated({1.0: {"a": 5.0}, 2.0: {"a": 1.0}}) == {"a": 6.0}
    assert totals.updated({2.0: {"a": 4.0}}) == {"a": 9.0}
    assert totals.updated({2.0: {"a": 3.0, "b": float("nan")}}) == {"a": 9.0}
    assert totals.updated({}) == {"a": 9.0}


def test_m18_a_key_of_the_run_database_is_data() -> None:
    assert split_key("fetched_bytes{source=hub,model_id=tiny@1.0.0}") == (
        "fetched_bytes",
        {"source": "hub", "model_id": "tiny@1.0.0"},
    )
    assert split_key("ensure.calls") == ("ensure.calls", {})
    assert split_key("x{path=/home,source=a=b}") == ("x", {"source": "a=b"})
    assert split_key('x{source="}\n') == ("", {})


def test_m18_metrics_live_without_the_run_database(complete: ModelEnsurer) -> None:
    path = record_path(complete.resolver)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no database" * 1000)
    with running(complete) as address:
        answer = httpx.get(f"{address}/metrics")
    assert answer.status_code == 200 and "wan_models_complete" in answer.text
    assert path.read_bytes() == b"no database" * 1000


def test_m18_the_last_run_of_a_workspace(models: ModelEnsurer, tmp_path: Path) -> None:
    with RunDatabase(tmp_path / "work" / "runs.sqlite") as database, database.start_run("train") as run:
        run.step(1, float("nan"), 1e-4, 2.0)
    with running(models, last_run=lambda: run_as_json(tmp_path / "work")) as address:
        answer = httpx.get(f"{address}/stats")
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["last_step"]["loss"]) == ("finished", None)


def test_m18_no_workspace_and_no_run_are_said(models: ModelEnsurer, tmp_path: Path) -> None:
    with running(models) as address:
        assert httpx.get(f"{address}/stats").json()["error"]["code"] == "NO_WORKSPACE"
    with running(models, last_run=lambda: run_as_json(tmp_path)) as address:
        answer = httpx.get(f"{address}/stats")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NO_RUN")


def test_m18_answers_are_as_openapi_says(complete: ModelEnsurer) -> None:
    with running(complete) as address, httpx.Client(base_url=address) as client:
        schema = client.get("/openapi.json").json()
        for path, called, status in (
            ("/health/live", "/health/live", "200"),
            ("/health/models", "/health/models", "200"),
            ("/health/models/{name}", "/health/models/tiny", "200"),
            ("/health/models/{name}", "/health/models/none", "404"),
            ("/stats", "/stats", "404"),
        ):
            content = schema["paths"][path]["get"]["responses"][status]["content"]["application/json"]
            jsonschema.validate(client.get(called).json(), {**content["schema"], "components": schema["components"]})
        assert [client.get(page).status_code for page in ("/docs", "/redoc", "/")] == [404, 404, 404]


@pytest.fixture
def hanging(complete: ModelEnsurer, root: Path) -> Iterator[Path]:
    """A record that whoever opens it waits for, as on a network drive that is gone; removing it lets them go on."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes here")
    record = root / "wan21" / TINY.folder_name / ".verified.json"
    record.unlink()
    os.mkfifo(record)
    yield record
    if record.exists():
        let_go(record)


def let_go(pipe: Path) -> None:
    writer = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    pipe.unlink()
    os.close(writer)


def lookers() -> int:
    return sum(thread.name == "wan-serve-look" for thread in threading.enumerate())


def test_m18_a_disk_that_does_not_answer_is_said_in_time(complete: ModelEnsurer, hanging: Path) -> None:
    with running(complete, look_seconds=0.2) as address, httpx.Client(base_url=address, timeout=10) as client:
        for path in ("/health/models", "/health/models/tiny", "/metrics"):
            began = time.monotonic()
            answer = client.get(path)
            assert time.monotonic() - began < 5
            assert (answer.status_code, answer.json()["status"]) == (503, "timeout")
            assert answer.json()["error"]["code"] == "TIMEOUT"
        assert client.get("/health/live").status_code == 200
        for _ in range(9):
            client.get("/health/models")
        assert lookers() == Deadline(1).at_once
        let_go(hanging)
        while lookers():
            time.sleep(0.005)
        assert client.get("/health/models").json()["status"] == "degraded"


def test_m18_three_large_models_are_looked_at_quickly(tmp_path: Path) -> None:
    """As large as A14B: 8000 digests of parts in each record."""
    one = manifest_of().text.decode().partition("\n[models.")
    tables = "".join(("\n[models." + one[2]).replace("tiny@", f"tiny{number}@") for number in range(3))
    models = ModelEnsurer(manifest_of(one[0] + tables), ModelResolver(tmp_path))
    part, size = 16 << 20, 5_000_000_000
    files = [
        RemoteFile(f"{name}/{n}.safetensors", size, "0" * 64) for name in ("transformer", "vae") for n in range(13)
    ]
    for name in ("tiny0", "tiny1", "tiny2"):
        target = models.target(name)
        records = {}
        for file in files:
            path = target.folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.truncate(size)
            parts = tuple(f"{number:032x}" for number in range(-(-size // part)))
            records[file.path] = FileRecord.of(path, sha256=file.sha256, git_id="", part_bytes=part, parts=parts)
        Verified.now(target.name, Listing("hub:x", "main", tuple(files)), records).write(target.folder)
    with running(models) as address, httpx.Client(base_url=address) as client:
        assert {model["state"] for model in client.get("/health/models").json()["models"]} == {"COMPLETE"}
        times = []
        for _ in range(60):
            began = time.perf_counter()
            client.get("/health/models")
            times.append(time.perf_counter() - began)
    assert sorted(times)[45] < 0.1, "the slowest quarter is left out: another test may have had the cores"


def test_m13_what_was_found_in_the_background_is_shown(complete: ModelEnsurer, root: Path) -> None:
    path = root / "wan21" / TINY.folder_name / LARGE
    state = path.stat()
    path.write_bytes(b"X" * state.st_size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    later = Revalidation(complete, 1.0, look_seconds=0.01, clock=lambda: time.time() + 7200)
    with running(complete, revalidation=later) as address, httpx.Client(base_url=address) as client:
        until = time.monotonic() + 20
        while (found := client.get("/health/models").json()["models"][0])["last_validation"] is None:
            assert time.monotonic() < until
        assert found["last_validation"]["wrong"] == [LARGE]
        assert (found["last_validation"]["outcome"], found["state"]) == ("CORRUPT", "CORRUPT")
    assert not any(thread.name == "models-revalidation" for thread in threading.enumerate())


def test_m18_json_is_json(complete: ModelEnsurer) -> None:
    with running(complete) as address:
        for path in ("/health/models", "/health/models/none", "/nothing"):
            answer = httpx.get(f"{address}{path}")
            assert answer.headers["content-type"] == "application/json"
            assert json.loads(answer.content)


@pytest.fixture
def forged(complete: ModelEnsurer, monkeypatch: pytest.MonkeyPatch) -> ModelEnsurer:
    """Its pins are signed by nobody, and a key is configured."""
    key = Ed25519PrivateKey.generate()
    monkeypatch.setenv("WAN_MODELS_PUBLIC_KEY", public_key_of(key).text)
    return complete


@pytest.mark.parametrize("path", ["/health/models", "/health/models/tiny", "/metrics"])
def test_m18_a_record_that_is_not_believed_is_said(forged: ModelEnsurer, path: str) -> None:
    with running(forged) as address:
        answer = httpx.get(f"{address}{path}")
        assert httpx.get(f"{address}/health/live").status_code == 200
    assert (answer.status_code, answer.json()["status"]) == (503, "unreadable")
    error = answer.json()["error"]
    assert error["code"] == "SIGNATURE_FAIL" and error["reason"] and error["fix"]


def test_m18_a_model_that_is_read_just_now_counts_as_complete(complete: ModelEnsurer) -> None:
    with running(complete) as address, complete.locks.hold(TINY.folder_name):
        samples = samples_of(httpx.get(f"{address}/metrics").text)
        state = httpx.get(f"{address}/health/models").json()["models"][0]["state"]
    assert (samples["wan_models_complete", (("model_id", "tiny@1.0.0"), ("variant", "original"))], state) == (
        1.0,
        "VERIFYING",
    )
