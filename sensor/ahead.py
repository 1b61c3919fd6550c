"""An iterator that works ahead in a thread of its own, so that several processors are used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_END = object()
_RETRY_S = 0.05


class Ahead(Generic[T]):
    """The same items in the same order, made before they are wanted; the thread begins at once.

    What the iterator raises is raised here, after the items before it.
    """

    def __init__(self, items: Iterator[T], most: int) -> None:
        """Work through `items`, up to `most` of them ahead."""
        self._ready: queue.Queue[object] = queue.Queue(most)
        self._stop = threading.Event()
        self._worker = threading.Thread(target=self._work, args=(items,), daemon=True)
        self._worker.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        item = self._ready.get()
        if item is _END:
            self._put(_END)  # for whoever asks again
            raise StopIteration
        if isinstance(item, BaseException):
            raise item
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """End the iterator at its next item, and wait for that."""
        self._stop.set()
        self._worker.join()

    def _work(self, items: Iterator[T]) -> None:
        try:
            for item in items:
                self._put(item)
                if self._stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 (raised again where it is wanted)
            self._put(error)
        finally:
            if isinstance(items, Generator):
                items.close()
            self._put(_END)

    def _put(self, item: object) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=_RETRY_S)
                return
            except queue.Full:
                # The stop may have come meanwhile.
                continue
