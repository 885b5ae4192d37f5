"""A table of text that prints in a terminal and as Markdown."""

import dataclasses
import io

import rich.box
import rich.console
import rich.measure
import rich.table
import rich.text


@dataclasses.dataclass(frozen=True)
class Table:
  """Cells of text, printable with rich and as Markdown.

  Attributes:
    header: names of the columns.
    rows: cells, as many per row as the header has.
    footnotes: lines below the table.
  """

  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  footnotes: tuple[str, ...] = ()

  def transposed(self) -> "Table":
    """The same table with its columns as rows."""
    header, *rows = zip(self.header, *self.rows, strict=True)
    return Table(header, tuple(rows), self.footnotes)

  def markdown(self) -> str:
    """The table and its footnotes as GitHub Markdown."""
    rule = tuple("---" for _ in self.header)
    lines = [
      "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
      for row in (self.header, rule, *self.rows)
    ]
    if self.footnotes:
      lines += ["", *(f"- {note}" for note in self.footnotes)]
    return "\n".join(lines) + "\n"

  def text(self, width: int = 80) -> str:
    """The table and its footnotes as plain text.

    Args:
      width: columns of the terminal; a table that is too wide is transposed.

    Returns:
      Lines of text.
    """
    stream = io.StringIO()
    rich.console.Console(file=stream, width=width).print(self)
    return stream.getvalue()

  def __rich_console__(
    self,
    console: rich.console.Console,
    options: rich.console.ConsoleOptions,
  ) -> rich.console.RenderResult:
    drawn = [
      _rich_table(self),
      _rich_table(self, broken=True),
      _rich_table(self.transposed(), broken=True),
    ]
    # Measured without a limit, since rich would report the limit itself.
    widths = [
      rich.measure.Measurement.get(console, options.update(width=10_000), t)
      for t in drawn
    ]
    fits = (width.maximum <= options.max_width for width in widths)
    yield next(
      (t for t, fit in zip(drawn, fits, strict=True) if fit), drawn[-1]
    )
    for note in self.footnotes:
      yield rich.text.Text(note)


def _rich_table(table: Table, broken: bool = False) -> rich.table.Table:
  """`broken` puts what is in parentheses on a line of its own."""
  drawn = rich.table.Table(box=rich.box.SIMPLE, pad_edge=False)
  for name in table.header:
    # Text, not str: a label may hold brackets, which rich would interpret.
    drawn.add_column(rich.text.Text(name), overflow="fold")
  for row in table.rows:
    cells = [cell.replace(" (", "\n(") if broken else cell for cell in row]
    drawn.add_row(*(rich.text.Text(cell) for cell in cells))
  return drawn
