"""Names of runs in narrow columns: they are folded between their parts, not in the middle of one."""

from __future__ import annotations

import re

from rich.cells import cell_len, chop_cells
from rich.console import Console, JustifyMethod, OverflowMethod
from rich.containers import Lines
from rich.text import Text

#: Ends of the parts of a name: `mini-two_steps-0.5@HEAD`.
_PART_ENDS = re.compile(r"[-_@./]")
#: Share of a line that is filled at least: a part that leaves more of it empty is folded all the same.
_LEAST_FILLED = 0.3


def folded(text: str, width: int) -> str:
    """The text with line breaks in words that are longer than a line, after a part if there is one.

    Args:
        text: Any text.
        width: Cells of a line, at least 1.
    """
    return re.sub(r"[^\s]+", lambda word: "\n".join(_lines(word.group(), width)), text)


def _lines(word: str, width: int) -> list[str]:
    lines = []
    while cell_len(word) > width:
        line = chop_cells(word, width)[0]
        ends = [found.end() for found in _PART_ENDS.finditer(line)]
        if ends and ends[-1] >= _LEAST_FILLED * len(line):
            line = line[: ends[-1]]
        lines.append(line)
        word = word[len(line) :]
    return [*lines, word] if word else lines


class FoldingText(Text):
    """Text of one style that rich folds as `folded` does."""

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        """As `Text.wrap`, with long words folded beforehand."""
        text = Text(folded(self.plain, max(1, width)), style=self.style)
        return text.wrap(
            console, width, justify=justify, overflow=overflow, tab_size=tab_size, no_wrap=no_wrap
        )
