"""The report's files."""

import dataclasses
import html.parser
import re

import pytest

from ram_jax.contracts import Note
from ram_jax.report import page, plots, tables
from ram_jax.runs import results as runs

FIGURES = (
  "adversarial_accuracy",
  "corruption_examples",
  "corruption_noise",
  "corruption_blur",
  "corruption_weather",
  "corruption_digital",
  "trade_off",
  "fourier",
  "training_curves",
  "corruptions",  # copied from a run
)


def test_report_has_both_pages_and_every_figure(report):
  names = [f"{name}.png" for name in FIGURES]
  assert list(report) == ["summary.md", "report.html", *names]
  assert all(path.stat().st_size > 0 for path in report.values())
  text = report["summary.md"].read_text(encoding="utf-8")
  for name in names:
    assert f"]({name})" in text
  assert "--baseline=" in text and "--mode=report --workdir=" in text
  # The fields that differ, and no other.
  assert "| method.name | " in text and "evaluate.images |" not in text
  assert "| dataset.folder | DATA0 | DATA0 | DATA0 / DATA1 / DATA2 |" in text
  assert "[14 of 15]" in text and "| normalized mCE | 15 |" in text


class Reader(html.parser.HTMLParser):
  """Collects the elements of a page."""

  def __init__(self):
    super().__init__()
    self.tags, self.text, self.inside = [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    self.inside.append(tag)

  def handle_endtag(self, tag):
    while self.inside and self.inside.pop() != tag:
      pass

  def handle_data(self, data):
    if self.inside[-1:] != ["style"]:
      self.text.append(data)

  def all(self, tag):
    return [attrs for name, attrs in self.tags if name == tag]


def parsed(path):
  reader = Reader()
  reader.feed(path.read_text(encoding="utf-8"))
  return reader


@pytest.fixture(scope="module")
def read(report):
  return parsed(report["report.html"])


def test_page_is_self_contained(read, report):
  images = read.all("img")
  assert len(images) == len(FIGURES)
  assert all(x["src"].startswith("data:image/png;base64,") for x in images)
  assert not {key for _, attrs in read.tags for key in attrs} & {
    "href",
    "srcset",
  }
  assert read.all("link") == read.all("script") == []
  (policy,) = (x["content"] for x in read.all("meta") if "http-equiv" in x)
  assert policy.startswith("default-src 'none'; img-src data:")
  text = report["report.html"].read_text(encoding="utf-8")
  assert not re.search(r"(https?:)?//[a-z]", re.sub('base64,[^"]+', "", text))


def test_page_is_accessible(read):
  assert read.all("html")[0]["lang"] == "en"
  assert "width=device-width" in str(read.all("meta"))
  assert all(x["alt"] for x in read.all("img"))
  heads = read.all("th")
  assert all(x["scope"] in ("row", "col", "colgroup") for x in heads) and heads
  assert len(read.all("caption")) == len(read.all("table")) == 7
  regions = [x for x in read.all("div") if x.get("class") == "scroll"]
  assert all(x["tabindex"] == "0" and x["aria-label"] for x in regions)


def test_the_main_numbers_come_first(read):
  """Before notes, figures and everything that a reader opens."""
  names = [name for name, _ in read.tags]
  first = names.index("table")
  assert not {"details", "img"} & set(names[:first])
  assert first < names.index("details") < names.index("img")
  closed = [x for x in read.all("details") if "open" in x]
  assert len(read.all("details")) > 9 and closed == []
  for text in ("clean", "15 corruptions", "PGD-10 L2, ε ="):
    assert text in read.text
  assert len(read.all("strong")) > 20  # the best of columns


def test_warnings_are_above_the_fold(make_run, tmp_path):
  notes = [Note("dark images", "warning"), Note("13 operations")]
  paths = page.write_report([make_run("A", found=notes)], tmp_path / "out")
  read = parsed(paths[1])
  text = "".join(read.text)
  assert text.index("dark images") < text.index("Notes on these numbers")
  assert text.index("Notes on these numbers") < text.index("13 operations")
  assert "Warning:" in text and text.count("dark images") == 1
  assert "- warning: dark images" in paths[0].read_text()


def test_labels_are_escaped(read, report):
  label = '</title><script>document.body.remove()</script> | $x_ & "y"'
  assert label in "".join(read.text)
  for name in ("report.html", "summary.md"):
    text = report[name].read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<script>document", text), name
  (row,) = re.findall(r"^\| .*body.* \| \*?\*?9.*", text, re.MULTILINE)[:1]
  header = next(x for x in text.splitlines() if x.startswith("| method"))
  assert row.replace(r"\|", "").count("|") == header.count("|")


def test_configurations_are_in_the_page_completely(read):
  text = "".join(read.text)
  for name in ("config.method.name", "config.evaluate.images", "versions.jax"):
    assert name in text
  assert "sha256:abcdef0123456789" in text


def test_report_leaves_out_what_was_not_evaluated(make_run, tmp_path):
  shown = [make_run("12 (a)", rows=(), logs=0, device=None)]
  old = tmp_path / "deep" / "report" / "fourier.png"
  old.parent.mkdir(parents=True)
  old.write_bytes(b"of another report")
  paths = page.write_report(shown, tmp_path / "deep" / "report")
  assert not old.exists()
  assert [path.name for path in paths] == ["summary.md", "report.html"]
  assert '<th scope="row">12 (a)</th>' in paths[1].read_text()
  text = paths[0].read_text()
  assert ".png" not in text and tables.summary(shown).markdown() in text
  assert re.findall("^#+ (.*)", text, re.MULTILINE) == [
    "Robustness of wrn_10_1 on CIFAR-10"
  ]


def test_no_runs_or_a_baseline_that_is_not_a_run(make_run, tmp_path):
  with pytest.raises(ValueError, match="at least one run"):
    page.write_report([], tmp_path)
  run = make_run("A")
  other = dataclasses.replace(run, folder=tmp_path / "other")
  assert isinstance(other, runs.Run)
  with pytest.raises(
    ValueError, match="not one of the runs: give one of .*a-0"
  ):
    page.write_report([run], tmp_path, other.folder)


def test_figures_of_a_run_are_drawn_once(make_full_run, monkeypatch):
  folder = make_full_run("A").folder
  page.draw(folder)
  names = sorted(path.name for path in (folder / "figures").iterdir())
  assert names == ["adversarial_accuracy.png", "training_curves.png"]
  monkeypatch.setattr(plots, "draw_adversarial_accuracy", pytest.fail)
  page.draw(folder)
