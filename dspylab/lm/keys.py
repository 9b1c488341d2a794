"""API keys: from the environment or a `.env` file, by the name that the experiment gives."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dotenv import dotenv_values

from dspylab.config.models import Model
from dspylab.errors import EnvironmentProblem
from dspylab.lm.routing import native_route
from dspylab.places import shown_path
from dspylab.redact import redact, remember

#: Parts of variable names that say that the value is secret.
_SECRET_WORDS = frozenset({"APIKEY", "KEY", "PASS", "PASSWD", "PASSWORD", "PAT", "PWD", "SECRET", "TOKEN"})
#: A login in a URL, such as that of a proxy or of an endpoint.
_LOGIN = re.compile(r"://[^\s/@:]{0,200}:(?P<password>[^\s/@]{1,500})@")
#: Shortest number that may be secret: shorter ones are limits and ports.
_SHORTEST_NUMBER = 16


def read_environment(folder: Path, root: Path) -> dict[str, str]:
    """The process's environment over the `.env` files of the experiment's folder and of the repository.

    A variable that is set to nothing counts as not set.

    Args:
        folder: Folder of the experiment; its `.env` wins over the root's.
        root: Root of the repository.

    Returns:
        Variable name to value. Values whose names look like secrets are masked in all output.

    Raises:
        EnvironmentProblem: If a `.env` file cannot be read.
    """
    merged: dict[str, str] = {}
    for place in dict.fromkeys((root, folder)):
        merged.update(_read_dotenv(place / ".env"))
    merged.update({name: value for name, value in os.environ.items() if value})
    for name, value in merged.items():
        if _is_secret(name, value):
            remember(value)
        for login in _LOGIN.finditer(value):
            remember(login["password"])
    return merged


def find_keys(models: Mapping[str, Model], environment: Mapping[str, str]) -> dict[str, str | None]:
    """The key of each model; None for models that need none.

    Args:
        models: The models that will be called, by id.
        environment: As `read_environment` gives it.

    Raises:
        EnvironmentProblem: If keys are missing or no keys, for all models at once, naming the variables.
    """
    keys: dict[str, str | None] = {}
    problems: list[str] = []
    for model_id, model in models.items():
        names = (model.api_key_env,) if model.api_key_env else usual_variables(model)
        # An endpoint of the user's own is sent no key that was not named: it may not be the provider's.
        needed = bool(model.api_key_env) or (model.api_base is None and bool(names))
        name = next((name for name in names if environment.get(name, "").strip()), None)
        keys[model_id] = environment[name].strip() if needed and name is not None else None
        remember(keys[model_id])
        if needed and name is None:
            problems.append(f"models.{model_id} ({model.model}) needs {' or '.join(names)}")
        elif not _can_be_sent(keys[model_id] or ""):
            problems.append(f"models.{model_id}: {name} holds a character that no key has")
    if problems:
        raise EnvironmentProblem(
            "; ".join(problems),
            where="API keys",
            remedy="export the variable, or put it into a .env file beside the experiment or at the root",
        )
    return keys


def usual_variables(model: Model) -> tuple[str, ...]:
    """Names under which a native provider's key is usually kept.

    Empty for providers that need none, and for LiteLLM's: which of its many variables a provider needs is
    asked of LiteLLM itself when it is loaded.
    """
    route = None if model.is_local or model.engine == "litellm" else native_route(model)
    return route.variables if route is not None else ()


def ambient_base(model: Model, environment: Mapping[str, str]) -> str | None:
    """The endpoint of a model whose entry names none: what LiteLLM's users set, such as OPENAI_API_BASE.

    Args:
        model: The model.
        environment: As `read_environment` gives it.
    """
    if model.api_base is not None or model.is_local:
        return None
    prefix = model.model.partition("/")[0].upper()
    return environment.get(f"{prefix}_API_BASE") or environment.get(f"{prefix}_BASE_URL")


def without_login(url: str) -> str:
    """A URL as it may be written into files: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return redact(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _read_dotenv(path: Path) -> dict[str, str]:
    try:
        values = dotenv_values(path, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise EnvironmentProblem(
            "is not UTF-8", where=shown_path(path), remedy="save the file as UTF-8"
        ) from error
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot be read: {error.strerror}", where=shown_path(path), remedy="make it readable"
        ) from error
    return {name: value for name, value in values.items() if value}


def _is_secret(name: str, value: str) -> bool:
    """Whether a variable is to be masked: `HF_TOKEN` is; `MAX_TOKENS`, numbers and paths are not."""
    if _SECRET_WORDS.isdisjoint(name.upper().split("_")):
        return False
    is_number = value.isdecimal() and len(value) < _SHORTEST_NUMBER
    is_path = value.startswith(os.sep) and os.path.exists(value)  # noqa: PTH110 - any text, also a long one
    return not is_number and not is_path


def _can_be_sent(key: str) -> bool:
    """Whether a key fits into a header; one that was copied with its ellipsis does not."""
    return key.isascii() and key.isprintable()
