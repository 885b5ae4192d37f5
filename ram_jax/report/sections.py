"""The parts of a page, whatever it is written in."""

import dataclasses
import pathlib

from ram_jax.report.table import Table


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure in a file.

  Attributes:
    path: of the PNG.
    caption: what it shows, in one sentence.
  """

  path: pathlib.Path
  caption: str


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of a page.

  Attributes:
    title: its heading.
    tables: (caption, table) each.
    pictures: below the tables.
    folded: (summary, table or text) each: what few will want, shown where the
      reader opens it, and left out of Markdown.
  """

  title: str
  tables: tuple[tuple[str, Table], ...] = ()
  pictures: tuple[Picture, ...] = ()
  folded: tuple[tuple[str, Table | str], ...] = ()

  def markdown(self) -> str:
    """Heading, tables and links to the pictures."""
    parts = [f"## {self.title}"]
    parts += [table.markdown().strip() for _, table in self.tables]
    parts += [f"![{p.caption}]({p.path.name})" for p in self.pictures]
    return "\n\n".join(parts)
