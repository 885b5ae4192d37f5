"""Run folders made up for tests, as those of the report."""

from tests.report.conftest import make_full_run, make_run  # noqa: F401
