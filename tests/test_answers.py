"""The answers that are kept beside the journals: which are found again, which are recorded, which go."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspylab.record.answers import EarlierRows, KeptAnswers, holder, inherit, recorded_in, retired
from dspylab.record.layout import Layout
from dspylab.record.publish import file_md5, write_json
from dspylab.records import DataRow


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(folder=tmp_path / "experiments/x", root=tmp_path)


def publish(layout: Layout, text: str, **info: str) -> Path:
    """Results of the run `r`."""
    layout.raw("r").parent.mkdir(parents=True, exist_ok=True)
    layout.raw("r").write_text(text)
    write_json(layout.info("r"), info)
    return layout.raw("r")


def kept(layout: Layout, answers: str = "a1", config: str = "c1") -> KeptAnswers:
    return KeptAnswers(layout, "r", answers, config)


def follow(layout: Layout, text: str, answers: str = "a1", config: str = "c1") -> Path:
    """A journal of the run, which is kept."""
    journal = layout.root / f"{answers}-{config}"
    journal.write_text(text)
    kept(layout, answers, config).follow(journal)
    return layout.answers("r") / f"{answers}-{config}.jsonl"


def recorded(*paths: Path) -> Callable[[str], bool]:
    return {file_md5(path) for path in paths}.__contains__


def test_answers_outlive_the_journal_and_grow_with_it(layout: Layout) -> None:
    own = follow(layout, "one\n")
    journal = layout.root / "a1-c1"
    with journal.open("a") as file:
        file.write("two\n")
    journal.unlink()
    assert own.read_text() == "one\ntwo\n"
    assert kept(layout).sources() == [own]
    # What it follows anew takes the place of what it had.
    assert follow(layout, "three\n").read_text() == "three\n"


def test_the_latest_answers_come_first_and_published_ones_last(layout: Layout) -> None:
    old, new, same = (follow(layout, name, config=name) for name in ("c1", "c2", "c3"))
    other = follow(layout, "of other answers", answers="a2")
    os.utime(new, (2, 2))
    for path in (old, same):
        os.utime(path, (1, 1))
    assert kept(layout).sources() == [new, same, old]
    raw = publish(layout, "rows", answers_hash="a1", config_hash="c9")
    assert kept(layout).sources() == [new, same, old, raw]
    assert kept(layout, "a2").sources() == [other]
    assert kept(layout, "a3").sources() == []


def test_a_file_that_goes_meanwhile_is_the_oldest(layout: Layout) -> None:
    here = follow(layout, "here")
    gone = here.with_name("a1-c0.jsonl")
    gone.symlink_to("nowhere")
    assert kept(layout).sources() == [here, gone]


def test_complete_results_are_all_that_is_kept(layout: Layout) -> None:
    old, own = follow(layout, "old", config="c0"), follow(layout, "part")
    raw = publish(layout, "whole", answers_hash="a1", config_hash="c1")
    kept(layout).replace(raw)
    assert not old.exists()
    assert own.samefile(raw)
    assert list(layout.answers("r").iterdir()) == [own]


def test_what_is_kept_of_a_configuration_outlives_another_journal_of_it(layout: Layout) -> None:
    """Results that were lost are made from it, also when that is interrupted."""
    follow(layout, "complete").touch()
    (layout.root / "a1-c1").unlink()
    own = follow(layout, "begun")
    assert sorted(path.read_text() for path in kept(layout).sources()) == ["begun", "complete"]
    kept(layout).follow(layout.root / "a1-c1")
    assert len(kept(layout).sources()) == 2, "the same journal again"
    assert holder(layout, "a1", "c1", ["q", "r"]) == "r"
    assert holder(layout, "a1", "c2", ["q", "r"]) is None

    (layout.root / "a1-c1").unlink()
    (layout.root / "a1-c1").write_text("anew")
    kept(layout).follow(layout.root / "a1-c1", anew=True)
    assert own.read_text() == "anew"
    kept(layout).replace(publish(layout, "done"))
    assert [path.read_text() for path in kept(layout).sources()] == ["done"]


def test_without_hard_links_nothing_is_kept_and_nothing_breaks(layout: Layout) -> None:
    kept(layout).follow(layout.root / "there is no such journal")
    assert kept(layout).sources() == []


def test_results_of_this_very_configuration_are_recorded(layout: Layout) -> None:
    own = follow(layout, "kept")
    assert kept(layout).are_recorded(recorded(own))
    assert not kept(layout).are_recorded(recorded())
    assert not kept(layout, config="c2").are_recorded(recorded(own))
    raw = publish(layout, "published", answers_hash="a1", config_hash="c2")
    assert kept(layout, config="c2").are_recorded(recorded(raw))
    assert not kept(layout).are_recorded(recorded(raw))


def test_results_are_up_to_date_when_they_are_recorded_as_they_are(layout: Layout) -> None:
    assert not kept(layout).are_up_to_date(lambda _: True)
    raw = publish(layout, "published", config_hash="c1")
    as_it_was = recorded(raw)
    assert kept(layout).are_up_to_date(as_it_was)
    assert not kept(layout, config="c2").are_up_to_date(as_it_was)
    raw.write_text("edited")
    assert not kept(layout).are_up_to_date(as_it_was)
    raw.unlink()
    assert not kept(layout).are_up_to_date(lambda _: True)


def test_a_run_json_that_is_damaged_is_none(layout: Layout) -> None:
    publish(layout, "published", answers_hash="a1", config_hash="c1")
    layout.info("r").write_text("{")
    assert kept(layout).sources() == []
    assert not kept(layout).are_up_to_date(lambda _: True)


# --- runs that are no longer in the matrix


def test_a_new_run_inherits_from_runs_that_are_gone(layout: Layout) -> None:
    assert retired(layout, {"r"}) == []
    assert layout.all_answers == layout.root / ".dspylab/answers/experiments/x"
    for run in ("gone", "stays"):
        folder = layout.answers(run)
        folder.mkdir(parents=True)
        (folder / f"a1-{run}.jsonl").write_text(run)
        (folder / f"a2-{run}.jsonl").write_text("other answers")
    folders = retired(layout, {"stays", "r"})
    assert folders == [layout.answers("gone")]
    for _ in range(2):
        inherit(layout, "r", "a1", folders)
        assert [path.name for path in layout.answers("r").iterdir()] == ["a1-gone.jsonl"]
    assert (layout.answers("r") / "a1-gone.jsonl").read_text() == "gone"
    # One heir: another run that would ask the same asks for itself.
    inherit(layout, "s", "a1", folders)
    assert not layout.answers("s").exists()
    assert [path.name for path in layout.answers("gone").iterdir()] == ["a2-gone.jsonl"]


def test_what_one_file_can_not_be_linked_keeps_no_other_back(layout: Layout) -> None:
    gone, own = layout.answers("gone"), layout.answers("r")
    for folder in (gone, own):
        folder.mkdir(parents=True)
    for name in ("a1-x.jsonl", "a1-y.jsonl", "a1-z.jsonl"):
        (gone / name).write_text(name)
    (own / "a1-y.jsonl").write_text("its own")
    inherit(layout, "r", "a1", [gone])
    assert {path.name: path.read_text() for path in own.iterdir()} == {
        "a1-x.jsonl": "a1-x.jsonl",
        "a1-y.jsonl": "its own",
        "a1-z.jsonl": "a1-z.jsonl",
    }


def test_the_lock_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    is_recorded = recorded_in(lock)
    assert not is_recorded("abc")
    lock.write_bytes(b"md5: abc\n\xff")
    assert is_recorded("abc")
    assert not is_recorded("def")
    lock.write_text("md5: def, and longer\n")
    assert is_recorded("def")
    assert not is_recorded("abc")
    lock.unlink()
    assert not is_recorded("def")


# --- rows


def row(index: int, label: str = "bug", **fields: Any) -> dict[str, Any]:
    usual = {"index": index, "inputs": {"text": index}, "error": None, "prediction": {"label": label}}
    return {**usual, "exact_prediction": True, **fields}


def example(index: int, text: Any = None) -> DataRow:
    inputs = {"text": index if text is None else text}
    return DataRow(index=index, example_id=f"new {index}", inputs=inputs, labels={"label": "corrected"})


def earlier(*paths: Path) -> EarlierRows:
    return EarlierRows(paths, [example(index) for index in range(10)])


def failed(index: int, kind: str) -> dict[str, Any]:
    return row(index, prediction=None, error={"type": "X", "kind": kind})


def written(path: Path, *lines: Any) -> Path:
    path.write_bytes(
        b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    )
    return path


def test_rows_that_save_a_call(tmp_path: Path) -> None:
    path = written(
        tmp_path / "rows.jsonl",
        row(0, "ä" * 9),
        row(1, exact_prediction=False),
        row(2, prediction=None),
        failed(3, "program"),
        failed(4, "endpoint"),
        {"answer": row(5, "unscored"), "abandoned": True},
        row(6, exact_prediction="yes"),
        {**row(7), "prediction": None, "error": {"type": "X"}},
        row(8, "judge failed", error={"type": "X", "kind": "endpoint"}),
    )
    rows = earlier(path)
    assert rows.indexes == {0, 3, 5, 8}
    assert rows.row(0) == row(0, "ä" * 9)
    assert rows.row(3) == failed(3, "program")
    assert rows.row(5) == row(5, "unscored")
    assert rows.row(1) is None


def test_damaged_lines_cost_no_other(tmp_path: Path) -> None:
    damage = [
        b"\xff\n",
        b"{\n",
        b"3\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'{"answer": 3}\n',
        b"[" * 50_000 + b"\n",
    ]
    path = written(tmp_path / "rows.jsonl", row(0), *damage, row(1), b'{"index": 2, "predic')
    rows = earlier(path)
    assert rows.indexes == {0, 1}
    assert rows.row(1) == row(1)


def test_the_last_row_of_the_first_file_counts(tmp_path: Path) -> None:
    paths = [
        tmp_path / "there is none",
        written(tmp_path / "nothing in it", row(9, exact_prediction=False)),
        written(tmp_path / "first", row(0, "early"), row(0, "late"), row(1, "first")),
        written(tmp_path / "second", row(0, "second"), row(1, "second"), row(2, "second")),
    ]
    rows = earlier(*paths)
    labels = {index: (rows.row(index) or {})["prediction"]["label"] for index in rows.indexes}
    assert labels == {0: "late", 1: "first", 2: "second"}


def test_an_example_has_the_row_that_was_asked_the_same(tmp_path: Path) -> None:
    """Whatever it is called, wherever it stands, and whatever its label is."""
    path = written(tmp_path / "rows", row(0, "zero"), row(1, "one"), row(2, "two"))
    rows = EarlierRows([path], [example(0, 2), example(1, "new"), example(2, 0)])
    assert {index: (rows.row(index) or {})["prediction"]["label"] for index in rows.indexes} == {
        0: "two",
        2: "zero",
    }


def test_examples_that_ask_the_same_have_a_row_each(tmp_path: Path) -> None:
    same = [row(index, f"{index}", inputs={"text": "same"}, started_at=float(index)) for index in (3, 1)]
    first = written(tmp_path / "first", row(1, "late", inputs={"text": "same"}, started_at=9.0))
    second = written(tmp_path / "second", *same)
    rows = EarlierRows([first, second], [example(i, "same") for i in range(3)])
    labels = {index: (rows.row(index) or {})["prediction"]["label"] for index in rows.indexes}
    assert labels == {0: "1", 1: "late", 2: "3"}


def test_an_answer_is_not_given_to_two_examples(tmp_path: Path) -> None:
    """Not that of another one that is finished, nor a copy of it that was scored again."""
    again = row(1, "B", inputs={"text": "same"}, started_at=2.0)
    finished = written(tmp_path / "journal", again)
    kept = written(tmp_path / "kept", {**again, "rescored": True})
    examples = [example(0, "same"), example(1, "same")]
    assert EarlierRows([finished], examples).indexes == {1}
    assert EarlierRows([finished, kept], examples).indexes == {1}
    assert EarlierRows([kept], [*examples, example(2, "same")][::-1]).indexes == {1}


def test_values_of_other_types_are_not_the_same(tmp_path: Path) -> None:
    path = written(tmp_path / "rows", row(0, inputs={"text": 1}))
    for position, other in enumerate([1.0, True, "1", [1]]):
        assert not EarlierRows([path], [example(position, other)]).indexes
    assert EarlierRows([path], [example(0, 1)]).indexes == {0}


def test_the_order_of_inputs_and_half_a_character_do_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path / "rows", row(0, inputs={"a": {"x": 1, "y": "\ud800"}, "b": 2}))
    asked = DataRow(index=0, example_id="e", inputs={"b": 2, "a": {"y": "\ud800", "x": 1}}, labels={})
    assert EarlierRows([path], [asked]).indexes == {0}


def test_rows_are_read_whatever_becomes_of_the_name(tmp_path: Path) -> None:
    path = written(tmp_path / "rows", row(0))
    rows = earlier(path)
    path.unlink()
    assert rows.row(0) == row(0)


def test_a_file_that_somebody_changes_is_not_believed(tmp_path: Path) -> None:
    first, second = json.dumps(row(0)), json.dumps(row(1))
    path = tmp_path / "rows"
    path.write_text(f"{first}\n{second}\n")
    rows = earlier(path)
    path.write_text(f"{second}\n{first}\n")
    assert rows.row(0) is None
    path.write_text("x" * 999)
    assert rows.row(0) is None
    path.write_text("3" + " " * 999)
    assert rows.row(0) is None
    path.write_text('{"answer": {"index": 0}}' + " " * 999)
    assert rows.row(0) is None


def times_open(path: Path) -> int:
    """How many descriptors of this process lead to a file."""
    count = 0
    for number in range(256):
        with contextlib.suppress(OSError):
            count += os.path.samestat(os.fstat(number), path.stat())
    return count


def test_files_are_closed_when_nobody_reads_them_any_more(tmp_path: Path) -> None:
    read, empty = written(tmp_path / "rows", row(0)), written(tmp_path / "none", b"\n")
    rows = earlier(read, empty)
    assert (times_open(read), times_open(empty)) == (1, 0)
    del rows
    assert times_open(read) == 0
