"""An agent that answers questions about the orders of a shop, and the metrics that look at what it did.

`build(...)` is what experiment.yaml calls for each run; its matrix varies the arguments.
"""

from typing import Any

import dspy
from tools import calculate, find_order, price_of

TOOLS_FOR_SUMS = {"tool": [calculate], "head": []}


class AboutOrders(dspy.Signature):
    """Answer with a name or a number alone; with "unknown" if the tools do not know."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def build(max_iters: int = 8, sums: str = "tool") -> dspy.Module:
    """Build the program of one run.

    Args:
        max_iters: Most calls of tools for a question, the one that says "finish" included.
        sums: `tool`: the agent has a calculator. `head`: it has none.
    """
    return dspy.ReAct(AboutOrders, [find_order, price_of, *TOOLS_FOR_SUMS[sums]], max_iters)


def tools(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> dict[str, float]:
    """Which tools the agent used, against those that the question needs.

    Returns:
        `score`: 1 when it used these tools and no others.
        `calls`: How many calls it made, "finish" left out.
        `errors`: How many of them told it that its arguments were no good.
    """
    used = [value for name, value in prediction.trajectory.items() if name.startswith("tool_name_")]
    used = [name for name in used if name != "finish"]
    seen = [str(value) for name, value in prediction.trajectory.items() if name.startswith("observation_")]
    return {
        "score": float(set(used) == set(example.tools)),
        "calls": len(used),
        "errors": sum(text.startswith(("there is no item", "Execution error")) for text in seen),
    }
