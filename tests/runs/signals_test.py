"""Signals: the first requests a stop, the second has its default effect."""

import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time

import pytest

from ram_jax.runs import signals as stopping


@pytest.fixture(autouse=True)
def heard():
  """Restores Ctrl-C, which a shell's background jobs ignore."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def test_first_signal_requests_a_stop_and_second_has_its_default_effect():
  before = [signal.getsignal(number) for number in stopping.WORDS]
  with pytest.raises(KeyboardInterrupt), stopping.listen() as stop:
    assert not stop.requested()
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested() and stop.number == signal.SIGINT
    os.kill(os.getpid(), signal.SIGINT)
    pytest.fail("the second was ignored")
  assert [signal.getsignal(number) for number in stopping.WORDS] == before


def test_sigterm_at_once():
  with pytest.raises(stopping.Stopped) as caught, stopping.listen() as stop:
    stop.boundary()
    stop.at_once("all is kept")
    os.kill(os.getpid(), signal.SIGTERM)
    pytest.fail("it was ignored")
  assert caught.value.code == 143
  assert str(caught.value) == (
    "stopped by SIGTERM: all is kept; the same command resumes from there"
  )


def test_signal_before_at_once_is_not_forgotten():
  with stopping.listen() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(stopping.Stopped, match="all is kept"):
      stop.at_once("all is kept")


def test_ignored_signal_stays_ignored():
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with stopping.listen() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    assert not stop.requested()


def test_other_threads_ignore_signals():
  heard = []

  def listen():
    with stopping.listen() as stop:
      heard.append(stop.requested())

  thread = threading.Thread(target=listen)
  thread.start()
  thread.join()
  assert heard == [False]


def test_unhandled_signal_ends_the_process(monkeypatch, capfd):
  ended = queue.Queue()
  monkeypatch.setattr(stopping, "PATIENCE", (None, 0.05, 300))
  monkeypatch.setattr(os, "_exit", ended.put)
  with stopping.listen():
    os.kill(os.getpid(), signal.SIGTERM)
    assert ended.get(timeout=60) == 143
  assert capfd.readouterr().err == (
    "stopped by SIGTERM: no step ended within 0.05 s; the last saved state is "
    "kept, and the same command resumes from there\n"
  )


def test_handled_signal_does_not_end_the_process(monkeypatch):
  monkeypatch.setattr(stopping, "PATIENCE", (None, 0.05, 0.05))
  monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(str(code)))
  with pytest.raises(stopping.Stopped), stopping.listen() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    stop.at_once("all is kept")
  time.sleep(0.1)
  assert signal.set_wakeup_fd(-1) == -1


# The mutex is taken twice: pthread_mutex_lock never returns, as a read of an
# array that will not come.
STUCK = """
import ctypes
from ram_jax.runs import signals as stopping
stopping.PATIENCE = (None, 300, 0.1)
lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with stopping.listen():
  libc.pthread_mutex_lock(lock)
  print("stuck", flush=True)
  libc.pthread_mutex_lock(lock)
"""


def test_second_signal_ends_a_process_that_waits_in_c():
  process = subprocess.Popen(
    [sys.executable, "-c", STUCK],
    cwd=pathlib.Path(__file__).resolve().parents[2],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout.readline() == "stuck\n"
    for _ in range(2):
      time.sleep(0.5)  # it is in C then, and has taken the first
      process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
  finally:
    process.kill()
  assert process.returncode == 143
  assert err.startswith("stopped by SIGTERM: no step ended within 0.1 s")
