"""An iterator that works ahead in a thread of its own, so that two processors are used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

_END = object()


def ahead(items: Iterator[T], most: int) -> Generator[T, None, None]:
    """The same items in the same order, up to `most` of them made before they are wanted.

    What `items` raises is raised here, after the items before it. Closing this generator ends
    `items` at its next item, and waits for that.
    """
    ready: queue.Queue[object] = queue.Queue(most)
    stop = threading.Event()

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 (raised again where it is wanted)
            put(error)
        finally:
            if isinstance(items, Generator):
                items.close()
            put(_END)

    worker = threading.Thread(target=work, name="meter", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        worker.join()
