from __future__ import annotations

import csv
import datetime as dt
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspylab.config.files import DATASET_KINDS
from dspylab.config.models import Dataset
from dspylab.errors import DataError, EnvironmentProblem
from dspylab.program.dataset import Splits, file_digest, load_splits
from dspylab.program.formats import _READERS, read_file
from dspylab.records import DataRow

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the experiment, which is also the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def unresolved(reference: str) -> Any:
    raise AssertionError(f"{reference} is no loader")


def splits(resolve: Callable[[str], Any] = unresolved, **dataset: Any) -> Splits:
    content = {"inputs": ["text"], **dataset}
    return load_splits(Dataset.model_validate(content), Path.cwd(), resolve)


def write(name: str, content: str | bytes | Rows) -> str:
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    Path(name).write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return name


def tickets(count: int) -> Rows:
    return [{"text": f"ticket {number}", "label": "ab"[number % 2]} for number in range(count)]


def inputs(rows: tuple[DataRow, ...]) -> list[Any]:
    return [row.inputs["text"] for row in rows]


def problem(**dataset: Any) -> str:
    with pytest.raises(DataError) as caught:
        splits(**dataset)
    return str(caught.value)


# Formats.


SAME = [{"text": "He said “hi”,\nthen\tleft", "label": "a"}, {"text": "", "label": "b, c"}]


def quoted(delimiter: str) -> str:
    field = SAME[0]["text"]
    return f'text{delimiter}label\n"{field}"{delimiter}a\n{delimiter}"b, c"\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.jsonl", "".join(json.dumps(row) + "\n" for row in SAME)),
        ("d.ndjson", "\n".join(json.dumps(row, ensure_ascii=False) for row in SAME)),
        ("d.JSONL", "\r\n\r\n".join(json.dumps(row) for row in SAME) + "\r\n   \r\n"),
        ("d.json", json.dumps(SAME, indent=2)),
        ("d.csv", quoted(",")),
        ("d.csv", quoted(",").replace("\n,", "\r\n\r\n,").replace("label\n", "label\r\n")),
        ("d.tsv", quoted("\t")),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "bom"])
def test_all_formats_say_the_same(name: str, content: str, mark: str) -> None:
    found = splits(path=write(name, mark + content)).test
    assert [{**row.inputs, **row.labels} for row in found] == SAME
    assert [row.index for row in found] == [0, 1]


def test_parquet() -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    when = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    rows = [
        {"text": f"row {n}", "score": n / 2, "tags": ["x"], "at": when, "more": {"n": n}} for n in range(3000)
    ]
    pq.write_table(pa.Table.from_pylist(rows), "d.parquet")
    found = splits(path="d.parquet").test
    assert found[2999].inputs == {"text": "row 2999"}
    labels = {"score": 1499.5, "tags": ["x"], "at": "2026-01-02T03:04:05+00:00", "more": {"n": 2999}}
    assert found[2999].labels == labels
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["text", "text"]), "d.parquet")
    assert problem(path="d.parquet") == (
        "d.parquet: has two columns called 'text': give each a name of its own"
    )
    pq.write_table(pa.Table.from_pylist([{"text": b"\xff"}]), "d.parquet")
    assert "d.parquet: row 1: field 'text' is a bytes, which is not JSON" in problem(path="d.parquet")
    write("d.parquet", "text\nnot parquet")
    assert "is not a parquet file" in problem(path="d.parquet")


def test_parquet_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write("d.parquet", "")
    with pytest.raises(
        EnvironmentProblem, match=r"d.parquet: reading parquet needs pyarrow: pip install 'pyarrow>="
    ):
        splits(path="d.parquet")


def test_the_kinds_that_the_experiment_file_may_name_are_those_that_can_be_read() -> None:
    assert set(DATASET_KINDS) == set(_READERS)


def test_numbers_in_tables_stay_text() -> None:
    write("d.csv", "text,label\n007,1.50\nNaN,\n")
    assert [{**row.inputs, **row.labels} for row in splits(path="d.csv").test] == [
        {"text": "007", "label": "1.50"},
        {"text": "NaN", "label": ""},
    ]


def test_line_separators_inside_of_text_end_no_line() -> None:
    text = "one\u2028two\x85three\x0bfour"
    write("d.jsonl", json.dumps({"text": text}, ensure_ascii=False) + "\n")
    write("d.csv", f"text,label\n{text},a\n")
    for name in ("d.jsonl", "d.csv"):
        assert inputs(splits(path=name).test) == [text]


def test_old_line_ends_in_a_table() -> None:
    assert inputs(splits(path=write("d.csv", "text,label\ra,1\rb,2\r")).test) == ["a", "b"]


def test_lone_surrogates_are_kept() -> None:
    assert inputs(splits(path=write("d.jsonl", '{"text": "\\ud800 x"}\n')).test) == ["\ud800 x"]


def test_fields_of_megabytes() -> None:
    big = "ab " * 4_000_000
    write("d.jsonl", [{"text": big}])
    write("d.csv", f'text\n"{big}"\n')
    assert inputs(splits(path="d.jsonl").test) == inputs(splits(path="d.csv").test) == [big]


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.text(), min_size=3), min_size=1, max_size=5))
def test_what_the_csv_module_writes_is_read_back(rows: list[dict[str, str]]) -> None:
    path = Path("d.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["a", "b", "c"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    assert [row for _, row in read_file(path)] == rows


@given(st.binary(max_size=200), st.sampled_from([kind for kind in _READERS if kind != ".parquet"]))
def test_any_bytes_are_rows_or_an_error_with_its_place(content: bytes, kind: str) -> None:
    name = write(f"any{kind}", content)
    where = name
    try:
        splits(path=name, inputs=["a"])
    except DataError as error:
        where = str(error.where)
    assert where.startswith(name)


# What is wrong with a file.


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.jsonl", '{"text": "a"}\n{"text": \n', "d.jsonl:2: is not JSON: Expecting value at character 10"),
        ("d.jsonl", '{"text": "a"}\n\n["b"]\n', "d.jsonl:3: is a list, not an object"),
        ("d.jsonl", "3", "d.jsonl:1: is a number, not an object"),
        ("d.jsonl", '{"text": NaN}', "d.jsonl:1: holds NaN, which is not JSON"),
        ("d.jsonl", '{"text": -Infinity}', "d.jsonl:1: holds -Infinity, which is not JSON"),
        ("d.jsonl", '{"text": 1e999}', "d.jsonl:1: field 'text' is inf: use null or a finite number"),
        ("d.jsonl", '{"text": "a", "text": "b"}', "d.jsonl:1: has two values for 'text'"),
        ("d.jsonl", '{"text": ' + "9" * 5000 + "}", "d.jsonl:1: holds a number that is too long"),
        ("d.jsonl", "[" * 100_000, "d.jsonl:1: is nested too deeply: flatten the row"),
        ("d.jsonl", '{"text": ' + "[" * 60 + "]" * 60 + "}", "d.jsonl:1: field 'text' is nested too deeply"),
        ("d.jsonl", b'{"text": "a"}\n{"text": "\xe4"}\n', "d.jsonl:2: is not UTF-8: save the file as UTF-8"),
        ("d.jsonl", '{"text": "a"}'.encode("utf-16"), "d.jsonl:1: is not UTF-8"),
        ("d.jsonl", '{"txt": "a"}', "d.jsonl:1: has no field 'text': correct the row, or"),
        ("d.jsonl", '{"txt": "a"}', "did you mean txt?"),
        ("d.jsonl", "{}", "d.jsonl:1: has no field 'text'"),
        ("d.jsonl", '{"\\u001b[2J": 1}', r"there is: \x1b[2J"),
        ("d.jsonl", "", "d.jsonl: has no row: add rows"),
        ("d.json", "[]", "d.json: has no row"),
        ("d.json", "", "d.json: is not JSON: Expecting value at character 1"),
        ("d.json", '[{"text": 1},\n {"text" 2}]', "d.json:2: is not JSON: Expecting ':' delimiter"),
        ("d.json", '{"rows": []}', "d.json: holds an object: make it an array of objects"),
        ("d.json", '[{"text": 1}, null]', "d.json: row 2: is null, not an object"),
        ("d.json", b"[\n\xff]", "d.json:2: is not UTF-8"),
        ("d.csv", "", "d.csv: has no row"),
        ("d.csv", "text,label\n", "d.csv: has no row"),
        ("d.csv", "text,label\na,1\nb\n", "d.csv:3: has 1 fields, but the header has 2"),
        ("d.csv", 'text,label\n"a\nb",1\n\nc,2,3\n', "d.csv:5: has 3 fields, but the header has 2"),
        ("d.csv", "text,label,text\na,1,b\n", "d.csv:1: has two columns called 'text'"),
        ("d.csv", "text,,label\na,0,1\n", "d.csv:1: column 2 has no name"),
        ("d.csv", 'text,label\na,1\n"b,2\nc,3\n', "d.csv:3: unexpected end of data: correct the quotes"),
        ("d.csv", 'text,label\n"a" b,1\n', "d.csv:2: ',' expected after '\"'"),
        ("d.csv", b"text,label\na,1\nb,\xff\n", "d.csv:3: is not UTF-8"),
        ("d.csv", "text;label\na;1\n", "has no field 'text'"),
        ("d.tsv", "text,label\na,1\n", "did you mean text,label?"),
        ("d.xlsx", "", "d.xlsx: has an unknown ending '.xlsx': use one of .jsonl, .ndjson, .json, .csv"),
    ],
)
def test_each_mistake_names_its_line(name: str, content: str | bytes, said: str) -> None:
    assert said in problem(path=write(name, content))


def test_files_that_are_not_there() -> None:
    assert problem(path="absent.jsonl") == "absent.jsonl: no such file: correct the path under `dataset`"
    Path("folder.csv").mkdir()
    assert "folder.csv: no such file" in problem(path="folder.csv")
    with pytest.raises(DataError, match=r"absent.jsonl: cannot be read: No such file"):
        file_digest(Path("absent.jsonl").absolute())


# Inputs, labels, ids.


def test_labels_are_all_other_fields_unless_they_are_named() -> None:
    write("d.jsonl", [{"key": 7, "text": "a", "label": "x", "note": None}])
    assert splits(path="d.jsonl").test[0].labels == {"key": 7, "label": "x", "note": None}
    assert splits(path="d.jsonl", id="key").test[0].labels == {"label": "x", "note": None}
    assert splits(path="d.jsonl", labels=["label"]).test[0].labels == {"label": "x"}
    assert splits(path="d.jsonl", labels=[]).test[0].labels == {}
    row = splits(path="d.jsonl", labels=["text", "label"]).test[0]
    assert (row.inputs, row.labels) == ({"text": "a"}, {"text": "a", "label": "x"})
    assert "d.jsonl:1: has no field 'lable'" in problem(path="d.jsonl", labels=["lable"])


def test_an_id_is_of_the_content_wherever_the_row_stands() -> None:
    rows = tickets(20)
    before = {row.inputs["text"]: row.example_id for row in splits(path=write("d.jsonl", rows)).test}
    random.Random(1).shuffle(rows)
    swapped = [dict(reversed(row.items())) for row in [{"text": "new", "label": "a"}, *rows]]
    after = {row.inputs["text"]: row.example_id for row in splits(path=write("e.jsonl", swapped)).test}
    assert before.items() <= after.items()
    assert len(set(after.values())) == 21
    other = splits(path=write("f.jsonl", [{"text": "ticket 0", "label": "other"}])).test[0]
    assert other.example_id != before["ticket 0"]


def test_equal_rows_each_have_an_id() -> None:
    write("d.jsonl", [{"text": "a"}, {"text": "b"}, {"text": "a"}, {"text": "a"}])
    first, _, *others = [row.example_id for row in splits(path="d.jsonl").test]
    assert others == [f"{first}-2", f"{first}-3"]


def test_ids_of_the_users_own() -> None:
    rows: Rows = [{"text": "a", "key": 1}, {"text": "b", "key": "two"}]
    assert [row.example_id for row in splits(path=write("d.jsonl", rows), id="key").test] == ["1", "two"]
    for value, said in (
        ("1", "d.jsonl:3: has the id '1' of d.jsonl:1: give each row an id of its own"),
        (None, "d.jsonl:3: has no id in 'key'"),
        ("", "d.jsonl:3: has no id in 'key'"),
        (1.5, "d.jsonl:3: has a float as its id"),
        (True, "d.jsonl:3: has a bool as its id"),
    ):
        assert said in problem(path=write("d.jsonl", [*rows, {"text": "c", "key": value}]), id="key")
    assert "d.jsonl:3: has no id in 'key'" in problem(path=write("d.jsonl", [*rows, {"text": "c"}]), id="key")


# Splits.


def test_a_split_is_decided_by_its_seed_and_the_rows() -> None:
    write("d.jsonl", tickets(100))
    one = splits(path="d.jsonl", split={"train": 0.3, "seed": 7})
    assert (len(one.train), len(one.test)) == (30, 70)
    assert set(inputs(one.train)).isdisjoint(inputs(one.test))
    assert inputs(one.train) == sorted(inputs(one.train), key=lambda text: int(text.split()[1]))
    assert [row.index for row in one.test] == list(range(70))
    assert splits(path="d.jsonl", split={"train": 0.3, "seed": 7}) == one
    assert splits(path="d.jsonl", split={"train": 0.3, "seed": 8}) != one
    # What it gave when this was written: it must not change with the version of Python or of dspylab.
    assert inputs(one.train)[:5] == ["ticket 1", "ticket 3", "ticket 4", "ticket 7", "ticket 10"]


def test_a_further_row_leaves_the_others_where_they_are() -> None:
    write("d.jsonl", tickets(100))
    write("e.jsonl", [{"text": "new", "label": "a"}, *tickets(100)])
    before, after = (
        {row.example_id for row in splits(path=name, split={"train": 0.3, "seed": 7}).train}
        for name in ("d.jsonl", "e.jsonl")
    )
    assert len(before & after) >= 29


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (3, 0.1), (3, 0.9)])
def test_a_split_that_leaves_a_side_empty(count: int, share: float) -> None:
    write("d.jsonl", tickets(count))
    assert f"d.jsonl: {count} rows split at {share:g} leave a side empty" in problem(
        path="d.jsonl", split={"train": share}
    )


def test_shuffle_and_limit() -> None:
    write("d.jsonl", tickets(50))
    whole = splits(path="d.jsonl").test
    assert splits(path="d.jsonl", limit=5).test == whole[:5]
    assert splits(path="d.jsonl", limit=500).test == whole
    shuffled = splits(path="d.jsonl", shuffle=0).test
    assert inputs(shuffled) != inputs(whole)
    assert sorted(inputs(shuffled)) == sorted(inputs(whole))
    assert splits(path="d.jsonl", shuffle=0, limit=5).test == shuffled[:5]
    assert [row.index for row in shuffled] == list(range(50))
    assert inputs(splits(path="d.jsonl", shuffle=1).test) != inputs(shuffled)


def test_separate_files() -> None:
    write("train.jsonl", tickets(4)[:2])
    write("test.csv", "text,label\nother,a\n")
    both = splits(train="train.jsonl", test="test.csv")
    assert (inputs(both.train), inputs(both.test)) == (["ticket 0", "ticket 1"], ["other"])
    assert splits(test="test.csv").train == ()


def test_a_test_example_that_is_also_a_training_example() -> None:
    write("train.jsonl", [{"text": "a\x1b[2J", "label": "x"}, {"text": "b", "label": "x"}, {"text": "c"}])
    write("test.jsonl", [{"text": "new"}, {"text": "b", "label": "other"}, {"text": "a\x1b[2J"}])
    test_id, train_id = "e53774a80328", "a920b9a4748d"
    assert problem(train="train.jsonl", test="test.jsonl") == (
        f"test.jsonl:2: test example {test_id} is also training example {train_id} of train.jsonl:2 "
        '(and 1 more like it): {"text": "b"}: '
        "keep one of them: a score on examples that were trained on says nothing"
    )
    write("test.jsonl", [{"text": "a\x1b[2J" + "x" * 1000}, {"text": "a\x1b[2J"}])
    assert r'of train.jsonl:1: {"text": "a\u001b[2J"}: keep' in problem(
        train="train.jsonl", test="test.jsonl"
    )


def test_only_examples_with_all_inputs_equal_are_the_same() -> None:
    write("train.jsonl", [{"text": "a", "context": 1}])
    write("test.jsonl", [{"text": "a", "context": 2}])
    assert splits(train="train.jsonl", test="test.jsonl", inputs=["text", "context"]).train
    assert "test.jsonl:1" in problem(train="train.jsonl", test="test.jsonl", labels=["context"])


def test_a_leak_is_found_also_beyond_the_limit_and_within_one_file() -> None:
    write("train.jsonl", [{"text": "b"}])
    write("test.jsonl", [{"text": "a"}, {"text": "b"}])
    assert "test.jsonl:2" in problem(train="train.jsonl", test="test.jsonl", limit=1)
    rows = [*tickets(50), *tickets(50)]
    assert "of d.jsonl:" in problem(path=write("d.jsonl", rows), split={"train": 0.5})


# Loaders.


def load(rows: Any, **dataset: Any) -> Splits:
    def loader() -> Any:
        return rows() if callable(rows) else rows

    return splits(
        lambda reference: loader if reference == "program.py:load" else None,
        path="program.py:load",
        **dataset,
    )


def loader_problem(rows: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(rows)
    return str(caught.value)


class Numpy:
    """What numpy gives for one of its numbers or arrays."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def tolist(self) -> Any:
        return self.value


def test_loaders_may_return_anything_that_gives_rows() -> None:
    def generate() -> Iterator[dict[str, Any]]:
        yield {
            "text": "a",
            "date": dt.date(2026, 1, 2),
            "n": Numpy(3),
            "v": Numpy([1.0, 2.0]),
            "t": (1, 2),
        }

    row = load(generate).test[0]
    assert row.labels == {"date": "2026-01-02", "n": 3, "v": [1.0, 2.0], "t": [1, 2]}
    example = SimpleNamespace(toDict=lambda: {"text": "b"})
    assert inputs(load([example]).test) == ["b"]
    pydantic = Dataset(inputs=["x"])
    assert load([{"text": pydantic}]).test[0].inputs["text"] == pydantic.model_dump(mode="json")


def test_each_mistake_of_a_loader_is_told() -> None:
    text = "def load():\n    yield {'text': 'a'}\n    raise KeyError('gone')\n"
    names: dict[str, Any] = {}
    exec(compile(text, str(Path("program.py").absolute()), "exec"), names)
    assert loader_problem(names["load"]).startswith(
        "program.py:3: program.py:load raised KeyError: 'gone': correct the loader"
    )
    assert "raised TypeError: 'NoneType' object is not iterable" in loader_problem(None)
    assert "raised SystemExit: 2" in loader_problem(lambda: sys.exit(2))
    assert loader_problem(["a"]).startswith("program.py:load: row 1: is a text, not an object")
    assert loader_problem([]) == "program.py:load: has no row: add rows, or name another file"
    assert "row 1: field 'text' is nan" in loader_problem([{"text": float("nan")}])
    assert "row 1: field 'text' is a object, which is not JSON" in loader_problem([{"text": object()}])
    itself: list[Any] = []
    itself.append(itself)
    assert "row 1: field 'text' is nested too deeply" in loader_problem([{"text": itself}])
    with pytest.raises(
        DataError, match=r"program.py:load: is neither a function nor a list: name a function"
    ):
        splits(lambda _: 3, path="program.py:load")


# Size.


def test_a_hundred_thousand_rows_in_little_memory(folder: Path) -> None:
    text = "my parcel has not arrived yet " * 5
    lines = (f'{{"text": "ticket {number}: {text}", "label": "delivery"}}\n' for number in range(100_000))
    write("big.jsonl", "".join(lines))
    measure = f"""
        import resource
        from pathlib import Path
        from dspylab.config.models import Dataset
        from dspylab.program.dataset import load_splits
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        dataset = Dataset(path="big.jsonl", inputs=["text"], split={{"train": 0.3}})
        splits = load_splits(dataset, Path({str(folder)!r}), None)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(len(splits.train), len(splits.test), (after - before) // 1024)
    """
    done = subprocess.run([sys.executable, "-c", dedent(measure)], capture_output=True, text=True, check=True)
    train, test, megabytes = map(int, done.stdout.split())
    assert (train, test) == (30_000, 70_000)
    # The rows themselves are 17 MB of text.
    assert megabytes < 200
