"""Test doubles for your own tests: a fake OpenAI-compatible server and a builder of small laboratories.

    from dspylab.testing import FakeServer, answer_key, experiment, tickets

    with FakeServer(answer_key(tickets(20))) as server:
        lab = experiment(tmp_path, server_url=server.url, examples=tickets(20))
        lab.init_repository()
        …  # run dspylab in lab.root
        assert len(server.requests) == 20

The server speaks real HTTP, can be slow, limited or faulty on purpose, and knows the true time of every
token that it sent. For measurements run it in a process of its own: `server_process`.
"""

from __future__ import annotations

from dspylab.testing.answers import (
    Answer,
    ChatRequest,
    Reply,
    ToolCall,
    Usage,
    answer_key,
    default_answer,
    reply_fields,
)
from dspylab.testing.exchange import RequestRecord
from dspylab.testing.experiment import Laboratory, experiment, tickets
from dspylab.testing.faults import Fault, Faults
from dspylab.testing.process import ServerProcess, server_process
from dspylab.testing.server import FakeServer

__all__ = [
    "Answer",
    "ChatRequest",
    "FakeServer",
    "Fault",
    "Faults",
    "Laboratory",
    "Reply",
    "RequestRecord",
    "ServerProcess",
    "ToolCall",
    "Usage",
    "answer_key",
    "default_answer",
    "experiment",
    "reply_fields",
    "server_process",
    "tickets",
]
