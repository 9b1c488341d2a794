"""Two scripts that play the model of this experiment, so that it needs no key: `careful` and `hasty`.

    python -m dspylab.testing --port 8377 --answer-with experiments/agent/endpoint.py:answer -- \\
        dspylab run -c experiments/agent/experiment.yaml

They read the prompts that a model would get, see what the tools told them, and decide by rules. Both know
numbers as digits only, not "a dozen", and reckon with two digits when they do it in their heads. `careful`
uses the calculator if there is one. `hasty` never does, names an item as the question spells it before it
thinks, and says 0 rather than that it does not know.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from dspylab.testing import ChatRequest, reply_fields


@dataclass
class State:
    """The question, and what is known after the calls so far."""

    question: str
    orders: dict[str, dict[str, str]] = field(default_factory=dict)
    prices: dict[str, float] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    result: str | None = None

    @property
    def numbers(self) -> list[str]:
        """The orders that the question names."""
        return re.findall(r"\b1\d{3}\b", self.question)

    @property
    def item(self) -> str | None:
        """The item whose price is asked for, as the question spells it."""
        found = re.search(r"do(?:es)? (?:an? |\d+ )?(?:dozen |pair of )?(.+) cost", self.question)
        return found[1] if found else None

    @property
    def is_about_money(self) -> bool:
        return "worth" in self.question or self.item is not None


def answer(request: ChatRequest) -> str:
    """What the model that the request names says to it."""
    careful = request.model == "careful"
    state = read(request)
    if "next_tool_name" not in request.system:
        fields = {"reasoning": "From what I found.", "answer": conclusion(state, careful=careful)}
    else:
        tool, arguments = next(calls(state, careful=careful, calculator="calculate" in request.system))
        fields = {"next_thought": f"Now {tool}.", "next_tool_name": tool, "next_tool_args": arguments}
    return reply_fields(request, fields)


def read(request: ChatRequest) -> State:
    """Read the question and the observations out of a prompt of dspy.ReAct."""
    state = State(request.field("question") or "")
    step = 0
    while tool := request.field(f"tool_name_{step}"):
        given = json.loads(request.field(f"tool_args_{step}") or "{}")
        seen = request.field(f"observation_{step}") or ""
        if seen.startswith("there is no"):
            state.refused.update(given.values())
        elif tool == "find_order":
            state.orders[given["number"]] = json.loads(seen)
        elif tool == "price_of":
            state.prices[given["item"]] = float(seen)
        elif tool == "calculate":
            state.result = seen
        step += 1
    return state


def calls(state: State, *, careful: bool, calculator: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """The calls that are left to make, with their arguments."""
    for number in state.numbers:
        if number not in state.orders.keys() | state.refused:
            yield "find_order", {"number": number}
    for item in items(state, careful=careful):
        if item not in state.prices.keys() | state.refused:
            yield "price_of", {"item": item}
    expression = sum_of(state)
    if careful and calculator and expression and state.result is None:
        yield "calculate", {"expression": expression}
    yield "finish", {}


def items(state: State, *, careful: bool) -> list[str]:
    """The items whose prices are needed; after a refusal `hasty` sees that it took a plural."""
    if state.item is None:
        return [order["item"] for order in state.orders.values()] if state.is_about_money else []
    singular = re.sub(r"(?<=ss)es$|(?<!s)s$", "", state.item)
    return [singular] if careful or state.item in state.refused else [state.item]


def sum_of(state: State) -> str | None:
    """What there is to reckon; None when there is nothing, or when something is missing."""
    if state.item:
        quantity = re.search(r"\d+", state.question)
        return f"{quantity[0]} * {price:g}" if quantity and (price := sum(state.prices.values())) else None
    if not state.orders or not state.orders.keys() >= set(state.numbers):
        return None
    orders = [state.orders[number] for number in state.numbers]
    if "together" in state.question:
        return " + ".join(str(order["quantity"]) for order in orders)
    if state.is_about_money and all(order["item"] in state.prices for order in orders):
        return " - ".join(f"{order['quantity']} * {state.prices[order['item']]:g}" for order in orders)
    return None


def conclusion(state: State, *, careful: bool) -> str:
    """The answer that follows from what is known."""
    if state.result:
        return state.result
    if expression := sum_of(state):
        return in_the_head(expression)
    if state.item and state.prices:
        return f"{sum(state.prices.values()):g}"
    if not state.orders or state.is_about_money or "together" in state.question:
        return "unknown" if careful else "0"
    keys = {"who": "customer", "Who": "customer", "How many": "quantity"}
    key = next((key for word, key in keys.items() if word in state.question), "item")
    return str(state.orders[state.numbers[0]][key])


def in_the_head(expression: str) -> str:
    """The value of a sum of products, each product and the sum rounded to two digits."""
    total = 0.0
    for sign, left, right in re.findall(r"([+-]?) ?([\d.]+)(?: \* ([\d.]+))?", expression):
        value = two_digits(float(left) * float(right or 1))
        total += -value if sign == "-" else value
    return f"{two_digits(total):g}"


def two_digits(value: float) -> float:
    return float(f"{value:.2g}")
