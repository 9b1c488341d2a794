"""What a call costs: the model's own prices, or LiteLLM's table as it is installed. Never the network."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

from dspylab.config.models import Model
from dspylab.records import Rates

_TABLE = "model_prices_and_context_window_backup.json"
_PER_MILLION = 1_000_000


def rates_for(model: Model) -> Rates | None:
    """Prices of a model entry.

    Args:
        model: The entry. Its own `pricing` comes first, `local/…` is free, else LiteLLM's table decides.

    Returns:
        Rates in US dollars per million tokens, or None when no price is known. Prices that rise with
        the length of the prompt are not modelled: the table's base rate is used.
    """
    if model.pricing is not None:
        return Rates(
            input_usd=model.pricing.input,
            output_usd=model.pricing.output,
            cached_input_usd=model.pricing.cached_input,
            cache_write_usd=model.pricing.cache_write,
            source="experiment file",
        )
    if model.is_local:
        return Rates(input_usd=0.0, output_usd=0.0, source="local")
    entry = _listed(model.model)
    if entry is None or "input_cost_per_token" not in entry or "output_cost_per_token" not in entry:
        return None

    def per_million(key: str) -> float | None:
        value = entry.get(key)
        return None if value is None else round(float(value) * _PER_MILLION, 9)

    return Rates(
        input_usd=per_million("input_cost_per_token") or 0.0,
        output_usd=per_million("output_cost_per_token") or 0.0,
        cached_input_usd=per_million("cache_read_input_token_cost"),
        cache_write_usd=per_million("cache_creation_input_token_cost"),
        source=f"litellm {importlib.metadata.version('litellm')}",
    )


def cost_usd(
    rates: Rates | None, prompt: int | None, cached: int, cache_write: int, completion: int | None
) -> float | None:
    """Cost of one call in US dollars.

    Args:
        rates: Prices, or None when unknown.
        prompt: Prompt tokens, cached and written ones included.
        cached: Prompt tokens read from the provider's cache.
        cache_write: Prompt tokens written to the provider's cache.
        completion: Completion tokens, reasoning included.

    Returns:
        None when prices or tokens are unknown.
    """
    if rates is None or prompt is None or completion is None:
        return None
    fresh = max(0, prompt - cached - cache_write)
    cached_rate = rates.input_usd if rates.cached_input_usd is None else rates.cached_input_usd
    write_rate = rates.input_usd if rates.cache_write_usd is None else rates.cache_write_usd
    total = (
        fresh * rates.input_usd
        + cached * cached_rate
        + cache_write * write_rate
        + completion * rates.output_usd
    )
    return total / _PER_MILLION


def _listed(model: str) -> dict[str, Any] | None:
    """The table's entry for LiteLLM's provider/model; a bare model name counts only for its own provider."""
    table = _table()
    if model in table:
        return table[model]
    provider, _, name = model.partition("/")
    entry = table.get(name)
    return entry if entry is not None and entry.get("litellm_provider") == provider else None


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    """LiteLLM's table, read as a file: importing litellm takes seconds and may ask the network for it."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    try:
        table = json.loads((Path(spec.origin).parent / _TABLE).read_bytes())
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}
