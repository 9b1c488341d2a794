"""API keys: from the environment or a `.env` file, by the name that the experiment gives."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dspylab.config.models import Model
from dspylab.errors import EnvironmentProblem
from dspylab.lm.gguf import is_local
from dspylab.lm.routing import native_route
from dspylab.redact import remember


def read_environment(folder: Path, root: Path) -> dict[str, str]:
    """The process's environment over the `.env` files of the repository and of the experiment's folder.

    Args:
        folder: Folder of the experiment; its `.env` wins over the root's.
        root: Root of the repository.

    Returns:
        Variable name to value. Values whose names look like secrets are masked in all output.
    """
    from dotenv import dotenv_values

    merged: dict[str, str] = {}
    for place in dict.fromkeys((root, folder)):
        merged.update({name: value for name, value in dotenv_values(place / ".env").items() if value})
    merged.update(os.environ)
    for name, value in merged.items():
        if any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD")):
            remember(value)
    return merged


def find_keys(models: Mapping[str, Model], environment: Mapping[str, str]) -> dict[str, str | None]:
    """The key of each model; None for models that need none.

    Args:
        models: The models that will be called, by id.
        environment: As `read_environment` gives it.

    Raises:
        EnvironmentProblem: If keys are missing, for all models at once, naming the variables.
    """
    keys: dict[str, str | None] = {}
    missing: list[str] = []
    for model_id, model in models.items():
        names = (model.api_key_env,) if model.api_key_env else usual_variables(model)
        value = next((environment[name] for name in names if environment.get(name)), None)
        # An endpoint of the user's own is sent no key that was not named: it may not be the provider's.
        needed = bool(model.api_key_env) or (model.api_base is None and bool(names))
        if value is None and needed:
            missing.append(f"models.{model_id} ({model.model}) needs {' or '.join(names)}")
        keys[model_id] = value if needed else None
        remember(keys[model_id])
    if missing:
        raise EnvironmentProblem(
            "; ".join(missing),
            where="API keys",
            remedy="export the variable, or put it into a .env file beside the experiment or at the root",
        )
    return keys


def usual_variables(model: Model) -> tuple[str, ...]:
    """Names under which a native provider's key is usually kept.

    Empty for providers that need none, and for LiteLLM's: which of its many variables a provider needs is
    asked of LiteLLM itself when it is loaded.
    """
    route = None if is_local(model.model) or model.engine == "litellm" else native_route(model)
    return route.variables if route is not None else ()
