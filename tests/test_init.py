"""`dspylab init`: what it makes, what it leaves alone, and that the result works."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dspy
import pytest
from conftest import Cli
from dvc.utils.serialize import modify_yaml

from dspylab.config.load import load
from dspylab.lm.gguf import is_present
from dspylab.scaffold.editors import SCHEMA_FILE, schema_text
from dspylab.testing import FakeServer

NOBODY = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "EMAIL": ""}
SOMEBODY = {
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
}  # fmt: skip

PROGRAM = """
import dspy

class Answer(dspy.Signature):
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()

class Answering(dspy.Module):
    def __init__(self, style: str = "cot"):
        super().__init__()
        self.answer = dspy.ChainOfThought(Answer) if style == "cot" else dspy.Predict(Answer)

    def forward(self, question):
        return self.answer(question=question)
"""


@pytest.fixture(autouse=True)
def _no_model_configured() -> Iterator[None]:
    """What a program configures when it is imported must not reach the next test."""
    yield
    dspy.settings.configure(lm=None)


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def experiment_of(folder: Path, name: str) -> str:
    return (folder / "experiments" / name / "experiment.yaml").read_text(encoding="utf-8")


def test_a_laboratory_from_nothing_is_complete_and_committed(tmp_path: Path, cli_inside: Cli) -> None:
    done = cli_inside("init", "lab", cwd=tmp_path, **NOBODY, **SOMEBODY)

    lab = tmp_path / "lab"
    assert done.code == 0, done.err
    assert done.err == ""
    assert "committed what was written" in done.out
    assert "cd lab" in done.out
    assert git(lab, "status", "--porcelain") == ""
    assert "analytics = False" in (lab / ".dvc" / "config").read_text()
    assert {".env", ".dspylab/"} <= set((lab / ".gitignore").read_text().splitlines())
    assert ".dspylab" in (lab / ".dvcignore").read_text().splitlines()
    for name in (".env", "experiments/topics/report.html"):
        assert git(lab, "check-ignore", name).strip() == name
    loaded = load(lab / "experiments" / "topics" / "experiment.yaml")
    assert loaded.experiment.name == "topics"
    named = experiment_of(lab, "topics").splitlines()[0].partition("$schema=")[2]
    assert (loaded.folder / named).resolve() == lab / SCHEMA_FILE
    assert (lab / SCHEMA_FILE).read_text(encoding="utf-8") == schema_text()


def test_without_an_identity_it_says_what_to_do(tmp_path: Path, cli_inside: Cli) -> None:
    done = cli_inside("init", cwd=tmp_path, **NOBODY)

    assert done.code == 0, done.err
    assert "not committed: git does not know who you are: git config user.name NAME" in done.out
    assert "cd " not in done.out.partition("Next:")[2]


def test_it_adds_to_a_repository_and_overwrites_nothing(tmp_path: Path, cli_inside: Cli) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("*.log\n.env\n")
    (tmp_path / ".env.example").write_text("MINE=\n")
    mine = tmp_path / "experiments" / "topics" / "program.py"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine = 1\n")

    done = cli_inside("init", cwd=tmp_path)

    assert done.code == 0, done.err
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[:2] == ["*.log", ".env"]
    assert lines.count(".env") == 1
    assert ".dspylab/" in lines
    assert (tmp_path / ".env.example").read_text() == "MINE=\n"
    assert mine.read_text() == "mine = 1\n"
    said = [line.split(maxsplit=1) for line in done.out.splitlines()]
    for word, path in [
        ("kept", ".env.example"),
        ("kept", "experiments/topics/program.py"),
        ("added", ".gitignore"),
    ]:
        assert [word, path] in said
    assert "not committed: look at what was added" in done.out
    assert git(tmp_path, "rev-list", "--all") == ""


def test_a_second_time_there_is_nothing_to_add(tmp_path: Path, cli_inside: Cli) -> None:
    cli_inside("init", cwd=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    done = cli_inside("init", cwd=tmp_path)

    assert "nothing to add: everything is there" in done.out
    assert "wrote" not in done.out
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    unlike = {path.name for path in before if before[path] != after.get(path)}
    assert unlike <= {"index"}, unlike  # git's own, which `git status` refreshes


def test_a_folder_inside_of_a_repository_is_a_laboratory_of_its_own(tmp_path: Path, cli_inside: Cli) -> None:
    git(tmp_path, "init", "-q")

    done = cli_inside("init", "labs/one", cwd=tmp_path)
    synced = cli_inside("sync", cwd=tmp_path / "labs" / "one")

    assert done.code == synced.code == 0, done.err + synced.err
    assert (tmp_path / "labs" / "one" / ".dvc").is_dir()
    assert not (tmp_path / ".dvc").exists()
    assert (tmp_path / "labs" / "one" / "dvc.yaml").is_file()


def test_sync_brings_a_copy_of_the_schema_up_to_date_and_no_other_file(
    tmp_path: Path, cli_inside: Cli
) -> None:
    cli_inside("init", cwd=tmp_path)
    schema = tmp_path / SCHEMA_FILE
    schema.write_text(schema_text().replace("dspylab experiment", "of last year"))
    assert cli_inside("sync", cwd=tmp_path).code == 0
    assert schema.read_text() == schema_text()

    schema.write_text('{"$id": "mine"}')
    assert cli_inside("sync", cwd=tmp_path).code == 0
    assert schema.read_text() == '{"$id": "mine"}'


@pytest.mark.local
def test_the_example_runs_at_once(tmp_path: Path, cli: Cli) -> None:
    if not is_present("local/smollm2-135m-instruct", base=tmp_path):
        pytest.skip("the embedded model is not on this machine")
    assert cli("init", "lab", cwd=tmp_path, **SOMEBODY).code == 0
    # Fewer rows show as much: that the program, its data and the model fit together.
    rows = tmp_path / "lab" / "experiments" / "topics" / "test.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:2]))

    done = cli("run", cwd=tmp_path / "lab", **SOMEBODY)

    assert done.code == 0, done.err
    assert "smollm2-solved" in done.out
    assert "2/2" in done.out
    assert "saved as the DVC experiment" in done.out


def test_from_a_program_with_everything(tmp_path: Path, cli_inside: Cli, server: FakeServer) -> None:
    (tmp_path / "qa.py").write_text(
        PROGRAM
        + f"""
dspy.configure(lm=dspy.LM("openai/fake", api_base="{server.url}", api_key="sk-canary-123", temperature=0.5))

def exact(example, pred, trace=None):
    return example.answer == pred.answer

def load():
    raise RuntimeError("nobody asked for it")

trainset = [dspy.Example(question="q", answer="a").with_inputs("question")]
"""
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dev.csv").write_text("question,answer\nWhat is 1+1?,2\nWhat is 2+2?,4\n")
    (tmp_path / "settings.json").write_text('{"no": "rows"}')

    done = cli_inside("init", "--from", "qa.py", cwd=tmp_path)

    assert done.code == 0, done.err
    text = experiment_of(tmp_path, "qa")
    assert "canary" not in text
    experiment = load(tmp_path / "experiments" / "qa" / "experiment.yaml").experiment
    assert (experiment.program.path, experiment.program.factory) == ("../../qa.py", "Answering")
    assert experiment.program.adapter is None
    assert '# program.style: ["cot"]' in text
    assert experiment.dataset.inputs == ["question"]
    assert experiment.dataset.train == "../../qa.py:trainset"
    assert experiment.dataset.test == "../../data/dev.csv"
    model = experiment.models["current"]
    assert (model.model, model.api_base, model.temperature) == ("openai/fake", server.url, 0.5)
    assert {name: metric.ref for name, metric in experiment.metrics.items()} == {"exact": "../../qa.py:exact"}
    assert "It calls openai/fake: 1 run over 2 examples." in done.out
    assert f"{Path('experiments', 'qa', 'experiment.yaml')}:8: the question" in done.out

    ran = cli_inside("run", "--quiet", cwd=tmp_path)

    assert ran.code == 0, ran.err
    assert len(server.requests) == 2


def test_data_above_the_program_are_found_unless_there_are_nearer_ones(
    tmp_path: Path, cli_inside: Cli
) -> None:
    source = tmp_path / "src" / "app"
    source.mkdir(parents=True)
    (source / "program.py").write_text('import dspy\nqa = dspy.Predict("question -> answer")\n')
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    (tmp_path / "dev.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    (tmp_path / "src" / "other.jsonl").write_text('{"text": "of another program"}\n')

    assert cli_inside("init", "--from", "src/app/program.py", cwd=tmp_path).code == 0

    config = tmp_path / "experiments" / "app" / "experiment.yaml"
    dataset = load(config).experiment.dataset
    assert (dataset.train, dataset.test) == ("../../data/train.jsonl", "../../dev.jsonl")
    config.unlink()
    (source / "examples.csv").write_text("question,answer\nq,a\n")
    assert cli_inside("init", "--from", "src/app/program.py", cwd=tmp_path).code == 0
    assert load(config).experiment.dataset.path == "../../src/app/examples.csv"


def test_from_a_bare_program(tmp_path: Path, cli_inside: Cli) -> None:
    """No factory, no data, no metric, no model: an instance is copied, the rest is a pattern to fill in."""
    (tmp_path / "program.py").write_text('import dspy\nqa = dspy.Predict("question -> answer, score: int")\n')

    done = cli_inside("init", ".", "--from", "program.py", cwd=tmp_path)

    assert done.code == 0, done.err
    config = next((tmp_path / "experiments").glob("*/experiment.yaml"))
    experiment = load(config).experiment
    assert experiment.program.factory == "qa"
    assert experiment.program.adapter == "json"
    assert experiment.models["smollm2"].model.startswith("local/")
    assert "# max_concurrency: 1 " in config.read_text(), "its calls share the cores, which latency shows"
    assert experiment.metrics["accuracy"].field == "answer"
    assert "TODO: score of row 2" in (config.parent / "examples.jsonl").read_text()
    assert f"{config.parent.relative_to(tmp_path) / 'examples.jsonl'}: put in your own rows" in done.out
    assert cli_inside("validate", cwd=tmp_path).code == 0


def test_a_program_in_a_package_is_named_as_a_module(tmp_path: Path, cli_inside: Cli) -> None:
    package = tmp_path / "answering_app"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text(PROGRAM)
    (package / "program.py").write_text(
        "from .parts import Answering\n"
        "def build():\n    return Answering()\n"
        "def f1(gold, pred):\n    return 1\n"
    )

    done = cli_inside("init", "--from", "answering_app/program.py", cwd=tmp_path)

    assert done.code == 0, done.err
    experiment = load(tmp_path / "experiments" / "answering_app" / "experiment.yaml").experiment
    assert (experiment.program.module, experiment.program.path) == ("answering_app.program", None)
    assert experiment.metrics["f1"].ref == "answering_app.program:f1"


def test_an_agent_and_a_typed_program(tmp_path: Path, cli_inside: Cli) -> None:
    """ReAct has predictors of its own, whose fields are not the program's."""
    (tmp_path / "agent.py").write_text(
        "import dspy\ndef search(query: str) -> str:\n    return query\n"
        "def build():\n"
        "    return dspy.ReAct('question, n: int -> answer: list[str], ok: bool', tools=[search])\n"
    )

    done = cli_inside("init", "--from", "agent.py", cwd=tmp_path)

    assert done.code == 0, done.err
    experiment = load(tmp_path / "experiments" / "agent" / "experiment.yaml").experiment
    assert experiment.dataset.inputs == ["question", "n"]
    assert '"TODO: ok of row 1"' in (tmp_path / "experiments" / "agent" / "examples.jsonl").read_text()
    assert list(experiment.metrics) == ["accuracy"]


def test_labels_in_the_data_are_metrics_without_a_doubt(tmp_path: Path, cli_inside: Cli) -> None:
    (tmp_path / "hotel.py").write_text(
        "import dspy\nbuild = dspy.Predict('review -> topic, stars: int, seed, reason')\n"
    )
    (tmp_path / "hotel.csv").write_text(
        "review,topic,stars,seed\nThe bed was hard,room,1,a\nFine food,food,5,b\n"
    )

    done = cli_inside("init", "--from", "hotel.py", cwd=tmp_path, **SOMEBODY)

    assert done.code == 0, done.err
    assert "committed what was written; files of your own are not: git add --all && git commit" in done.out
    assert "TODO: right if" not in experiment_of(tmp_path, "hotel")
    experiment = load(tmp_path / "experiments" / "hotel" / "experiment.yaml").experiment
    found = {name: (metric.type, metric.field) for name, metric in experiment.metrics.items()}
    # `seed` is an axis of every matrix.
    assert found == {
        "topic": ("exact_match", "topic"),
        "stars": ("numeric", "stars"),
        "seed_right": ("exact_match", "seed"),
    }
    assert experiment.ranked_by == "topic"


def test_labels_whose_names_can_be_no_ids(tmp_path: Path, cli_inside: Cli) -> None:
    long = "reason_" * 9
    (tmp_path / "hotel.py").write_text(
        f"import dspy\nbuild = dspy.Predict('review -> größe, {long}, stars: int')\n", encoding="utf-8"
    )
    (tmp_path / "hotel.csv").write_text(f"review,größe,{long},stars\nFine food,x,y,5\n", encoding="utf-8")

    assert cli_inside("init", "--from", "hotel.py", cwd=tmp_path).code == 0

    experiment = load(tmp_path / "experiments" / "hotel" / "experiment.yaml").experiment
    found = {name: metric.field for name, metric in experiment.metrics.items()}
    assert found == {"metric1": "größe", "metric2": long, "stars": "stars"}


def test_an_id_that_is_made_up_is_no_other_labels_own(tmp_path: Path, cli_inside: Cli) -> None:
    fields = ["größe", "metric1", "seed", "seed_right"]
    outputs = ", ".join(fields)
    (tmp_path / "hotel.py").write_text(
        f"import dspy\nbuild = dspy.Predict('review -> {outputs}')\n", encoding="utf-8"
    )
    (tmp_path / "hotel.csv").write_text(
        f"review,{outputs}\nFine food,v,w,x,y\n".replace(", ", ","), encoding="utf-8"
    )

    assert cli_inside("init", "--from", "hotel.py", cwd=tmp_path).code == 0

    experiment = load(tmp_path / "experiments" / "hotel" / "experiment.yaml").experiment
    found = {name: metric.field for name, metric in experiment.metrics.items()}
    assert found == {"metric2": "größe", "metric1": "metric1", "metric3": "seed", "seed_right": "seed_right"}


@pytest.mark.parametrize(
    ("source", "factory"),
    [
        (PROGRAM + "def make_it() -> dspy.Module:\n    return Answering()\n", "make_it"),
        (PROGRAM + "def build_program(style='cot'):\n    return Answering(style)\n", "build_program"),
        (PROGRAM + "def build(style):\n    return Answering(style)\n", "Answering"),
        (PROGRAM + "class Whole(Answering):\n    pass\n", "Whole  # TODO: or one of Answering"),
        (
            PROGRAM + "class Needy(dspy.Module):\n    def __init__(self, k):\n        super().__init__()\n",
            "Answering",
        ),
        (PROGRAM + "qa = Answering()\n", "qa"),
    ],
    ids=["annotated", "named", "needs arguments", "last class", "class needs arguments", "instance"],
)
def test_the_factory_that_is_found(tmp_path: Path, cli_inside: Cli, source: str, factory: str) -> None:
    (tmp_path / "qa.py").write_text(source)

    done = cli_inside("init", "--from", "qa.py", cwd=tmp_path)

    assert done.code == 0, done.err
    assert f"  factory: {factory}\n" in experiment_of(tmp_path, "qa")


def test_a_program_below_experiments_gets_its_experiment_beside_it(tmp_path: Path, cli_inside: Cli) -> None:
    folder = tmp_path / "experiments" / "mine"
    folder.mkdir(parents=True)
    (folder / "program.py").write_text(PROGRAM)

    first = cli_inside("init", "--from", "experiments/mine/program.py", cwd=tmp_path)
    written = experiment_of(tmp_path, "mine")
    again = cli_inside("init", "--from", "experiments/mine/program.py", cwd=tmp_path)

    assert first.code == again.code == 0, first.err + again.err
    assert "path: program.py" in written
    assert "kept    experiments/mine/experiment.yaml" in again.out
    assert experiment_of(tmp_path, "mine") == written


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["init", "notes.txt"], 2, "notes.txt: is a file: name a folder"),
        (["init", "--from", "none.py"], 2, "none.py: no such file: name the file"),
        (["init", "--from", "notes.txt"], 2, "notes.txt: is not a Python file: name the file"),
        (["init", "lab", "--from", "empty.py"], 2, "make the laboratory around it: dspylab init"),
        (["init", "--from", "empty.py"], 2, "empty.py: has no program"),
        (["init", "--from", "broken.py"], 2, "broken.py:1: is not valid Python"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, cli_inside: Cli, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty.py").write_text("import dspy\n")
    (tmp_path / "broken.py").write_text("def\n")

    done = cli_inside(*arguments, cwd=tmp_path)

    assert done.code == code
    assert said in done.err
    assert not list(tmp_path.rglob(".git*")), "the folder is as it was"


def test_a_second_experiment_is_named_in_the_next_command(tmp_path: Path, cli_inside: Cli) -> None:
    cli_inside("init", cwd=tmp_path)
    (tmp_path / "qa.py").write_text(PROGRAM)

    done = cli_inside("init", "--from", "qa.py", cwd=tmp_path)

    assert "  dspylab run -c experiments/qa/experiment.yaml\n" in done.out


def test_what_dvc_rewrites_of_a_draft_can_still_be_read(
    tmp_path: Path, cli_inside: Cli, server: FakeServer
) -> None:
    """`dvc exp run -S` takes the quotes off, and inside of `{…}` a text with a colon can not do without."""
    (tmp_path / "qa.py").write_text(
        PROGRAM
        + f'dspy.configure(lm=dspy.LM("openai/fake", api_base="{server.url}", api_key="k"))\n'
        + "def exact(example, pred, trace=None):\n    return True\n"
        + 'devset = [dspy.Example(question="q", answer="a").with_inputs("question")]\n'
    )
    assert cli_inside("init", "--from", "qa.py", cwd=tmp_path).code == 0
    config = tmp_path / "experiments" / "qa" / "experiment.yaml"
    before = load(config).document

    for _ in range(2):
        with modify_yaml(config) as document:
            document["dataset"]["limit"] = 3

    after = load(config)
    assert after.experiment.dataset.limit == 3
    assert after.document | {"dataset": {}} == before | {"dataset": {}}
    assert "api_base: http://" in config.read_text(), "it did take quotes off"


@pytest.mark.parametrize(
    ("rows", "key"),
    [
        ("id,question,answer\n7,q,a\n8,q,a\n", "id"),
        ("uid,question,answer\n7,q,a\n8,q,a\n", "uid"),
        ("id,uid,question,answer\n7,1,q,a\n7,2,q,a\n", "uid"),
        ("id,question,answer\n7,q,a\n7,q,a\n", None),
        ("id,question,answer\n7,q,a\n,q,a\n", None),
        ("id,question,answer\n7,q,a\n8,q\n", None),
        ("question,answer\nq,a\n", None),
    ],
)
def test_a_column_that_tells_rows_apart_is_their_id(
    tmp_path: Path, cli_inside: Cli, rows: str, key: str | None
) -> None:
    (tmp_path / "qa.py").write_text(PROGRAM)
    (tmp_path / "data.csv").write_text(rows)

    done = cli_inside("init", "--from", "qa.py", cwd=tmp_path)

    assert done.code == 0, done.err
    assert load(tmp_path / "experiments" / "qa" / "experiment.yaml").experiment.dataset.id == key


def test_an_id_has_to_be_one_in_every_set_that_is_used(tmp_path: Path, cli_inside: Cli) -> None:
    (tmp_path / "qa.py").write_text(
        PROGRAM
        + 'rows = ({"id": n, "question": "q", "answer": "a"} for n in (1, 2))\n'
        + 'trainset = [dspy.Example(**row).with_inputs("question") for row in rows]\n'
    )
    (tmp_path / "test.csv").write_text("id,question,answer\n1,q,a\n")

    assert cli_inside("init", "--from", "qa.py", cwd=tmp_path).code == 0
    config = tmp_path / "experiments" / "qa" / "experiment.yaml"
    assert load(config).experiment.dataset.id == "id"

    config.unlink()
    (tmp_path / "qa.py").write_text((tmp_path / "qa.py").read_text().replace('"id": n', '"id": 100'))
    assert cli_inside("init", "--from", "qa.py", cwd=tmp_path).code == 0
    assert load(config).experiment.dataset.id is None


def test_a_metric_of_the_program_is_taken_with_a_hint(tmp_path: Path, cli_inside: Cli) -> None:
    (tmp_path / "qa.py").write_text(PROGRAM + "def exact(example, pred, trace=None):\n    return True\n")

    assert cli_inside("init", "--from", "qa.py", cwd=tmp_path).code == 0

    text = experiment_of(tmp_path, "qa")
    assert "  # To change a metric in the program's file calls the program again" in text
    assert text.index("# To change a metric") < text.index("  exact:\n")


def test_a_metric_of_the_program_that_is_called_as_a_figure_gets_another_name(
    tmp_path: Path, cli_inside: Cli
) -> None:
    functions = [f"def {name}(example, pred, trace=None):\n    return True\n" for name in ("scored", "calls")]
    (tmp_path / "qa.py").write_text(PROGRAM + "".join(functions))

    assert cli_inside("init", "--from", "qa.py", cwd=tmp_path).code == 0

    experiment = load(tmp_path / "experiments" / "qa" / "experiment.yaml").experiment
    found = {name: str(metric.ref).partition(":")[2] for name, metric in experiment.metrics.items()}
    assert found == {"my_scored": "scored", "my_calls": "calls"}
    assert experiment.primary_metric == "my_scored"


def test_of_several_experiments_each_can_be_run_next(tmp_path: Path, cli_inside: Cli) -> None:
    cli_inside("init", "lab", cwd=tmp_path)
    shutil.copytree(tmp_path / "lab" / "experiments" / "topics", tmp_path / "lab" / "experiments" / "other")

    done = cli_inside("init", "lab", cwd=tmp_path)

    assert done.code == 0, done.err
    assert done.out.endswith(
        "Next:\n  cd lab\n  dspylab run -c experiments/other/experiment.yaml\nor:\n"
        "  dspylab run -c experiments/topics/experiment.yaml\n"
    )
