"""Work that takes long, done where no signal interrupts it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def aside(work: Callable[[], Result]) -> Result:
    """What `work` gives, done in a thread of its own while this one waits.

    A signal's handler runs in the main thread. If it raises KeyboardInterrupt there, that ends the
    wait, at once and in order. Raised in the middle of Numba's or JAX's compilers it would come out
    as another error, or be dropped in one of their callbacks, and the signal with it. Work that
    nobody waits for any more goes on until the process ends.

    Raises:
        BaseException: what `work` raised.
    """
    done: Future[Result] = Future()

    def do() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised again by who waits)
            done.set_exception(error)

    threading.Thread(target=do, name="aside", daemon=True).start()
    return done.result()
