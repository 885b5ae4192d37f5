"""The page in a browser: no error, no request, a phone's width.

The page is shown unchanged, with its policy, in frames of another page, which
measures it; the browser then prints that page's text.
"""

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = (390, 800, 1280)
HARNESS = """<!doctype html><pre id="found"></pre>
{frames}
<script>
const found = {{}};
window.onload = () => {{
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument;
    const root = page.documentElement;
    const main = page.querySelector("div.scroll");
    page.querySelectorAll("details").forEach((x) => x.open = true);
    found[frame.width] = {{
      needed: root.scrollWidth, given: root.clientWidth,
      table: main.scrollWidth - main.clientWidth,
      letters: page.body.textContent.length,
    }};
  }}
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>"""


@pytest.fixture(scope="module")
def browsed(report, tmp_path_factory):
  """The harness's findings, and the browser's console messages."""
  browser = next(filter(None, map(shutil.which, BROWSERS)), None)
  if browser is None:
    pytest.skip(f"none of the browsers {', '.join(BROWSERS)} is installed")
  folder = tmp_path_factory.mktemp("browser")
  page = html.escape(report["report.html"].read_text(encoding="utf-8"))
  frames = "".join(
    f'<iframe width="{width}" height="900" srcdoc="{page}"></iframe>'
    for width in WIDTHS
  )
  path = folder / "harness.html"
  path.write_text(HARNESS.format(frames=frames), encoding="utf-8")
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
  # Violations of the policy, which forbids every request, are console lines.
  assert "CONSOLE" not in log, log
  # The hostile label has removed nothing.
  assert all(frame["letters"] > 5000 for frame in found.values())


@pytest.mark.parametrize("width", WIDTHS)
def test_no_element_is_wider_than_the_screen(browsed, width):
  frame = browsed[0][str(width)]
  assert width - 20 <= frame["given"] <= width
  assert frame["needed"] <= frame["given"]
  assert frame["table"] <= 0  # the main table does not scroll sideways
