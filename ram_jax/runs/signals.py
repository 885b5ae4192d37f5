"""SIGTERM and Ctrl-C: the program saves, says how to resume, and leaves."""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax

from ram_jax import parallel

WORDS = {signal.SIGTERM: "stopped by SIGTERM", signal.SIGINT: "interrupted"}
RESUMES = "the same command resumes from there"
# Seconds after no, one and two signals at which the process ends even if it has
# not saved.
PATIENCE = (None, 300, 5)


class Stopped(BaseException):
  """The program leaves because a signal asked it to; what it made is kept.

  No Exception, like KeyboardInterrupt: nothing on the way may take it for a
  fault of what it was doing.

  Attributes:
    code: the exit code, 128 and the signal's number, as shells have it.
  """

  def __init__(self, number: int, what: str) -> None:
    """Says so in one line.

    Args:
      number: of the signal.
      what: is kept.
    """
    words = WORDS[signal.Signals(number)]
    super().__init__(f"{words}: {what}, {RESUMES}")
    self.code = 128 + number


class Stop:
  """Whether to leave: asked by a signal, answered alike in all processes."""

  def __init__(self) -> None:
    """Nothing was asked yet."""
    self.number = 0  # of the signal
    self._answer = 0  # of all processes, at the boundary before
    self._at_once = ""

  def requested(self) -> bool:
    """Whether to leave at this boundary, which all processes have reached.

    Of several processes, one that got a signal tells the others on the devices.
    They read the answer at the next boundary, so that nothing waits for it.
    """
    if jax.process_count() > 1:
      before, self._answer = self._answer, parallel.largest(self.number)
      self.number = max(self.number, int(before))
      return int(before) > 0
    return self.number > 0

  def at_once(self, what: str) -> None:
    """From now on the program may leave at any moment.

    Of several processes only at boundaries, or others would wait for ever.

    Args:
      what: is kept then.

    Raises:
      Stopped: if that was asked already.
    """
    self._at_once = what
    self.boundary()

  def boundary(self) -> None:
    """Leaves a part of the evaluation, if that is asked.

    Raises:
      Stopped: if it is.
    """
    if self._at_once and self.requested():
      raise Stopped(self.number, self._at_once)

  def signalled(self, number: int) -> None:
    """Takes a signal.

    Args:
      number: of the signal.

    Raises:
      Stopped: where it is obeyed at once.
    """
    self.number = number
    if self._at_once and jax.process_count() == 1:
      raise Stopped(number, self._at_once)


@contextlib.contextmanager
def listen() -> Iterator[Stop]:
  """Takes SIGTERM and Ctrl-C; of each, a second one has its usual effect.

  What is ignored, as Ctrl-C in a shell's background jobs, stays ignored. A
  program that does not leave by itself is ended after `PATIENCE`.

  Yields:
    What knows whether one has come. Outside the main thread none ever does.
  """
  stop, before = Stop(), {}

  def handle(number: int, frame: FrameType | None) -> None:
    del frame
    signal.signal(number, before[number])
    stop.signalled(number)

  with contextlib.ExitStack() as stack:
    if threading.current_thread() is threading.main_thread():
      stack.enter_context(_watchdog())
      for number in WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:
          before[number] = signal.signal(number, handle)
          stack.callback(signal.signal, number, before[number])
    yield stop


@contextlib.contextmanager
def _watchdog() -> Iterator[None]:
  """Ends the process where its main thread does not answer a signal.

  Python calls handlers between two instructions of the main thread, so never
  while that waits in C++, as for an array that will not come. But whenever a
  signal arrives, its number is written to the wakeup file at once, and another
  thread reads it there.
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
    os.close(writer)  # the thread reads the end of the file, and returns
    thread.join()
    os.close(reader)


def _watch(reader: int) -> None:
  came = []
  while select.select([reader], [], [], PATIENCE[len(came)])[0]:
    if not (number := os.read(reader, 1)):
      return
    if number[0] in WORDS:
      came = [*came, number[0]][:2]
  line = (
    f"{WORDS[signal.Signals(came[0])]}: no step ended within "
    f"{PATIENCE[len(came)]} s, what was saved last is kept, {RESUMES}\n"
  )
  os.write(2, line.encode())  # whatever lock the main thread holds
  os._exit(128 + came[0])
