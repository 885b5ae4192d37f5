"""A page of HTML in one file: no network, no foreign code."""

import base64
import hashlib
import html
import importlib.resources
import re
import struct
from collections.abc import Sequence

from ram_jax.report import look, rendering
from ram_jax.report.sections import Picture, Section
from ram_jax.report.table import Table

# CSS pixels; what is drawn wider would be too small to read on a phone.
READABLE = 560
# Letters of a cell that needs some width.
LONG = 40


def document(title: str, lead: str, sections: Sequence[Section]) -> str:
  """The whole page.

  Args:
    title: of the page; any text, as all others here.
    lead: a sentence below it.
    sections: its parts, in order.

  Returns:
    HTML that holds its pictures, style and script. Its content security policy
    allows these and nothing else, so that text of a user's that looked like a
    script would not run.
  """
  resources = importlib.resources.files("ram_jax.report")
  style, script = (
    (resources / f"report.{kind}").read_text(encoding="utf-8")
    for kind in ("css", "js")
  )
  policy = (
    f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
    f"script-src {_hash(script)}"
  )
  titles = enumerate(section.title for section in sections)
  links = "".join(f'<li><a href="#s{i}">{_text(x)}</a></li>' for i, x in titles)
  parts = [_section(f"s{i}", x) for i, x in enumerate(sections)]
  return "\n".join(
    [
      '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
      f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f"<title>{_text(title)}</title>",
      f"<style>{style}</style>\n</head>\n<body>",
      f"<header><h1>{_text(title)}</h1>\n<p>{_text(lead)}</p>",
      f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>',
      "<main>",
      *parts,
      f"</main>\n<script>{script}</script>\n</body>\n</html>\n",
    ]
  )


def _section(name: str, section: Section) -> str:
  parts = [f'<section id="{name}">\n<h2>{_text(section.title)}</h2>']
  parts += [_table(caption, table) for caption, table in section.tables]
  parts += [_figure(picture) for picture in section.pictures]
  for summary, content in section.folded:
    inner = f"<pre>{html.escape(str(content))}</pre>"
    if isinstance(content, Table):
      inner = _table(summary, content)
    parts.append(
      f"<details><summary>{_text(summary)}</summary>\n{inner}</details>"
    )
  return "\n".join([*parts, "</section>"])


def _table(caption: str, table: Table) -> str:
  kinds = [_kind(column) for column in zip(*table.rows, strict=True)]
  head = "".join(
    f'<th scope="col"{kind}>{_text(name)}</th>'
    for name, kind in zip(table.header, kinds, strict=True)
  )
  rows = [
    f'<tr><th scope="row">{_text(name)}</th>'
    + "".join(
      f"<td{kind}>{_text(cell)}</td>"
      for cell, kind in zip(cells, kinds[1:], strict=True)
    )
    + "</tr>"
    for name, *cells in table.rows
  ]
  notes = "".join(f"<li>{_text(note)}</li>" for note in table.footnotes)
  return "\n".join(
    [
      _scroll(caption),
      f"<table><caption>{_text(caption)}</caption>",
      f"<thead><tr>{head}</tr></thead>\n<tbody>",
      *rows,
      "</tbody></table></div>",
      f'<ul class="notes">{notes}</ul>' if notes else "",
    ]
  )


def _figure(picture: Picture) -> str:
  content = picture.path.read_bytes()
  # The first chunk of a PNG, at byte 16: width and height.
  size = [
    round(96 * x / look.DPI) for x in struct.unpack(">2I", content[16:24])
  ]
  wide = ' class="wide"' if size[0] > READABLE else ""
  data = base64.b64encode(content).decode()
  return (
    f"<figure>{_scroll(picture.caption)}"
    f'<img{wide} width="{size[0]}" height="{size[1]}" '
    f'alt="{_text(picture.caption)}" src="data:image/png;base64,{data}"></div>'
    f"\n<figcaption>{_text(picture.caption)}</figcaption></figure>"
  )


def _scroll(name: str) -> str:
  """A part that scrolls sideways, by keys too."""
  options = 'class="scroll" role="region" tabindex="0"'
  return f'<div {options} aria-label="{_text(name)}">'


def _kind(column: Sequence[str]) -> str:
  """The class of a column's cells: numbers are not broken, long text is."""
  if all(map(_is_number, column)):
    return ' class="number"'
  return ' class="long"' if max(map(len, column)) > LONG else ""


def _is_number(cell: str) -> bool:
  return cell == "-" or bool(re.match(r"[-+]?\d[\d.]*( [(\[].*)?$", cell))


def _text(text: str) -> str:
  """A user's text, on one line, as HTML shows it letter by letter."""
  return html.escape(rendering.line(text))


def _hash(text: str) -> str:
  digest = hashlib.sha256(text.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"
