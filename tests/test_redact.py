from __future__ import annotations

import hashlib
import json
import logging
import random
import string
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspylab.redact
from dspylab.redact import RedactingFormatter, redact, remember

MASK = "[secret]"
ALNUM = string.ascii_letters + string.digits
RANDOM = random.Random(1)


def key(length: int, alphabet: str = ALNUM) -> str:
    """Random characters, at least one of them a digit, as in any real key of this length."""
    return "".join(RANDOM.choices(alphabet, k=length - 1)) + "7"


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dspylab.redact, "_known", ())


# Known values.


@pytest.mark.parametrize(
    "text",
    ["key {}", "{}{}", "a{}b", "https://host/{}/x", '{{"key": "{}"}}', "b'{}'", "\n{}\n", "X{}…", "{}."],
)
def test_a_known_value_is_masked_wherever_it_stands(text: str) -> None:
    remember("canary-value-of-no-shape")
    shown = redact(text.format("canary-value-of-no-shape", "canary-value-of-no-shape"))
    assert "canary" not in shown
    assert MASK in shown


def test_a_known_value_is_masked_in_the_forms_in_which_it_is_printed() -> None:
    value = 'p@ss/w"ör\\d 1'
    remember(value)
    for form in (value, json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value), f"{value!r}"):
        assert "ss/w" not in redact(f"x {form} y")
    assert redact("postgresql+psycopg://user:p%40ss%2Fw%22%C3%B6r%5Cd%201@host/db").count("%") == 0


def test_the_longer_of_two_known_values_is_masked_whole() -> None:
    remember("canary-value")
    remember("canary-value-and-more")
    assert redact("canary-value-and-more") == MASK


def test_white_space_around_a_value_is_not_part_of_it() -> None:
    remember("  canary-value\n")
    assert redact("(canary-value)") == f"({MASK})"


def test_values_that_are_ordinary_words_are_not_masked() -> None:
    for value in ("", "   ", None, "local", "ollama", "EMPTY", "no-key"):
        remember(value)
    assert redact("ollama/llama3 runs local with no-key") == "ollama/llama3 runs local with no-key"


@pytest.mark.parametrize(
    "echo", ["{0:.6}***", "{0:.8}...{1}", "{0:.5}…{1}", "{0:.10}********{1}", "{0:.4}XXXXXXXX"]
)
def test_the_beginning_of_a_known_value_with_stars_is_masked(echo: str) -> None:
    value = "Zq9-canary-of-a-provider-nobody-knows"
    remember(value)
    shown = redact(f"Invalid token {echo.format(value, value[-4:])} given")
    assert shown.startswith("Invalid token [secret]")
    assert "Zq9" not in shown
    assert redact("Zq9-else... and Zq9 alone") == "Zq9-else... and Zq9 alone"


def test_remembering_in_one_thread_while_another_redacts() -> None:
    def work() -> None:
        for number in range(500):
            remember(f"canary-value-{number}")

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        redact("some text")
    assert redact("canary-value-499") == MASK


# Shapes.


KEYS = [
    f"sk-{key(48)}",
    f"sk-{key(22, ALNUM + '-_')}",
    f"sk-proj-{key(120, ALNUM + '-_')}",
    f"sk-ant-api03-{key(95, ALNUM + '-_')}",
    f"sk-or-v1-{key(64, '0123456789abcdef')}",
    f"sk-{key(32, '0123456789abcdef')}",
    f"sk-lf-{uuid.UUID(int=7)}",
    f"sk_live_{key(24)}",
    f"AIza{key(35, ALNUM + '-_')}",
    f"ya29.{key(60, ALNUM + '-_')}",
    f"AKIA{key(16, string.ascii_uppercase)}",
    f"ASIA{key(16, string.ascii_uppercase)}",
    f"gsk_{key(52)}",
    f"hf_{key(34)}",
    f"xai-{key(80)}",
    f"pplx-{key(48)}",
    f"nvapi-{key(64, ALNUM + '-_')}",
    f"csk-{key(48)}",
    f"tgp_v1_{key(43, ALNUM + '-_')}",
    f"r8_{key(37)}",
    f"ghp_{key(36)}",
    f"github_pat_{key(22)}_{key(59)}",
    f"glpat-{key(20, ALNUM + '-_')}",
    f"xoxb-{key(12, '0123456789')}-{key(24)}",
    f"isat_{key(40)}",
    f"eyJhbGciOiJIUzI1NiJ9.eyJ{key(40)}.{key(43, ALNUM + '-_')}",
]


@pytest.mark.parametrize("secret", KEYS, ids=[text[:8] for text in KEYS])
@pytest.mark.parametrize(
    "text", ["{}", "Error: {}, again", '"{}"', "({})", "key={}", "x\n{}\n", "/{}/", "`{}`"]
)
def test_keys_of_providers(secret: str, text: str) -> None:
    shown = redact(text.format(secret))
    assert secret[8:-1] not in shown
    assert shown == text.format(MASK)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Incorrect API key provided: sk-12345678*****wxyz. You",
            "Incorrect API key provided: [secret]. You",
        ),
        ("Incorrect API key provided: sk-abc***xyz.", "Incorrect API key provided: [secret]."),
        ("provided: sk-proj-********************Q8AA.", "provided: [secret]."),
        ("Your api key: ****f3a9 is invalid", "Your api key: [secret] is invalid"),
        ("Invalid key sk-ant-api03-abc...wAA", "Invalid key [secret]"),
        ("key hf_abcdef… was revoked", "key [secret] was revoked"),
        ("Incorrect API key provided: abcd1234efgh.", "Incorrect API key provided: [secret]"),
        ("OPENAI_API_KEY=abcd1234efgh", "OPENAI_API_KEY=[secret]"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG+b", "aws_secret_access_key = [secret]"),
        ("{'x-api-key': 'abc123def456', 'a': 1}", "{'x-api-key': '[secret]', 'a': 1}"),
        ('{"api_key": "abc123def456"}', '{"api_key": "[secret]"}'),
        ("x-goog-api-key: abc123def456", "x-goog-api-key: [secret]"),
        ("password='hunter2hunter2'", "password='[secret]'"),
        ("Authorization: Bearer abcdef", "Authorization: Bearer [secret]"),
        ("authorization: Basic dXNlcjpwYXNzd29yZA==", "authorization: Basic [secret]"),
        ("{'Authorization': 'Bearer abcdef'}", "{'Authorization': 'Bearer [secret]'}"),
        ('{"authorization": "token abcdef"}', '{"authorization": "token [secret]"}'),
        ("[(b'Authorization', b'Bearer abcdef'), 1]", "[(b'Authorization', b'Bearer [secret]'), 1]"),
        ("Proxy-Authorization: a1b2c3d4", "Proxy-Authorization: [secret]"),
        ("sent bearer abc123def456 to", "sent bearer [secret] to"),
        ("https://me:hunter2@host/path", "https://[secret]@host/path"),
        ("postgres://:hunter2@127.0.0.1:5432/db", "postgres://[secret]@127.0.0.1:5432/db"),
        ("https://x-oauth-basic-token-123@github.com/o/r", "https://[secret]@github.com/o/r"),
        ("GET /v1?key=abcdefgh&alt=sse", "GET /v1?key=[secret]&alt=sse"),
        ("https://h/x?a=1&sig=ab%2Fcd+ef", "https://h/x?a=1&sig=[secret]"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----[secret]-----END RSA PRIVATE KEY-----",
        ),
    ],
)
def test_what_providers_and_libraries_print(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


ORDINARY = [
    "task-something and risk-free-assessment-2024-of-things",
    "skeleton_of_a_thing, sky, skip... and so on",
    "sk-learn-compatible-estimator",
    "pk_of_table_customers_2024",
    "hf_transfer, hf-internal-testing/tiny-random-gpt2",
    "local/smollm2-135m-instruct openai/gpt-4o-mini-2024-07-18",
    "SmolLM2-135M-Instruct.Q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    f"{uuid.UUID(int=2**127 + 12345)} {hashlib.sha256(b'x').hexdigest()} {hashlib.sha1(b'x').hexdigest()}",
    "experiments/triage/results/smollm2-predict-fewshot-0/raw.jsonl:12",
    "models.mini (openai/gpt-4o-mini) needs OPENAI_API_KEY: export the variable, or put it into a .env file",
    "models.mini.api_key_env: 'OPENAI_KEY_2' is not set",
    "Missing API key: set OPENAI_API_KEY",
    "Invalid API key: authentication failed",
    "max_tokens=128000, completion_tokens: 123456, prompt_tokens: 4567890",
    "Unexpected token: identifier1",
    "the bearer of this letter; Bearer authentication required; Bearer tokens",
    "Authorization: required",
    "password: must not be empty",
    "http://127.0.0.1:8000/v1/chat/completions?model=x&stream=true",
    "ssh://git@github.com/o/r.git, git@github.com:o/r.git, someone@example.com",
    "https://host/a:b@c",
    "**bold**, ***both***, 2 ** 10, ********",
    "text … and more ... xxxx",
    "Zeile 1: Grüße, 你好, 🙂",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    remember("canary-value-of-no-shape")
    assert redact(text) == text


@given(st.text())
def test_masking_twice_is_masking_once(text: str) -> None:
    once = redact(f"Authorization: Bearer {text} api_key={text} ://{text}@h sk-{text}***{text}")
    assert redact(once) == once


# Time.


SIZE = 75_000


def hostile() -> Iterator[str]:
    """Long texts that begin like a secret again and again, or do not end."""
    repeated = [
        "sk-",
        "sk-aaaa ",
        "a-",
        "*",
        "x",
        ".",
        "-",
        "\n",
        "a",
        "api_key=",
        "api key ",
        "?key=",
        "://",
        "://a:",
    ]
    repeated += [
        "eyJ",
        "bearer ",
        "authorization: ",
        "canary-",
        "****a",
        "sk-x",
        "a*",
        "a:",
        "-----BEGIN PRIVATE KEY-----",
    ]
    yield from (part * (SIZE // len(part)) for part in repeated)
    endless = ["sk-", "://", "://a:", "api_key=", "bearer ", "eyJ", "canary", "authorization:", "-----BEGIN "]
    yield from (
        head + part * (SIZE // len(part)) for head in endless for part in ("a", " ", "a*", "xxxx-", "a:")
    )
    yield json.dumps(
        [{"id": n, "digest": f"{n:064x}", "text": "my parcel has not arrived"} for n in range(4000)]
    )


def test_hostile_text_takes_time_in_proportion_to_its_length() -> None:
    """If one shape took the square of it, this would be minutes; it is a few seconds of our own CPU time."""
    remember("canary-value-of-no-shape")
    began = time.process_time()
    for text in hostile():
        redact(text)
    assert time.process_time() - began < 30


# Logs.


def test_logs_and_tracebacks_are_redacted() -> None:
    remember("canary-value-of-no-shape")
    try:
        raise ValueError("canary-value-of-no-shape")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "sent %s", (f"Bearer {key(30)}",), info)
    shown = RedactingFormatter("%(message)s").format(record)
    assert shown.startswith("sent Bearer [secret]\nTraceback")
    assert shown.count(MASK) >= 2
    assert "canary-value-of-no-shape" not in shown
