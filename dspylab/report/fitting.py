"""A table that fits a terminal of any width: columns are left out, texts are folded, nothing is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from dspylab.printable import printable
from dspylab.report.folding import FoldingText
from dspylab.report.numbers import NOTHING

#: Width in characters below which a name or a heading is not squeezed; a column goes instead.
_NAME_WIDTH: Final = 18
#: Width below which nothing is squeezed when no column is left to go; rows become lists instead.
_LEAST_WIDTH: Final = 8
#: Characters between two columns.
_GAP: Final = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: Its heading; may have several lines.
        cell: From a row to its text.
        rank: Columns of a higher rank go first when the terminal is too narrow; 0 always stays.
        text: True for names and reasons, which are folded; False for figures, which are folded only when
            nothing else can give way.
        style: From a row to a style; None for none.
        legend: What it means, said below the table when it is shown.
        squeezed: Characters to which a text and a heading are folded before a column goes.
    """

    title: str
    cell: Callable[[Any], str]
    rank: int = 0
    text: bool = False
    style: Callable[[Any], str] | None = None
    legend: str = ""
    squeezed: int = _NAME_WIDTH


@dataclass(frozen=True, slots=True)
class FittingTable:
    """A table that leaves out its least important columns when the terminal is too narrow for them.

    What is shown is never cut. When the columns that always stay do not fit, they are folded further; when
    they would be too narrow to be read, each row becomes a list.

    Attributes:
        title: Above the table.
        columns: All columns.
        rows: What the cells are made from.
        notes: Lines below the table.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Any]
    notes: Sequence[str] = ()
    #: Of each column that was measured, by identity: choices ask for the same again and again.
    _widest: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Renders the widest choice of columns that fits."""
        yield Text(printable(self.title), style="bold")
        choices = list(self._choices())
        fitting = (choice for choice in choices if _total(choice[1]) <= options.max_width)
        columns, least = next(fitting, choices[-1])
        if _total(least) <= options.max_width:
            yield self._table(columns, self._widths(columns, least, options.max_width))
        else:
            yield from self._lists(columns)
        legend = self._legend(columns)
        if legend:
            yield Text(legend, style="dim")
        for note in self.notes:
            yield Text(printable(note), style="dim")
        left_out = [_on_a_line(column) for column in self.columns if column not in columns]
        if left_out:
            yield Text(f"Left out in this width: {', '.join(left_out)}.", style="dim")

    def _legend(self, columns: Sequence[Column]) -> str:
        """What the columns mean, and the dash if there is one; nothing for a table that explains itself."""
        meanings = [column.legend for column in columns if column.legend]
        if not meanings or not self.rows:
            return ""
        if any(column.cell(row) == NOTHING for column in columns for row in self.rows):
            meanings.append(f"{NOTHING}: no such figure.")
        return " ".join(meanings)

    def _choices(self) -> Iterator[tuple[list[Column], list[int]]]:
        """Columns with their least widths: fewer and fewer, then names squeezed, then figures folded."""
        for rank in range(max(column.rank for column in self.columns), -1, -1):
            columns = [column for column in self.columns if column.rank <= rank]
            yield columns, [self._least_width(column, column.squeezed) for column in columns]
        yield columns, [self._least_width(column, _LEAST_WIDTH) for column in columns]
        yield columns, [min(self._longest(column), _LEAST_WIDTH) for column in columns]

    def _least_width(self, column: Column, squeezed: int) -> int:
        """Characters that a column needs when only texts and headings are folded."""
        if column.text:
            return min(self._longest(column), squeezed)
        return max(self._longest_cell(column), min(_heading_width(column), squeezed))

    def _longest(self, column: Column) -> int:
        return max(_heading_width(column), self._longest_cell(column))

    def _longest_cell(self, column: Column) -> int:
        if id(column) not in self._widest:
            widths = (cell_len(printable(column.cell(row))) for row in self.rows)
            self._widest[id(column)] = max(widths, default=0)
        return self._widest[id(column)]

    def _widths(self, columns: Sequence[Column], least: Sequence[int], room: int) -> list[int]:
        """The width of each column: what is widest gives way first, none below its least."""
        widths = [min(self._longest(column), room) for column in columns]
        places = range(len(widths))
        for _ in range(_total(widths) - room):
            widest = max((place for place in places if widths[place] > least[place]), key=widths.__getitem__)
            widths[widest] -= 1
        return widths

    def _table(self, columns: Sequence[Column], widths: Sequence[int]) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False
        )
        for column, width in zip(columns, widths, strict=True):
            table.add_column(
                FoldingText(column.title),
                justify="left" if column.text else "right",
                overflow="fold",
                width=width,
            )
        for row in self.rows:
            table.add_row(*(_cell(column, row) for column in columns))
        return table

    def _lists(self, columns: Sequence[Column]) -> Iterator[Text]:
        """The rows below each other, one line a cell."""
        for row in self.rows:
            yield Text()
            for column in columns:
                text = f"{_on_a_line(column)}: {printable(column.cell(row))}"
                yield FoldingText(text, style=_style(column, row))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _heading_width(column: Column) -> int:
    return max(map(cell_len, column.title.split("\n")))


def _on_a_line(column: Column) -> str:
    return column.title.replace("\n", " ")


def _cell(column: Column, row: Any) -> Text:
    kind = FoldingText if column.text else Text
    return kind(printable(column.cell(row)), style=_style(column, row))


def _style(column: Column, row: Any) -> str:
    return column.style(row) if column.style else ""
