"""What the modules share: skipping is said once, from any thread; files are remembered by their content."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from wan_fixes.errors import SampleError
from wan_fixes.health import total
from wan_fixes.pipeline.fan_out import fan_out

from .toys import samples_of


def error(reason="torn in two", **details):
    return SampleError("broken", reason=reason, fix="mend it", module="loader", **details)


# Leaving samples out


def test_a_skipped_sample_is_in_the_roster_the_database_the_metrics_and_the_log(context, caplog):
    with caplog.at_level(logging.WARNING):
        context.skip(3, error(path="folder/a.mp4"))
    assert context.roster.is_dropped(3)
    record = samples_of(context)["folder/a.mp4"]
    assert (record.status, record.module, record.reason, record.fix, record.kind) == (
        "skipped", "loader", "torn in two", "mend it", "sample",
    )  # fmt: skip
    assert context.metrics.snapshot() == {"samples_skipped{module=loader}": 1, "samples_left_out": 1}
    assert caplog.messages == ["skipped broken: folder/a.mp4: torn in two (mend it)"]


def test_it_is_said_once_however_many_sinks_meet_it(context, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            context.skip(3, error(path="a.mp4"))
    assert len(caplog.messages) == 1
    assert total(context.metrics.snapshot(), "samples_skipped") == 1


def test_what_a_module_failed_with_is_no_verdict_on_the_file(context):
    context.skip(3, error(path="a.mp4", context={"failed": True}))
    assert samples_of(context, "failed").keys() == {"a.mp4"}
    assert context.left_out_counts() == {"skipped": 0, "failed": 1}


def test_of_a_file_all_chunks_are_one_that_is_left_out(context):
    for index in range(30):
        context.skip(index, error(path="a.mp4"))
    values = context.metrics.snapshot()
    assert (total(values, "samples_left_out"), total(values, "samples_skipped")) == (1, 30)


def test_what_is_left_out_of_one_epoch_comes_back_without_a_verdict(context):
    for epoch in range(5):
        context.open_epoch(epoch)
        assert total(context.metrics.snapshot(), "samples_left_out") == (0 if epoch == 0 else 1)
        context.skip(3, error(path="a.mp4", context={"this_epoch_only": True}))
        context.skip(4, error(path="b.mp4"))
        assert total(context.metrics.snapshot(), "samples_left_out") == 2
    assert samples_of(context).keys() == {"b.mp4"}
    assert samples_of(context, "warning")["a.mp4"].reason == "left out of one epoch: torn in two"
    assert context.left_out_counts() == {"skipped": 1, "failed": 0}


def test_from_many_threads_each_sample_is_recorded_once_and_none_is_lost(context):
    start = threading.Barrier(8)

    def skip_all(thread):
        start.wait()
        for index in range(100):
            context.skip(index, error(path=f"{index}.mp4", reason=f"thread {thread}"))
            context.warn(f"{index}.mp4", "odd")

    threads = [threading.Thread(target=skip_all, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(samples_of(context)) == len(samples_of(context, "warning")) == 100
    assert set(context.roster.reasons()) == set(range(100))
    values = context.metrics.snapshot()
    assert (total(values, "samples_skipped"), total(values, "warnings")) == (100, 100)


def test_an_error_without_a_path_is_named_by_its_sample_everywhere(context, caplog):
    """The VAE knows no files; the cache that meets its error does."""
    with caplog.at_level(logging.WARNING):
        context.skip(0, error(), sample="clip0.mp4")
    assert "clip0.mp4" in caplog.messages[0]
    assert list(samples_of(context)) == ["clip0.mp4"]
    assert context.roster.reasons()[0].path == "clip0.mp4"


def test_an_error_about_the_caption_is_recorded_with_its_clip(context):
    context.skip(0, error(path="folder/clip0.txt"), sample="folder/clip0.mp4")
    record = samples_of(context)["folder/clip0.mp4"]
    assert record.reason == "clip0.txt: torn in two"


def test_a_sample_of_which_nothing_is_known_has_its_number(context):
    context.skip(7, SampleError("broken"))
    record = samples_of(context)["sample 7"]
    assert (record.reason, record.module) == ("broken", "pipeline")


def test_names_are_text_in_the_log_and_never_markup(context, caplog):
    with caplog.at_level(logging.WARNING):
        context.skip(0, error(path="a\n[red]b\x1b[31m.mp4"))
        context.warn("c\r\nd", "odd\x1b[0m")
    assert all("\n" not in message and "\x1b" not in message for message in caplog.messages)


def test_the_summary_has_the_most_frequent_reason_first(context):
    for index, reason in enumerate(["too short", "the file is empty", "too short", "too short"]):
        context.skip(index, error(reason))
    assert context.skip_summary() == ["3 times: too short", "1 times: the file is empty"]


def test_a_warning_is_said_once_for_each_path_and_reason(context):
    for _ in range(3):
        context.warn("a.mp4", "odd", "mend it", "loader")
    context.warn("a.mp4", "too long")
    assert total(context.metrics.snapshot(), "warnings") == 2


def test_without_a_run_nothing_is_recorded_and_nothing_fails(context):
    context.run = None
    context.skip(0, error(path="a.mp4"))
    context.warn("a.mp4", "odd")
    context.event("anything", "happened")
    assert context.roster.is_dropped(0)


# Quarantine


@pytest.mark.parametrize(("damaged", "listed"), [(True, 1), (False, 0), (None, 0)])
def test_only_what_is_damaged_itself_is_put_into_quarantine(contexts, tmp_path, damaged, listed):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    with contexts.new_files(tmp_path / "files") as context:
        context.skip(0, error(path=path, context={} if damaged is None else {"damaged": damaged}))
        assert len(context.quarantine.entries()) == listed
        assert path.read_bytes() == b"x", "nothing of the user's is moved or changed"


def test_choices_hang_on_content_variation_and_purpose(context, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    drawn = [context.rng(variation, str(path), purpose).random() for variation in range(3) for purpose in ("a", "b")]
    assert len(set(drawn)) == 6
    assert drawn == [context.rng(v, str(path), p).random() for v in range(3) for p in ("a", "b")]
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(b"x")
    assert context.rng(0, str(copy), "a").random() == drawn[0]


# Work in threads


def test_work_is_done_once_and_little_of_it_waits():
    waiting = []

    def items():
        for number in range(100):
            waiting.append(number)
            yield number

    done = []
    with ThreadPoolExecutor(2) as executor:
        for number, future in fan_out(executor, lambda number: number * number, items()):
            done.append((number, future.result()))
            assert len(waiting) - len(done) <= 4
    assert sorted(done) == [(number, number * number) for number in range(100)]


def test_when_the_caller_stops_nothing_more_is_begun():
    """Two jobs run and two wait when one fails: of those that wait the free thread may take one, and no other."""
    begun, released = [], threading.Event()
    both_run = threading.Barrier(2)

    class Watched(ThreadPoolExecutor):
        def submit(self, *call):
            future = super().submit(*call)
            future.add_done_callback(lambda future: future.cancelled() and released.set())
            return future

    def work(number):
        begun.append(number)
        if number < 2:
            both_run.wait(10)
        if number == 0:
            raise ZeroDivisionError
        released.wait(10)

    with Watched(2) as executor, pytest.raises(ZeroDivisionError):
        for _, future in fan_out(executor, work, range(1000)):
            future.result()
    assert released.is_set()
    assert len(begun) <= 3


def test_fewer_at_once_where_asked():
    running, most = [0], [0]
    lock = threading.Lock()

    def work(number):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.001)
        with lock:
            running[0] -= 1

    with ThreadPoolExecutor(8) as executor:
        assert len(list(fan_out(executor, work, range(30), at_once=2))) == 30
    assert most[0] <= 2
