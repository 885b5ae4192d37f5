"""A table of text for terminals, Markdown and HTML."""

import dataclasses
import io
import re
from collections.abc import Iterator

import rich.box
import rich.console
import rich.measure
import rich.table
import rich.text


@dataclasses.dataclass(frozen=True)
class Table:
  """Cells of text, printable with rich and as Markdown.

  Attributes:
    header: names of the columns; "PGD-10 L2: eps 1" belongs to the group of
      columns "PGD-10 L2".
    rows: rows of cells; details of a number are in parentheses or brackets.
    footnotes: lines below the table.
    title: a line above the table.
    best: (row, column) of the emphasized cells.
  """

  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  footnotes: tuple[str, ...] = ()
  title: str = ""
  best: frozenset[tuple[int, int]] = frozenset()

  def transposed(self) -> "Table":
    """The table with rows and columns swapped, and no emphasized cells."""
    header, *rows = zip(self.header, *self.rows, strict=True)
    return Table(header, tuple(rows), self.footnotes, self.title)

  def markdown(self) -> str:
    """The table and its footnotes as GitHub Markdown."""
    rule = tuple("---" for _ in self.header)
    rows = [
      [
        re.sub(r"^\S+", r"**\g<0>**", literal(cell))
        if (i, j) in self.best
        else literal(cell)
        for j, cell in enumerate(row)
      ]
      for i, row in enumerate(self.rows)
    ]
    lines = [literal(self.title), ""] if self.title else []
    heads = map(literal, self.header)
    lines += [f"| {' | '.join(row)} |" for row in (heads, rule, *rows)]
    if self.footnotes:
      lines += ["", *(f"- {literal(note)}" for note in self.footnotes)]
    return "\n".join(lines) + "\n"

  def text(self, width: int = 80) -> str:
    """The table and its footnotes as plain text.

    Args:
      width: number of columns of the terminal; in a table that is too
        wide, lines are broken; if that is not enough, the table is transposed,
        with as many of its rows side by side as fit.

    Returns:
      Lines of text.
    """
    stream = io.StringIO()
    rich.console.Console(file=stream, width=width).print(self)
    return stream.getvalue()

  def __rich_console__(
    self, console: rich.console.Console, options: rich.console.ConsoleOptions
  ) -> rich.console.RenderResult:
    widest = options.update(width=10_000)  # otherwise rich reports the limit
    for tables in self._layouts():
      widths = [
        rich.measure.Measurement.get(console, widest, table).maximum
        for table in tables
      ]
      if max(widths) <= options.max_width:
        break
    if self.title:
      yield rich.text.Text(line(self.title))
    yield from tables
    for note in self.footnotes:
      yield rich.text.Text(line(note))

  def _layouts(self) -> Iterator[list[rich.table.Table]]:
    """Ways to print the table, from the widest to the narrowest."""
    yield [_rich_table(self)]
    yield [_rich_table(self, broken=True)]
    yield [_rich_table(self.transposed())]
    for size in range(len(self.rows), 0, -1):
      parts = [
        dataclasses.replace(self, rows=self.rows[i : i + size])
        for i in range(0, len(self.rows), size)
      ]
      yield [_rich_table(part.transposed(), broken=True) for part in parts]


def line(text: str) -> str:
  """A user's text on one line, without control characters."""
  shown = (letter if letter.isprintable() else " " for letter in text)
  return " ".join("".join(shown).split())


def literal(text: str) -> str:
  """A user's text, escaped for a cell of a Markdown table."""
  return re.sub(r"([\\|<])", r"\\\1", line(text))


def _rich_table(table: Table, broken: bool = False) -> rich.table.Table:
  """Makes a rich table; `broken` breaks lines at parentheses and in headers."""
  drawn = rich.table.Table(box=rich.box.SIMPLE, pad_edge=False)
  for name in map(line, table.header):
    if broken:
      # After the group of columns, or else at all spaces outside parentheses.
      space = r"(?<=:) " if ": " in name else r" (?![^(]*\))"
      name = re.sub(space, "\n", name)
    # Text, not str: rich would interpret brackets in a label.
    drawn.add_column(rich.text.Text(name), overflow="fold")
  for i, row in enumerate(table.rows):
    cells = map(line, row)
    cells = [cell.replace(" (", "\n(") if broken else cell for cell in cells]
    drawn.add_row(
      *(
        rich.text.Text(cell, style="bold" if (i, j) in table.best else "")
        for j, cell in enumerate(cells)
      )
    )
  return drawn
