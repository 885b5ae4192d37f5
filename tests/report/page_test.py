"""The report's files."""

import dataclasses
import html.parser
import json
import re

import pytest

from ram_jax.report import page, tables
from ram_jax.runs import results as runs

# In the order of the page; the sheet is copied from a run.
FIGURES = (
  "adversarial_accuracy",
  "corruption_examples",
  "corruption_heat_map",
  "corruption_noise",
  "corruption_blur",
  "corruption_weather",
  "corruption_digital",
  "corruptions",
  "fourier",
  "training_curves",
)


def test_report_has_both_pages_and_every_figure(report):
  names = [f"{name}.png" for name in FIGURES]
  assert list(report) == ["summary.md", "report.html", *names]
  assert all(path.stat().st_size > 0 for path in report.values())
  text = report["summary.md"].read_text(encoding="utf-8")
  for name in names:
    assert f"]({name})" in text
  row = "| AugMix (seed 1) | augmix-1 | 1 | 4 | 12 | 1.5 | 1 x cpu | - |"
  assert f"{row} 1000: abcdef012345 |" in text
  assert "python 3.11, jax 0.10.2" in text
  assert "--baseline=" in text and "--mode=report --runs=" in text
  # The fields that differ, and no other.
  assert "| method.name | " in text and "evaluate.images |" not in text
  assert "| dataset.folder | DATA0 | DATA0 | DATA0 / DATA1 / DATA2 |" in text


class Reader(html.parser.HTMLParser):
  """Collects what a page is made of."""

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
    if self.inside[-1:] not in (["script"], ["style"]):
      self.text.append(data)

  def all(self, tag):
    return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def read(report):
  reader = Reader()
  reader.feed(report["report.html"].read_text(encoding="utf-8"))
  return reader


def test_page_holds_all_it_needs(read, report):
  images = read.all("img")
  assert len(images) == len(FIGURES)
  assert all(x["src"].startswith("data:image/png;base64,") for x in images)
  places = {key for _, attrs in read.tags for key in attrs}
  assert not places & {"href", "srcset"} - {"href"}
  assert all(x["href"].startswith("#s") for x in read.all("a"))
  assert read.all("link") == [] and len(read.all("script")) == 1
  assert "src" not in read.all("script")[0]
  text = report["report.html"].read_text(encoding="utf-8")
  assert not re.search(r"(https?:)?//[a-z]", re.sub('base64,[^"]+', "", text))


def test_page_is_accessible(read):
  assert read.all("html")[0]["lang"] == "en"
  assert "width=device-width" in str(read.all("meta"))
  assert all(x["alt"] and x["width"] and x["height"] for x in read.all("img"))
  heads = read.all("th")
  assert heads and all(x["scope"] in ("row", "col") for x in heads)
  assert len(read.all("caption")) == len(read.all("table")) == 7
  regions = [x for x in read.all("div") if x.get("class") == "scroll"]
  assert all(x["tabindex"] == "0" and x["aria-label"] for x in regions)


def test_labels_of_users_are_text(read, report):
  label = '</title><script>document.body.remove()</script> | $x_ & "y"'
  assert label in "".join(read.text)
  for name in ("report.html", "summary.md"):
    text = report[name].read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<script>document", text), name
  (row,) = re.findall(r"^\| .*body.* \| wrn.*", text, re.MULTILINE)
  header = next(x for x in text.splitlines() if x.startswith("| run"))
  assert row.replace(r"\|", "").count("|") == header.count("|")


def test_configurations_stand_in_the_page_whole(read):
  found = json.loads(next(x for x in read.text if '"AugMix"' in x))
  assert found["config"]["method"] == {"name": "AugMix"}


def test_report_leaves_out_what_was_not_measured(make_run, tmp_path):
  shown = [make_run("A", adversarial=None, logs=0, device=None)]
  paths = page.write_report(shown, tmp_path / "deep" / "report")
  assert [path.name for path in paths] == ["summary.md", "report.html"]
  text = paths[0].read_text()
  assert ".png" not in text and tables.summary(shown).markdown() in text
  titles = re.findall("^## (.*)", text, re.MULTILINE)
  assert titles == ["Summary", "Runs"]


def test_report_of_nothing_or_with_a_strange_baseline(make_run, tmp_path):
  with pytest.raises(ValueError, match="at least one run"):
    page.write_report([], tmp_path)
  run = make_run("A")
  other = dataclasses.replace(run, folder=tmp_path / "other")
  assert isinstance(other, runs.Run)
  with pytest.raises(ValueError, match="none of the runs: give one of .*a-0"):
    page.write_report([run], tmp_path, other.folder)
