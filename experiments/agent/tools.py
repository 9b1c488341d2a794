"""The tools of the agent: an order book, a price list and a calculator. Each takes and returns text."""

import ast
import json
import operator
from pathlib import Path
from typing import Any

OPERATORS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}
SHOP: dict[str, Any] = json.loads((Path(__file__).parent / "shop.json").read_text(encoding="utf-8"))


def find_order(number: str) -> str:
    """Look an order up by its number: who placed it, which item, how many."""
    order = SHOP["orders"].get(str(number))
    return json.dumps(order) if order else f"there is no order {number}"


def price_of(item: str) -> str:
    """The price of one item in euros."""
    price = SHOP["prices"].get(item)
    return str(price) if price else f"there is no item {item!r}; the items are: {', '.join(SHOP['prices'])}"


def calculate(expression: str) -> str:
    """Work out an expression of numbers, + - * / and brackets."""
    return f"{_value(ast.parse(expression, mode='eval').body):g}"


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(operand))
        case _:
            raise ValueError(f"can not work out {ast.unparse(node)!r}")
