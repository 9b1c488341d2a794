"""Endpoints that only the environment names decide results, too."""

from __future__ import annotations

import json

import pytest
from conftest import Cli, MakeLab

from dspylab.lm.keys import without_login
from dspylab.testing import FakeServer

UNNAMED = {"models": {"fake": {"api_base": ...}}}


def test_two_endpoints_share_no_results(server: FakeServer, cli_inside: Cli, make_lab: MakeLab) -> None:
    lab = make_lab(server.url, config=UNNAMED)
    login = server.url.replace("http://", "http://me:canary-login-1@")
    with FakeServer() as other:
        first = cli_inside("run", "-c", lab.config, cwd=lab.root, OPENAI_API_BASE=server.url)
        assert first.code == 0, first.err
        same = cli_inside("run", "-c", lab.config, cwd=lab.root, OPENAI_BASE_URL=server.url)
        assert "nothing to do" in same.out
        plan = cli_inside("plan", "-c", lab.config, cwd=lab.root, OPENAI_API_BASE=other.url, COLUMNS="200")
        assert f"models.fake.api_base: {other.url} added" in plan.out
        second = cli_inside("run", "-c", lab.config, cwd=lab.root, OPENAI_API_BASE=other.url)
        assert second.code == 0, second.err
        assert (len(server.requests), len(other.requests)) == (8, 8)
        info = json.loads((lab.raw("fake").parent / "run.json").read_text())
        assert info["model"]["api_base"] == other.url
        # DVC has kept what the first one answered; a login is no other endpoint.
        third = cli_inside("run", "-c", lab.config, cwd=lab.root, OPENAI_API_BASE=login)
        assert third.code == 0, third.err
        assert "come from the cache" in third.out
        assert (len(server.requests), len(other.requests)) == (8, 8)
    texts = [path.read_text(errors="replace") for path in lab.root.rglob("*") if path.is_file()]
    assert not any("canary-login" in text for text in texts)


def test_without_the_variable_nothing_is_written_of_it(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(server.url)
    # The entry names its endpoint: the variable says nothing about it.
    assert cli_inside("sync", "-c", lab.config, cwd=lab.root, OPENAI_API_BASE="http://127.0.0.1:9").code == 0
    assert "api_base:" not in (lab.root / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://example.com:8000/v1", "https://example.com:8000/v1"),
        ("https://me:pass@example.com/v1?key=1#x", "https://example.com/v1"),
        ("http://[::1", "http://[::1"),
    ],
)
def test_an_endpoint_is_written_without_its_login(url: str, written: str) -> None:
    assert without_login(url) == written
