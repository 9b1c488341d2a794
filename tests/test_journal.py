from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspylab.errors import DataError, EnvironmentProblem, RepositoryError
from dspylab.record.journal import (
    Journal,
    _close_inherited,
    begin_anew,
    begins_anew,
    drop_journal,
    encode,
    is_published,
    peek,
    stored_rows,
)
from dspylab.record.layout import Layout, find_root
from dspylab.record.publish import (
    file_md5,
    read_json,
    read_rows,
    write_atomically,
    write_json,
    write_lines,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "abc123.jsonl"


def row(index: int, **fields: Any) -> dict[str, Any]:
    return {"index": index, "error": None, **fields}


def failure(index: int, kind: str = "endpoint") -> dict[str, Any]:
    return row(index, error={"type": "TimeoutError", "message": "", "kind": kind})


def rows(path: Path) -> list[dict[str, Any]]:
    with Journal(path) as journal:
        return [json.loads(line) for line in journal.rows()]


def python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process that runs code, with `import` of the journal done."""
    head = "import os, sys, time\nfrom pathlib import Path\nfrom dspylab.record.journal import Journal\n"
    command = [sys.executable, "-c", head + dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


HOLD = """
    with Journal(Path(sys.argv[1])) as journal:
        journal.append({"index": 0, "error": None})
        print("held", flush=True)
        time.sleep(60)
"""


@contextlib.contextmanager
def holding(path: Path, code: str = HOLD) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the journal."""
    with python(code, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


# What is kept.


def test_rows_of_examples_that_moved_are_forgotten(path: Path) -> None:
    with Journal(path) as journal:
        for index, name in enumerate("abc"):
            journal.append(row(index, example_id=name))
        journal.append(failure(3) | {"example_id": "d"})
    with Journal(path) as journal:
        journal.keep_only({0: "a", 1: "new", 2: "c"})
        assert journal.indexes == {0, 2}
        assert (journal.failures, journal.retryable) == (0, set())
        journal.append(row(1, example_id="new"))
        assert [json.loads(line)["example_id"] for line in journal.rows()] == ["a", "new", "c"]


def test_scores_are_those_of_the_rows_that_count(path: Path) -> None:
    with Journal(path, "f1") as journal:
        journal.append(row(0, example_id="a", metrics={"f1": 0.5, "other": 1.0}))
        journal.append(row(1, example_id="b", metrics={"f1": 0.25}))
        journal.append(row(2, example_id="c", metrics={"other": 1.0}))
        journal.append(failure(0) | {"metrics": {}})
        journal.append(failure(3) | {"example_id": "d", "metrics": {}})
        journal.append(row(3, example_id="d", metrics={"f1": 1.0}))
        assert journal.scores == {0: 0.5, 1: 0.25, 3: 1.0}
        journal.append(row(1, example_id="b", metrics={}))
        assert journal.scores == {0: 0.5, 3: 1.0}
    with Journal(path, "f1") as journal:
        assert journal.scores == {0: 0.5, 3: 1.0}
        journal.keep_only({0: "a", 3: "new"})
        assert journal.scores == {0: 0.5}
        journal.begin_anew()
        assert journal.scores == {}
        journal.append(row(4, metrics={"f1": 0.75}))
        assert journal.scores == {4: 0.75}
    with Journal(path) as journal:
        assert journal.scores == {}


def test_rows_come_back_in_dataset_order(path: Path) -> None:
    with Journal(path) as journal:
        for index in (5, 1, 3):
            journal.append(row(index, text="Grüße\u2028 \ud800"))
        assert journal.indexes == {1, 3, 5}
        assert [json.loads(line)["index"] for line in journal.rows()] == [1, 3, 5]
    with Journal(path) as journal:
        assert journal.indexes == {1, 3, 5}
        assert journal.torn_lines == 0
        assert [json.loads(line) for line in journal.rows()] == [
            row(index, text="Grüße\u2028 \ud800") for index in (1, 3, 5)
        ]


def test_the_last_row_of_an_example_counts(path: Path) -> None:
    with Journal(path) as journal:
        for text in "abc":
            journal.append(row(0, text=text))
        assert [json.loads(line)["text"] for line in journal.rows()] == ["c"]
    assert [found["text"] for found in rows(path)] == ["c"]


def test_failures_are_counted_and_those_of_the_endpoint_are_tried_again(path: Path) -> None:
    with Journal(path) as journal:
        journal.append(row(0))
        journal.append(failure(1))
        journal.append(failure(2, "program"))
        journal.append(failure(3))
        journal.append(failure(3))
        journal.append(failure(4))
        journal.append(row(4))
        journal.append(failure(5))
        journal.append(failure(5, "program"))
    for _ in range(2):
        with Journal(path) as journal:
            assert journal.indexes == {0, 2, 4, 5}
            assert journal.retryable == {1, 3}
            assert journal.failures == 4
    assert peek(path) == (6, 2)


def test_no_failure_hides_a_result(path: Path) -> None:
    with Journal(path) as journal:
        journal.append(row(0, text="paid"))
        journal.append(failure(0))
        assert journal.indexes == {0}
        assert journal.failures == 0
        assert [json.loads(line)["text"] for line in journal.rows()] == ["paid"]
    assert [found["text"] for found in rows(path)] == ["paid"]
    assert peek(path) == (1, 0)


def published(journal: Journal) -> str | None:
    return journal.published


def test_published_holds_until_something_is_added(path: Path) -> None:
    with Journal(path) as journal:
        assert published(journal) is None
        journal.append(row(0))
        journal.publish("d1")
        assert published(journal) == "d1"
    with Journal(path) as journal:
        assert published(journal) == "d1"
        assert len(list(journal.rows())) == 1
        journal.append(row(1))
        assert published(journal) is None
    with Journal(path) as journal:
        assert published(journal) is None
        journal.publish("d2")
        journal.begin_anew()
        assert (published(journal), journal.indexes, list(journal.rows())) == (None, set(), [])
        journal.append(row(7))
    assert [found["index"] for found in rows(path)] == [7]


def test_peek_needs_no_journal_and_no_lock(path: Path) -> None:
    assert peek(path) == (0, 0)
    with Journal(path) as journal:
        journal.append(row(0))
        journal.append(failure(1))
        assert peek(path) == (2, 1)
    with path.open("ab") as file:
        file.write(b'{"index": 2, "err')
    assert peek(path) == (2, 1)


def test_all_rows_that_were_ever_stored(path: Path) -> None:
    with Journal(path) as journal:
        for found in (failure(0), row(0), row(1)):
            journal.append(found)
        journal.publish("d1")
    with path.open("ab") as file:
        file.write(b"\x00damaged\n3\n" + encode(row(2)) + b"\n" + encode(row(3))[:9])
    assert [found["index"] for found in stored_rows(path)] == [0, 0, 1, 2]


def test_only_its_user_may_read_it(path: Path) -> None:
    with Journal(path) as journal:
        journal.append(row(0))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_index_is_small(path: Path) -> None:
    with Journal(path) as journal:
        for index in range(2000):
            journal.append(row(index, text="x" * 5000))
    tracemalloc.start()
    with Journal(path) as journal:
        assert len(journal.indexes) == 2000
        used, _ = tracemalloc.get_traced_memory()
        count = sum(1 for _ in journal.rows())
        after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2000
    assert used < 500 * 2000
    assert after < 600 * 2000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_a_row_is_one_line_that_says_the_same(value: Any) -> None:
    line = encode({"value": value})
    assert b"\n" not in line
    assert json.loads(line) == {"value": value}


# What a crash leaves.


def test_a_torn_last_line_is_dropped_and_counted(path: Path) -> None:
    whole = encode(row(0)) + b"\n"
    last = encode(row(1, text="ü" * 10)) + b"\n"
    for cut in range(1, len(last)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(whole + last[:cut])
        with Journal(path) as journal:
            assert journal.torn_lines == 1
            assert journal.indexes == {0}
            journal.append(row(2))
        with Journal(path) as journal:
            assert journal.torn_lines == 0
            assert journal.indexes == {0, 2}


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00" * 40,
        b"\xff\xfe",
        b"{}",
        b"3",
        b"null",
        b"[]",
        b'"published"',
        b'{"index": "x"}',
        b'{"index": 9, "error": 3}',
        b'{"index": 9, "error": {}}',
        b"[" * 50_000,
        b"",
    ],
)
def test_a_damaged_line_costs_no_other(path: Path, damage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\n".join([encode(row(0)), damage, encode(row(1, text="after")), b""]))
    with Journal(path) as journal:
        assert journal.torn_lines == 1
        assert journal.indexes == {0, 1}
        journal.append(row(2))
        assert [json.loads(line)["index"] for line in journal.rows()] == [0, 1, 2]
    assert [found["index"] for found in rows(path)] == [0, 1, 2]


KILLS = """
    # Forks a process that appends and says after each append that it returned, kills it, and again.
    import random, signal
    chance = random.Random(4)
    for kill in range(20):
        said, say = os.pipe()
        appending = os.fork()
        if appending == 0:
            with Journal(Path(sys.argv[1])) as journal:
                index = len(journal.indexes)
                while True:
                    text = "x" * (index % 7 * 9000)
                    journal.append({"index": index, "error": None, "kill": kill, "text": text})
                    os.write(say, b"%d %d\\n" % (kill, index))
                    index += 1
        os.close(say)
        first = os.read(said, 1)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(appending, signal.SIGKILL)
        os.waitpid(appending, 0)
        sys.stdout.write((first + os.fdopen(said, "rb").read()).decode())
"""


def test_sigkill_at_any_moment_loses_no_row_that_was_acknowledged(path: Path) -> None:
    with python(KILLS, path) as process:
        assert process.stdout is not None
        acknowledged = {tuple(map(int, line.split())) for line in process.stdout}
    assert process.returncode == 0
    found = rows(path)
    # A row that was lost would have been written again after a later kill.
    assert acknowledged <= {(row["kill"], row["index"]) for row in found}
    # Beyond those there may be the one that was just written at each kill.
    assert len(acknowledged) <= len(found) <= len(acknowledged) + 20
    assert [row["index"] for row in found] == list(range(len(found)))
    assert all(len(row["text"]) == row["index"] % 7 * 9000 for row in found)
    assert len({kill for kill, _ in acknowledged}) == 20


@pytest.mark.parametrize("way", ["sigterm", "exit", "raise"])
def test_other_ways_to_die(path: Path, way: str) -> None:
    code = """
        with Journal(Path(sys.argv[1])) as journal:
            journal.append({"index": 0, "error": None})
            if sys.argv[2] == "sigterm":
                os.kill(os.getpid(), 15)
            elif sys.argv[2] == "exit":
                os._exit(3)
            raise ValueError
    """
    with python(code, path, way, stderr=subprocess.DEVNULL) as process:
        assert process.wait() != 0
    assert [found["index"] for found in rows(path)] == [0]


# Who holds it.


def test_a_second_process_is_told_who_holds_it(path: Path) -> None:
    with holding(path) as process:
        with pytest.raises(RepositoryError) as caught, Journal(path):
            pass
        assert f"run abc123: is being executed by process {process.pid} on " in str(caught.value)
        assert "wait until it is done" in str(caught.value)
        assert peek(path) == (1, 0)
    # It was killed: nothing needs to be cleaned up by hand, and what it left says nothing wrong.
    assert path.with_suffix(".holder").exists()
    with Journal(path) as journal:
        assert journal.indexes == {0}
        with pytest.raises(RepositoryError, match=rf"process {os.getpid()} on "), Journal(path):
            pass
    assert not path.with_suffix(".holder").exists()


def test_a_process_that_was_forked_does_not_keep_it(path: Path) -> None:
    code = """
        with Journal(Path(sys.argv[1])) as journal:
            journal.append({"index": 0, "error": None})
            forked = os.fork()
            if forked == 0:
                print(os.getpid(), flush=True)  # it runs, so it has let go of the journal
                os.close(1)
                time.sleep(60)
                os._exit(0)
            time.sleep(60)
    """
    with python(code, path) as process:
        assert process.stdout is not None
        forked = int(process.stdout.readline())
        try:
            process.kill()
            process.wait()
            assert [found["index"] for found in rows(path)] == [0]
        finally:
            os.kill(forked, signal.SIGKILL)


def test_what_a_forked_process_does_with_a_journal(path: Path) -> None:
    """What every child of this process does first, done in this one: it lets go, and leaving does no harm."""
    with Journal(path) as held:
        held.append(row(0))
        with pytest.raises(RepositoryError), Journal(path):
            pass
        _close_inherited()
        with Journal(path) as journal:
            assert journal.indexes == {0}


def test_a_journal_whose_holder_did_not_say_who_it_is(path: Path) -> None:
    """It says so on a disk with space for it."""
    with Journal(path):
        for leave in (lambda holder: holder.write_text(""), Path.unlink):
            leave(path.with_suffix(".holder"))
            with pytest.raises(RepositoryError, match="is being executed by another process"), Journal(path):
                pass


def test_a_journal_is_dropped_with_what_belongs_to_it(path: Path) -> None:
    with Journal(path) as journal:
        journal.append(row(0))
    path.with_suffix(".holder").write_text("left by a process that was killed")
    drop_journal(path)
    assert list(path.parent.iterdir()) == []
    drop_journal(path)
    assert list(path.parent.iterdir()) == []


def test_a_journal_that_another_process_holds_is_not_dropped(path: Path) -> None:
    with holding(path):
        drop_journal(path)
        assert path.exists()
    assert [found["index"] for found in rows(path)] == [0]


def test_a_journal_that_is_dropped_while_it_is_opened_is_begun_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else this process would write into a file that nobody finds, while the next one begins another."""
    lock = fcntl.flock
    dropped: list[Path] = []

    def drop_first(file: int, how: int) -> None:
        if not dropped:
            path.unlink()
            dropped.append(path)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", drop_first)
    with Journal(path) as journal:
        journal.append(row(0))
    assert dropped
    assert [found["index"] for found in rows(path)] == [0]


# Full disks and folders that cannot be written.


def test_a_full_disk_leaves_it_whole(path: Path) -> None:
    """The limit of a file's size fails a write half way, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        journal.append(row(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            said = r"abc123\.jsonl: cannot be written: (no space left on device|File too large): free disk"
            with pytest.raises(EnvironmentProblem, match=said) as caught:
                journal.append(row(1, text="x" * 2000))
            assert caught.value.exit_code == 3
            assert journal.indexes == {0}
            journal.append(row(2))
            with pytest.raises(EnvironmentProblem):
                journal.append(failure(0) | {"text": "x" * 2000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [json.loads(line)["index"] for line in journal.rows()] == [0, 2]
        journal.append(row(1))
    with Journal(path) as journal:
        assert journal.torn_lines == 0
        assert journal.indexes == {0, 1, 2}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    path = small_disk / "journal" / "abc.jsonl"
    kept = 0
    with Journal(path) as journal:
        with contextlib.suppress(EnvironmentProblem):
            while kept < 100:
                journal.append(row(kept, text="x" * 3000))
                kept += 1
        assert journal.indexes == set(range(kept))
        with pytest.raises(EnvironmentProblem, match="No space left"):
            write_atomically(small_disk / "raw.jsonl", journal.rows())
    assert 10 < kept < 25
    # The next session begins, holder file or not, reads all, and can go on as soon as there is space.
    assert {found["index"] for found in rows(path)} == set(range(kept))
    assert sorted(file.name for file in small_disk.rglob("*")) == ["abc.jsonl", "journal"]


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "summary.json"
    write_json(path, {"old": True})
    with pytest.raises(EnvironmentProblem, match=r"summary.json: cannot be written: No space left on device"):
        write_json(path, {"new": "x" * 100_000})
    assert read_json(path) == {"old": True}
    assert list(small_disk.iterdir()) == [path]


def unprivileged(code: str, *arguments: object) -> str:
    """What a process says that may not write where it pleases, also when the tests run as root."""
    head = """
        import os, sys
        from pathlib import Path
        import dspylab.record.journal, dspylab.record.publish
        from dspylab.errors import DspylabError
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            {code}
        except DspylabError as error:
            print(error)
    """
    command = [sys.executable, "-c", dedent(head).format(code=code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "ro"
    folder.mkdir()
    (folder / "summary.json").write_text("{}\n")
    for above in [folder, *list(folder.parents)[:3]]:
        above.chmod(0o555 if above == folder else above.stat().st_mode | 0o055)
    yield folder
    folder.chmod(0o755)


def test_a_folder_that_cannot_be_written(read_only: Path) -> None:
    publish = "dspylab.record.publish.write_json(Path(sys.argv[1]), {})"
    said = unprivileged(publish, read_only / "summary.json")
    assert said.startswith(f"{read_only}/summary.json: cannot be written: Permission denied: free disk space")
    assert (read_only / "summary.json").read_text() == "{}\n"
    assert len(list(read_only.iterdir())) == 1
    said = unprivileged(
        "dspylab.record.journal.Journal(Path(sys.argv[1])).__enter__()", read_only / "j/a.jsonl"
    )
    assert said == f"{read_only}/j: cannot be written: Permission denied: make the folder writable\n"


def test_a_journal_in_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    said = r"journal: cannot be written: (File exists|Not a directory): make the folder writable"
    with pytest.raises(EnvironmentProblem, match=said), Journal(tmp_path / "journal" / "a.jsonl"):
        pass
    said = r"/x\.json: cannot be written: (File exists|Not a directory): free disk space or make it writable$"
    with pytest.raises(EnvironmentProblem, match=said):
        write_json(tmp_path / "journal" / "x.json", {})


def test_a_journal_in_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal" / ("0123456789abcdef" + ".jsonl")
    with Journal(path) as journal:
        journal.append(row(0))
        said = r"^run 0123456789ab: is being .*: wait until it is done, or stop it; what it finished is kept$"
        with pytest.raises(RepositoryError, match=said), Journal(path):
            pass


def test_every_torn_line_is_counted(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"{\n[]\n" + encode(row(0)) + b'\n3\n{"index"')
    with Journal(path) as journal:
        assert (journal.torn_lines, journal.indexes) == (4, {0})


def test_a_journal_that_is_a_device(path: Path) -> None:
    """Opening it goes well and cutting it does not, as on a disk that fails."""
    path.parent.mkdir()
    path.symlink_to(os.devnull)
    journal = Journal(path)
    with (
        pytest.raises(EnvironmentProblem, match=r"abc123\.jsonl: cannot be read: .*: check the disk"),
        journal,
    ):
        pass
    # Nobody holds it.
    with pytest.raises(EnvironmentProblem, match="cannot be read"), journal:
        pass


def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said = (
        r"abc123\.jsonl: cannot be locked: No locks available: keep the repository on a file system that has"
    )
    with pytest.raises(EnvironmentProblem, match=said), Journal(path):
        pass


# Beginning anew.


def test_a_journal_that_begins_anew_says_so(path: Path) -> None:
    assert not begins_anew(path)
    with Journal(path) as journal:
        assert not journal.is_anew
        journal.append(row(0))
    assert not begins_anew(path)
    begin_anew(path)
    assert begins_anew(path)
    assert peek(path) == (0, 0)
    with Journal(path) as journal:
        assert journal.is_anew
        journal.append(row(1))
        journal.begin_anew()
        assert journal.is_anew
        journal.append(row(2))
    assert begins_anew(path)
    assert [found["index"] for found in rows(path)] == [2]


def test_a_journal_that_is_held_does_not_begin_anew(path: Path) -> None:
    with Journal(path) as journal:
        journal.append(row(0))
        begin_anew(path)
    assert peek(path) == (1, 0)


@pytest.mark.parametrize("line", [b"", b"\xff", b"{", b"3", b"null", b"[" * 50_000])
def test_what_is_no_journal_begins_nothing(path: Path, line: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(line)
    assert not begins_anew(path)


def test_whether_all_is_published_is_seen_from_outside(path: Path) -> None:
    assert not is_published(path)
    with Journal(path) as journal:
        journal.append(row(0))
        journal.publish("d1")
        assert is_published(path)
        journal.append({"abandoned": True, "index": 1})
        assert is_published(path)  # nothing was finished
        journal.append(failure(1))
        assert not is_published(path)


def test_an_abandoned_example_is_stored_and_called_again(path: Path) -> None:
    with Journal(path) as journal:
        journal.append({"abandoned": True, "calls": []})
        journal.append(row(0))
    assert [list(found) for found in stored_rows(path)] == [["abandoned", "calls"], ["index", "error"]]
    with Journal(path) as journal:
        assert journal.indexes == {0}
        assert [json.loads(line)["index"] for line in journal.rows()] == [0]


# Publishing.


def test_what_a_dead_process_left_is_swept_away_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "raw[1].jsonl"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = [
        f".raw[1].jsonl.{os.getpid()}-7.tmp",
        ".raw[1].jsonl.99999999999999999999999-7.tmp",  # of no machine that we know
        ".raw[1].jsonl.x-7.tmp",
        f".raw1.jsonl.{dead.pid}-7.tmp",
        f".raw[1].jsonl.{dead.pid}-7",
    ]
    for name in (*kept, f".raw[1].jsonl.{dead.pid}-7.tmp", f".raw[1].jsonl.{dead.pid}-8.tmp"):
        (tmp_path / name).write_text("left")
    write_json(path, {})
    assert {left.name for left in tmp_path.iterdir()} == {path.name, *kept}


def test_documents_are_for_people_and_for_git(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": ["ä", None], "a": {}})
    assert (tmp_path / "a.json").read_text() == ('{\n  "b": [\n    "ä",\n    null\n  ],\n  "a": {}\n}\n')
    write_lines(tmp_path / "b.json", [{"x": 1, "y": "ä"}, {"x": "\ud800"}])
    assert (tmp_path / "b.json").read_text() == '[\n{"x": 1, "y": "ä"},\n{"x": "\\ud800"}\n]\n'
    write_lines(tmp_path / "c.json", [])
    assert json.loads((tmp_path / "c.json").read_text()) == []
    for write in (write_json, lambda path, value: write_lines(path, [value])):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write(tmp_path / "d.json", {"x": math.nan})
    assert file_md5(tmp_path / "c.json") == hashlib.md5(b"[\n\n]\n").hexdigest()
    assert file_md5(tmp_path / "d.json") is None


def test_a_row_has_no_number_that_is_none(path: Path) -> None:
    for value in (math.nan, "\ud800", [math.inf, "\ud800"]):
        if value == "\ud800":
            assert encode({"a": value, "b": "ä"}) == '{"a":"\\ud800","b":"ä"}'.encode()
        else:
            with pytest.raises(ValueError, match="not JSON compliant"):
                encode({"a": value})
    assert encode({"a": 1, "b": "ä"}) == '{"a":1,"b":"ä"}'.encode()


def test_publishing_replaces_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "raw.jsonl"
    assert write_atomically(path, [b"one\n", b"two\n"]) == hashlib.md5(b"one\ntwo\n").hexdigest()
    assert path.read_bytes() == b"one\ntwo\n"

    def broken() -> Iterator[bytes]:
        yield b"three\n"
        assert path.read_bytes() == b"one\ntwo\n"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, broken())
    assert path.read_bytes() == b"one\ntwo\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_process_that_is_killed_while_it_publishes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "raw.jsonl"
    path.write_text("old\n")
    code = """
        from dspylab.record.publish import write_atomically
        def chunks():
            yield b"new" * 100_000
            print("half", flush=True)
            time.sleep(60)
        write_atomically(Path(sys.argv[1]), chunks())
    """
    with python(code, path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(list(tmp_path.iterdir())) == 2
        # While it lives its file is its own, whoever else writes the same.
        write_atomically(path, [b"newer\n"])
        assert len(list(tmp_path.iterdir())) == 2
        process.kill()
    assert path.read_text() == "newer\n"
    write_atomically(path, [b"newest\n"])
    assert list(tmp_path.iterdir()) == [path]


def test_many_that_publish_at_once(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"

    def write(number: int) -> None:
        for _ in range(20):
            write_json(path, {"who": number, "text": str(number) * 10_000})

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            found = read_json(path)
            assert found["text"] == str(found["who"]) * 10_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_of_the_user_counts(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "summary.json"
    before = os.umask(umask)
    try:
        write_json(path, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_link_into_the_cache_of_dvc_is_replaced_not_followed(tmp_path: Path) -> None:
    cached = tmp_path / "cache"
    cached.write_text("recorded")
    cached.chmod(0o444)
    for name, link in (("soft", Path.symlink_to), ("hard", Path.hardlink_to)):
        path = tmp_path / name / "raw.jsonl"
        path.parent.mkdir()
        link(path, cached)
        write_atomically(path, [b"new"])
        assert (path.read_text(), cached.read_text()) == ("new", "recorded")
        assert not path.is_symlink()


def test_a_folder_that_is_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_json(tmp_path / "link" / "a.json", {"text": "\ud800"})
    assert read_json(tmp_path / "real" / "a.json") == {"text": "\ud800"}


def test_what_cannot_be_read_back_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(DataError, match=r"x.json: no such file: run the experiment"):
        read_json(path)
    with pytest.raises(DataError, match=r"x.json: no such file: run the experiment"):
        list(read_rows(path))
    for content, said in (
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"x.json: {said}.*restore it"):
            read_json(path)
        path.write_bytes(b"{}\n" + content)
        with pytest.raises(DataError, match=f"x.json:2: {said}.*restore it"):
            list(read_rows(path))
    for read in (read_json, lambda folder: list(read_rows(folder))):
        with pytest.raises(DataError) as caught:
            read(tmp_path)
        assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory: make it a readable file"


# Where things lie.


def test_the_root_is_the_nearest_repository(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    assert find_root(folder) == folder
    (tmp_path / ".git").write_text("gitdir: elsewhere")
    assert find_root(folder) == tmp_path
    (tmp_path / "a" / ".dvc").mkdir()
    assert find_root(folder) == tmp_path / "a"


def test_the_layout(tmp_path: Path) -> None:
    layout = Layout(folder=tmp_path / "experiments/x", root=tmp_path)
    assert layout.raw("r-1") == tmp_path / "experiments/x/results/r-1/raw.jsonl"
    assert layout.info("r-1").parent == layout.raw("r-1").parent
    assert layout.summary == tmp_path / "experiments/x/summary.json"
    assert layout.metrics == tmp_path / "experiments/x/metrics.json"
    assert layout.journal("ab") == tmp_path / ".dspylab/journal/ab.jsonl"
    layout.make_private()
    layout.make_private()
    assert (tmp_path / ".dspylab/.gitignore").read_text() == "*\n"


def test_where_programs_and_private_files_lie(tmp_path: Path) -> None:
    layout = Layout(folder=tmp_path / "experiments/x", root=tmp_path)
    assert layout.results == tmp_path / "experiments/x/results"
    program, record = layout.compiled("fewshot-mini")
    assert program == tmp_path / "experiments/x/programs/fewshot-mini.json"
    assert record == tmp_path / "experiments/x/programs/fewshot-mini.record.json"
    assert layout.plot("score") == tmp_path / "experiments/x/plots/score.json"
    assert layout.answers("r") == tmp_path / ".dspylab/answers/experiments/x/r"
    assert layout.compiling("ab") == tmp_path / ".dspylab/compile/ab"
    assert layout.set_aside("ab") == tmp_path / ".dspylab/programs/ab"
