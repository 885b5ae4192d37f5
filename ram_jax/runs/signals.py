"""SIGTERM and Ctrl-C: the program saves, says how to resume, and exits.

A time limit (`alarm`) is a third signal.
"""

import contextlib
import math
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax

from ram_jax import parallel

WORDS = {
  signal.SIGTERM: "stopped by SIGTERM",
  signal.SIGINT: "interrupted",
  signal.SIGALRM: "out of time",
}
RESUMES = "the same command resumes from there"
# Seconds after zero, one and two signals until the process ends even if it has
# not saved.
PATIENCE = (None, 300, 5)


class Stopped(BaseException):
  """The program exits because of a signal; its work is saved.

  Like KeyboardInterrupt, it is not an Exception, so that no other code handles
  it as an error.

  Attributes:
    code: the exit code, 128 plus the number of the signal, as in shells.
  """

  def __init__(self, number: int, what: str) -> None:
    """Creates the message.

    Args:
      number: number of the signal.
      what: description of what is saved.
    """
    words = WORDS[signal.Signals(number)]
    super().__init__(f"{words}: {what}; {RESUMES}")
    self.code = 128 + number


class Stop:
  """Whether a signal requested a stop; all processes agree on the answer."""

  def __init__(self) -> None:
    """Starts without a request."""
    self.number = 0  # number of the signal
    self._answer = 0  # maximum over processes, at the previous boundary
    self._at_once = ""

  def requested(self) -> bool:
    """Whether to stop at this boundary, which all processes have reached.

    A process that received a signal notifies the others through the devices.
    They read the result at the next boundary, so that nothing waits for it.
    """
    if jax.process_count() > 1:
      before, self._answer = self._answer, parallel.largest(self.number)
      self.number = max(self.number, int(before))
      return int(before) > 0
    return self.number > 0

  def at_once(self, what: str) -> None:
    """Allows the program to stop at any moment from now on.

    If there are several processes, they only stop at boundaries; otherwise,
    some would wait forever.

    Args:
      what: description of what is saved.

    Raises:
      Stopped: if a stop was already requested.
    """
    self._at_once = what
    self.boundary()

  def boundary(self) -> None:
    """Stops between parts of the evaluation, if requested.

    Raises:
      Stopped: if a stop was requested.
    """
    if self._at_once and self.requested():
      raise Stopped(self.number, self._at_once)

  def signaled(self, number: int) -> None:
    """Handles a signal.

    Args:
      number: number of the signal.

    Raises:
      Stopped: if the program may stop at any moment.
    """
    self.number = number
    if self._at_once and jax.process_count() == 1:
      raise Stopped(number, self._at_once)


@contextlib.contextmanager
def listen() -> Iterator[Stop]:
  """Handles SIGTERM and Ctrl-C; a repeated signal has its default effect.

  Ignored signals, such as Ctrl-C in a shell's background jobs, stay ignored. A
  program that does not exit by itself is ended after `PATIENCE`.

  Yields:
    The object that knows whether a signal was received. Outside the main
    thread, signals are not handled.
  """
  stop, before = Stop(), {}

  def handle(number: int, _: FrameType | None) -> None:
    signal.signal(number, before[number])
    stop.signaled(number)

  with contextlib.ExitStack() as stack:
    if threading.current_thread() is threading.main_thread():
      stack.enter_context(_watchdog())
      for number in WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:
          before[number] = signal.signal(number, handle)
          stack.callback(signal.signal, number, before[number])
    yield stop


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
  """After some time, sends a signal that `listen` handles like SIGTERM.

  While nothing listens, such as between two runs, it is repeated.

  Args:
    seconds: time until the signal; infinite for none.
  """
  if seconds == math.inf:
    yield
    return

  def again(*_: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.5)

  before = signal.signal(signal.SIGALRM, again)
  # macOS has no timer of more than three years.
  signal.setitimer(signal.ITIMER_REAL, min(max(seconds, 0.01), 1e8))
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _watchdog() -> Iterator[None]:
  """Ends the process if its main thread does not respond to a signal.

  Python calls handlers between two bytecodes of the main thread, and therefore
  never while it waits in C++, for example for an array. But whenever a signal
  arrives, its number is immediately written to the wakeup file descriptor,
  which another thread reads.
  """
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  thread = threading.Thread(target=_watch, args=(reader,), daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(before)
    os.close(writer)  # the thread reads EOF and returns
    thread.join()
    os.close(reader)


def _watch(reader: int) -> None:
  received = []
  while select.select([reader], [], [], PATIENCE[len(received)])[0]:
    if not (number := os.read(reader, 1)):
      return
    if number[0] in WORDS:
      received = [*received, number[0]][:2]
  line = (
    f"{WORDS[signal.Signals(received[0])]}: no step ended within "
    f"{PATIENCE[len(received)]} s; the last saved state is kept, "
    f"and {RESUMES}\n"
  )
  os.write(2, line.encode())  # works even if the main thread holds a lock
  os._exit(128 + received[0])
