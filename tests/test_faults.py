"""Endpoints, disks and programs that fail: nothing is lost, nothing is called twice, one message says why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import API_KEY, Cli, InitRepository, MakeLab, rows

from dspylab.testing import ChatRequest, FakeServer, Fault, Reply, experiment, tickets

BINARIES = Path(sys.executable).parent


def test_an_unknown_model_stops_all_its_runs_with_one_message(cli_inside: Cli, make_lab: MakeLab) -> None:
    with FakeServer(models=["fake"]) as server:
        other = {
            "model": "openai/no-such-model",
            "api_base": server.url,
            "api_key_env": "FAKE_API_KEY",
            "max_concurrency": 2,
        }
        config = {
            "models": {"other": other},
            "matrix": {"model": ["other", "fake"], "program.style": ["predict", "cot"]},
        }
        lab = make_lab(server.url, config=config, examples=tickets(20))

        done = cli_inside("run", "-c", lab.config, cwd=lab.root)

        asked = Counter(record.model for record in server.requests)
    assert done.code == 1
    assert asked["fake"] == 40
    assert asked["no-such-model"] <= 2
    assert done.err.count("does not exist") == 1
    assert "other-predict, other-cot: 0/40 examples" in done.err
    assert len(rows(lab, "fake-cot")) == 20


def test_when_every_model_is_refused_the_environment_is_to_blame(tmp_path: Path, cli_inside: Cli) -> None:
    with FakeServer(api_key="another-key") as server:
        lab = experiment(tmp_path, server_url=server.url, config={"execution": {"max_concurrency": 3}})

        done = cli_inside("run-one", "model=fake", cwd=lab.root)

        assert done.code == 3, done.err
        assert "models.fake: Incorrect API key provided" in done.err
        assert len(server.requests) <= 3
        assert all(row["error"]["kind"] == "endpoint" for row in rows(lab))
        server.api_key = API_KEY

        mended = cli_inside("run-one", "model=fake", cwd=lab.root)

        assert mended.code == 0, mended.err
        assert all(row["error"] is None for row in rows(lab))


CARELESS = """
import dspy

class Careless(dspy.Module):
    def __init__(self):
        super().__init__()
        self.draft = dspy.Predict("text -> label")
        self.final = dspy.Predict("text, draft -> label")

    def forward(self, text):
        try:
            return self.final(text=text, draft=self.draft(text=text).label)
        except:
            return dspy.Prediction(label="unknown")

def build():
    return Careless()
"""


def test_a_wrong_key_makes_no_answers_of_a_program_that_swallows_errors(
    tmp_path: Path, cli_inside: Cli
) -> None:
    config = {"program": {"args": ...}, "execution": {"max_concurrency": 2}}
    files = {"experiments/triage/program.py": CARELESS}
    with FakeServer(api_key="another-key") as server:
        lab = experiment(tmp_path, server_url=server.url, config=config, files=files)
        assert cli_inside("run-one", "model=fake", cwd=lab.root).code == 3
        server.api_key = API_KEY

        mended = cli_inside("run-one", "model=fake", cwd=lab.root)

        assert mended.code == 0, mended.err
        assert "unknown" not in {row["prediction"]["label"] for row in rows(lab)}


def test_a_stop_makes_no_answers_of_a_program_that_swallows_errors(tmp_path: Path, cli_inside: Cli) -> None:
    def fail(request: ChatRequest) -> None:
        if request.number == 8:
            os.kill(os.getpid(), signal.SIGINT)

    config = {"program": {"args": ...}, "execution": {"max_concurrency": 4}}
    files = {"experiments/triage/program.py": CARELESS}
    with FakeServer(fail=fail, ttft_s=0.3) as server:
        lab = experiment(tmp_path, server_url=server.url, config=config, files=files, examples=tickets(20))

        stopped = cli_inside("run-one", "model=fake", cwd=lab.root)

        assert stopped.code == 130, stopped.err
        kept = rows(lab)
        assert 0 < len(kept) < 20
        assert "unknown" not in {row["prediction"]["label"] for row in kept}
        assert f"{len(kept)} of 20 examples are finished and kept" in stopped.err
        done = cli_inside("run-one", "model=fake", cwd=lab.root)
        assert done.code == 0, done.err
        assert "unknown" not in {row["prediction"]["label"] for row in rows(lab)}
    assert len(rows(lab)) == 20


def test_max_errors_ends_a_run_early_and_the_next_run_goes_on(tmp_path: Path, cli_inside: Cli) -> None:
    broken = {"now": True}

    def fail(request: ChatRequest) -> Fault | None:
        number = int(request.text.partition("Ticket ")[2].partition(":")[0])
        return Fault("status", status=500) if broken["now"] and number >= 6 else None

    with FakeServer(fail=fail) as server:
        config = {
            "models": {"fake": {"num_retries": 0}},
            "execution": {"max_errors": 3, "max_concurrency": 2},
        }
        lab = experiment(tmp_path, server_url=server.url, config=config, examples=tickets(40))

        stopped = cli_inside("run-one", "model=fake", cwd=lab.root)

        assert stopped.code == 1
        assert "3 examples failed (execution.max_errors)" in stopped.err
        assert "Traceback" not in stopped.err
        asked = len(server.requests)
        assert 9 <= asked <= 10
        assert [row["error"] is None for row in rows(lab)[:9]] == [True] * 6 + [False] * 3
        broken["now"] = False

        mended = cli_inside("run-one", "model=fake", cwd=lab.root)

        assert mended.code == 0, mended.err
        assert "6 kept from before" in mended.out
        assert len(server.requests) == asked + 34
    assert [row["index"] for row in rows(lab)] == list(range(40))


def test_a_judge_out_of_reach_is_asked_again_and_not_a_missing_score(tmp_path: Path, cli_inside: Cli) -> None:
    broken = {"now": True}

    def fail(request: ChatRequest) -> Fault | None:
        hit = request.model == "judge" and "Ticket 2" in request.text
        return Fault("status", status=503) if broken["now"] and hit else None

    with FakeServer(fail=fail) as server:
        judge = {
            "model": "openai/judge",
            "api_base": server.url,
            "api_key_env": "FAKE_API_KEY",
            "num_retries": 0,
        }
        config = {
            "models": {"judge": judge},
            "metrics": {
                "helpful": {"type": "llm_judge", "model": "judge", "params": {"rubric": "It helps."}}
            },
        }
        lab = experiment(tmp_path, server_url=server.url, config=config)

        first = cli_inside("run-one", "model=fake", cwd=lab.root)

        assert first.code == 1, first.out + first.err
        failed = rows(lab)[2]
        assert failed["error"]["kind"] == "endpoint"
        asked = len(server.requests)
        broken["now"] = False
        second = cli_inside("run-one", "model=fake", cwd=lab.root)
        assert second.code == 0, second.err
        # The program had answered: only the judge is asked.
        assert [request.model for request in server.requests[asked:]] == ["judge"]
    scored = rows(lab)[2]
    assert (scored["rescored"], scored["prediction"]) == (True, failed["prediction"])
    assert [(call["role"], call["error"]) for call in scored["calls"]] == [("task", None), ("judge", None)]
    assert scored["calls"][0] == failed["calls"][0]
    assert all("helpful" in row["metrics"] for row in rows(lab))


def test_a_refused_judge_stops_the_run_before_the_task_is_paid_for_in_vain(
    tmp_path: Path, cli_inside: Cli
) -> None:
    with FakeServer() as server, FakeServer(api_key="another-key") as strict:
        judge = {"model": "openai/judge", "api_base": strict.url, "api_key_env": "FAKE_API_KEY"}
        config = {
            "models": {"judge": judge},
            "metrics": {
                "helpful": {"type": "llm_judge", "model": "judge", "params": {"rubric": "It helps."}}
            },
            "execution": {"max_concurrency": 2},
        }
        lab = experiment(tmp_path, server_url=server.url, config=config, examples=tickets(40))

        done = cli_inside("run-one", "model=fake", cwd=lab.root)

        assert done.code == 3, done.err
        assert "models.judge: Incorrect API key" in done.err
        assert len(server.requests) <= 4


def test_whatever_a_program_raises_is_a_failed_example(
    tmp_path: Path, server: FakeServer, cli_inside: Cli
) -> None:
    program = """
import asyncio, os, sys
import dspy

class Raising(dspy.Module):
    def forward(self, text):
        number = int(text.split()[1].rstrip(":"))
        if number == 0:
            sys.exit("I leave")
        if number == 1:
            raise KeyboardInterrupt
        if number == 2:
            raise asyncio.CancelledError
        if number == 3:
            raise ValueError("control \\x1b[31m characters \\x00 and \\ud800 surrogates")
        if number == 4:
            def deeper():
                return deeper()
            return deeper()
        if number == 5:
            return "no prediction"
        return dspy.Prediction(label="bug", itself=[self])

def build():
    return Raising()
"""
    files = {"experiments/triage/program.py": program}
    config = {"program": {"args": ...}}
    lab = experiment(tmp_path, server_url=server.url, config=config, files=files)

    done = cli_inside("run-one", "model=fake", cwd=lab.root)

    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    types = [row["error"]["type"] for row in rows(lab) if row["error"]]
    assert types == [
        "SystemExit", "KeyboardInterrupt", "CancelledError", "ValueError", "RecursionError", "TypeError",
    ]  # fmt: skip
    assert rows(lab)[3]["error"]["message"] == "control \x1b[31m characters \x00 and \ud800 surrogates"


def test_a_full_disk_loses_nothing_that_was_on_it(
    tmp_path: Path, server: FakeServer, cli_inside: Cli
) -> None:
    config = {"execution": {"max_concurrency": 2}}
    lab = experiment(tmp_path, server_url=server.url, config=config, examples=tickets(60))
    # No file may grow beyond 32 blocks of 512 or 1,024 bytes, which a journal of 60 examples exceeds.
    full = subprocess.run(
        ["sh", "-c", 'ulimit -f 32; exec "$0" run-one model=fake', BINARIES / "dspylab"],
        cwd=lab.root,
        env={**os.environ, "FAKE_API_KEY": API_KEY},
        capture_output=True,
        text=True,
        check=False,
    )

    assert full.returncode == 3, full.stdout + full.stderr
    assert "cannot be written" in full.stderr
    assert "everything finished so far is kept" in full.stderr
    assert "Traceback" not in full.stderr
    asked = len(server.requests)
    assert 2 < asked < 60
    done = cli_inside("run-one", "model=fake", cwd=lab.root)
    assert done.code == 0, done.err
    # Only what was in flight when the disk was full is called again.
    assert len(server.requests) <= 60 + 3
    assert [row["index"] for row in rows(lab)] == list(range(60))


def test_a_second_process_says_who_executes_the_run(tmp_path: Path, cli_inside: Cli) -> None:
    waiting = {"now": True}
    with FakeServer(fail=lambda _: Fault("hang") if waiting["now"] else None) as server:
        config = {"models": {"fake": {"timeout_s": 4}}}
        lab = experiment(tmp_path, server_url=server.url, config=config)
        with subprocess.Popen(
            [BINARIES / "dspylab", "run-one", "model=fake"],
            cwd=lab.root, env={**os.environ, "FAKE_API_KEY": API_KEY},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as first:  # fmt: skip
            while not server.requests and first.poll() is None:
                time.sleep(0.02)

            second = cli_inside("run-one", "model=fake", cwd=lab.root)

            waiting["now"] = False
            _, err = first.communicate(timeout=120)
        assert second.code == 3
        assert f"is being executed by process {first.pid}" in second.err
        assert f"fake: stopped: is being executed by process {first.pid}" in second.out
        assert first.returncode == 0, err
        assert all(row["error"] is None for row in rows(lab))
        assert cli_inside("run-one", "model=fake", cwd=lab.root).code == 0


def test_a_run_that_another_process_completes_meanwhile_is_complete(
    cli_inside: Cli, make_lab: MakeLab
) -> None:
    waiting = {"predict", "cot"}

    def style(request: ChatRequest) -> str:
        return "cot" if "reasoning" in json.dumps(request.body) else "predict"

    def command(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [BINARIES / "dspylab", *arguments],
            cwd=lab.root, env={**os.environ, "FAKE_API_KEY": API_KEY},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_for(wanted: str, process: subprocess.Popen[str]) -> None:
        while wanted not in asked and process.poll() is None:
            time.sleep(0.02)

    asked: set[str] = set()

    def fail(request: ChatRequest) -> Fault | None:
        asked.add(style(request))
        return Fault("hang") if style(request) in waiting else None

    with FakeServer(fail=fail) as server:
        config = {
            "models": {"fake": {"timeout_s": 2, "num_retries": 50}},
            "matrix": {"model": ["fake"], "program.style": ["predict", "cot"]},
        }
        lab = make_lab(server.url, config=config, examples=tickets(3))
        with command("run-one", "program.style=predict") as first:
            wait_for("predict", first)
            with command("run") as second:
                # It has found by now that the other run is being executed.
                wait_for("cot", second)
                waiting.remove("predict")
                assert first.wait(timeout=120) == 0
                waiting.remove("cot")
                out, err = second.communicate(timeout=120)

        assert f"fake-predict: stopped: is being executed by process {first.pid}" in out
        assert second.returncode == 0, err
        assert "incomplete" not in err
        before = len(server.requests)
        assert cli_inside("run", cwd=lab.root).code == 0
        assert len(server.requests) == before


def test_killed_before_publication_or_before_dvc_recorded_it(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    """What a SIGKILL leaves at the two moments, made by hand; the torture meets them by chance."""
    lab = make_lab(server.url, config={"matrix": {"program.style": ["predict", "cot"]}})
    assert cli_inside("run-one", "program.style=predict", cwd=lab.root).code == 0  # executed, not recorded
    assert cli_inside("run-one", "program.style=cot", cwd=lab.root).code == 0
    whole = lab.raw("fake-cot").read_bytes()
    for journal in (lab.root / ".dspylab" / "journal").glob("*.jsonl"):
        # Not noted as published, and the last line is torn.
        lines = journal.read_bytes().splitlines(keepends=True)
        if b"published" in lines[-1] and json.loads(lines[0])["run"] == "fake-cot":
            journal.write_bytes(b"".join(lines[:-1]) + b'{"run": "fake-c')
    lab.raw("fake-cot").unlink()
    half = lab.raw("fake-cot").with_name(".raw.jsonl.99999999-1.tmp")
    half.write_bytes(whole[: len(whole) // 2])
    asked = len(server.requests)

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert len(server.requests) == asked
    assert lab.raw("fake-cot").read_bytes() == whole
    assert not half.exists()
    assert "up to date" in lab.dvc("status")


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_is_really_full(
    tmp_path: Path, server: FakeServer, cli_inside: Cli, init_repository: InitRepository
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        examples = tickets(40)
        lab = experiment(disk / "lab", server_url=server.url, examples=examples)
        init_repository(lab)
        ballast = disk / "ballast"
        free = shutil.disk_usage(disk).free
        ballast.write_bytes(b"x" * (free - 60_000))

        full = cli_inside("run", "-c", lab.config, cwd=lab.root)

        assert full.code == 3, full.out + full.err
        assert "Traceback" not in full.err
        assert "no space left" in full.err.lower()
        ballast.unlink()
        done = cli_inside("run", "-c", lab.config, cwd=lab.root)
        assert done.code == 0, done.err
        assert len(server.requests) <= 40 + 16
        assert [row["index"] for row in rows(lab)] == list(range(40))
    finally:
        os.chdir(tmp_path)  # or the disk is busy
        subprocess.run(["umount", disk], check=True)


def test_a_reply_too_long_to_stream_is_paid_for_once_and_the_remedy_works(
    tmp_path: Path, cli_inside: Cli
) -> None:
    reply = "m" * 3_000_000
    with FakeServer(Reply(reply, one_chunk=True)) as server:
        files = {"experiments/triage/program.py": ECHO}
        lab = experiment(
            tmp_path,
            server_url=server.url,
            config={"program": {"args": ...}},
            files=files,
            examples=tickets(2),
        )
        streamed = cli_inside("run-one", "model=fake", cwd=lab.root)

        assert streamed.code == 1
        assert streamed.err.count("set stream: false") == 1
        assert len(server.requests) == 2
        for row in rows(lab):
            assert row["error"]["kind"] == "program"
            assert "set stream: false" in row["error"]["message"]
        lab.change({"models": {"fake": {"stream": False}}})

        whole = cli_inside("run-one", "model=fake", cwd=lab.root)

        assert whole.code == 0, whole.err
    assert [row["prediction"]["label"] for row in rows(lab)] == [reply, reply]


HOSTILE = [
    "refused",
    "\x1b[2J\x1b]0;owned\x07\x1b[31mred",
    "<script>alert(1)</script>",
    "null \x00 bell \x07 delete \x7f csi \x9b31m",
    "right to left \u202e, line \u2028 separators \u2029 \x85",
    "lone \ud800 surrogates \udfff",
    "[bold red]markup[/] ${item} {braces} %s",
    "m" * 3_000_000,
    '"quotes" \\ and \r\n line ends',
]
ECHO = """
import dspy

class Echo(dspy.Module):
    def forward(self, text):
        return dspy.Prediction(label=dspy.settings.lm(text)[0])

def build():
    return Echo()
"""


def test_hostile_answers_are_recorded_faithfully_and_not_obeyed(tmp_path: Path, cli_inside: Cli) -> None:
    def fail(request: ChatRequest) -> Fault | None:
        body = "\x1b[2Jboom \x07" + "é" * 200_000
        return Fault("status", status=400, body=body) if request.text == "0" else None

    def answer(request: ChatRequest) -> Reply:
        reply = Reply(HOSTILE[int(request.text)])
        return reply.cut_into(120) if len(reply.text) > 1000 else reply

    examples = [{"text": str(number), "label": text} for number, text in enumerate(HOSTILE)]
    with FakeServer(answer, fail=fail) as server:
        lab = experiment(
            tmp_path,
            server_url=server.url,
            config={"program": {"args": ...}},
            examples=examples,
            files={"experiments/triage/program.py": ECHO},
        )
        done = cli_inside("run-one", "-v", "model=fake", cwd=lab.root)
        events = cli_inside("run-one", "--fresh", "model=fake", cwd=lab.root)

    summed = cli_inside("aggregate", cwd=lab.root)
    assert done.code == 0, done.err
    assert summed.code == 0, summed.err
    assert summed.out == "experiments/triage/summary.json: 1 of 1 run\n"
    written = rows(lab)
    assert [row["prediction"]["label"] for row in written[1:]] == HOSTILE[1:]
    assert [row["labels"]["label"] for row in written] == HOSTILE
    assert [row["metrics"]["accuracy"] for row in written[1:]] == [1.0] * (len(HOSTILE) - 1)
    assert written[0]["error"]["kind"] == "program"
    assert len(written[0]["error"]["message"]) < 3000
    shown = done.out + done.err + events.out + events.err + summed.out + summed.err
    assert len(shown) < 20_000
    assert all(character.isprintable() or character == "\n" for character in shown)
