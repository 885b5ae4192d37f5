"""Signals: the first asks, the second obeys nobody; handlers come back."""

import os
import signal
import threading

import pytest

from ram_jax import stopping


@pytest.fixture(autouse=True)
def heard():
  """A shell's background jobs, and what they start, ignore Ctrl-C."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def test_first_signal_asks_and_second_has_its_usual_effect():
  before = [signal.getsignal(number) for number in stopping.WORDS]
  with pytest.raises(KeyboardInterrupt), stopping.listen() as stop:
    assert not stop.asked()
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.asked() and stop.number == signal.SIGINT
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
    "stopped by SIGTERM: all is kept, the same command goes on from there"
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
    assert not stop.asked()


def test_other_threads_hear_nothing():
  heard = []

  def listen():
    with stopping.listen() as stop:
      heard.append(stop.asked())

  thread = threading.Thread(target=listen)
  thread.start()
  thread.join()
  assert heard == [False]
