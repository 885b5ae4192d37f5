"""The page in a browser: no error, no request, sorting, a phone's width.

The page is shown unchanged, with its policy, in frames of another page, which
clicks and measures; the browser then prints that page's text.
"""

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
HARNESS = """<!doctype html><pre id="found"></pre>
<iframe id="phone" width="390" height="844" srcdoc="{page}"></iframe>
<iframe id="desk" width="1280" height="900" srcdoc="{page}"></iframe>
<script>
const found = {{}};
window.onload = () => {{
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument;
    const root = page.documentElement;
    found[frame.id] = [root.scrollWidth, root.clientWidth,
                       page.querySelectorAll("th button").length];
  }}
  const page = document.getElementById("desk").contentDocument;
  const table = Array.from(page.querySelectorAll("table")).find(
      (x) => x.caption.textContent.startsWith("Each corruption: "));
  const heads = table.tHead.rows[0].cells;
  const state = () => [
    Array.from(table.tBodies[0].rows, (x) => x.cells[0].textContent),
    Array.from(heads, (x) => x.getAttribute("aria-sort"))];
  found.sorted = [state()];
  for (const column of [5, 5, 0]) {{
    heads[column].querySelector("button").click();
    found.sorted.push(state());
  }}
  found.body = page.body.textContent.length;
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>"""


@pytest.fixture(scope="module")
def browsed(report, tmp_path_factory):
  """What the harness found, and what the browser complained about."""
  browser = next(filter(None, map(shutil.which, BROWSERS)), None)
  if browser is None:
    pytest.skip(f"none of the browsers {', '.join(BROWSERS)} is installed")
  folder = tmp_path_factory.mktemp("browser")
  text = report["report.html"].read_text(encoding="utf-8")
  path = folder / "harness.html"
  path.write_text(HARNESS.format(page=html.escape(text)), encoding="utf-8")
  command = [browser, "--headless", "--no-sandbox", "--disable-gpu"]
  command += ["--enable-logging=stderr", "--log-level=0", "--dump-dom"]
  command += [f"--user-data-dir={folder / 'profile'}"]
  done = subprocess.run(
    [*command, "--virtual-time-budget=20000", path.as_uri()],
    capture_output=True,
    text=True,
    timeout=120,
  )
  found = re.search('<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
  assert found, done.stderr[-2000:]
  return json.loads(html.unescape(found[1])), done.stderr


def test_no_error_and_no_request(browsed):
  found, log = browsed
  # Refusals of the policy, which forbids every request, are console lines too.
  assert "CONSOLE" not in log, log
  assert found["body"] > 5000  # the hostile label has removed nothing


def test_no_part_is_wider_than_its_screen(browsed):
  found, _ = browsed
  for name, width in (("phone", 390), ("desk", 1280)):
    needed, given, buttons = found[name]
    assert width - 20 <= given <= width and needed <= given
    assert buttons > 30


def test_a_click_sorts_and_says_so(browsed):
  first, down, up, names = browsed[0]["sorted"]
  assert first[0][0] == "gaussian noise" and set(first[1]) == {None}
  # Accuracies fall along the benchmark's order; frost, of which this run has
  # no number, is last either way.
  assert down[0][:2] == ["gaussian noise", "shot noise"]
  assert up[0][:2] == ["saturate", "spatter"]
  assert down[0][-1] == up[0][-1] == "frost"
  assert down[1] == [None] * 5 + ["descending"]
  assert up[1] == [None] * 5 + ["ascending"]
  assert names[0] == sorted(first[0])
  assert names[1] == ["ascending"] + [None] * 5
