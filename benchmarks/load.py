"""The load: as much as can be served (``wrk``, or :func:`full_speed`), or so much a second.

:func:`full_speed` and :func:`at_rate` keep workers busy. A worker does one job at a time and tells
when it is done; a job is a request, or all the requests of a page (``frontend.py``).
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

Done = Callable[[bool], None]  # called with whether the answers were as they should be

LONGEST = 600.0  # seconds that a number of jobs may take
DRAIN = 60.0  # seconds that a side may take to answer what was asked before the end


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it.

    Attributes:
        done: Jobs that were answered.
        seconds: How long that took.
        p50: Milliseconds, at the median.
        p99: Milliseconds, at the 99th percentile.
        failed: Jobs with a wrong status, or without an answer.
        unseen: Jobs that the side had to do as well, before and after those.
    """

    done: int
    seconds: float
    p50: float
    p99: float
    failed: int
    unseen: int = 0

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.done / self.seconds


class Worker(Protocol):
    """Does one job at a time."""

    def begin(self, number: int, done: Done) -> None:
        """Begin job ``number``; ``done`` is called at its end."""


def wrk(
    base_url: str, path: str, tokens: Path, *, first: int, connections: int, seconds: float
) -> Load:
    """Ask for one path as often as it is answered.

    Args:
        base_url: Of the side, without a path.
        path: With the query.
        tokens: A file with a user's token a line; every request takes the next.
        first: Which token to begin with.
        connections: How many are open; each has one request under way.
        seconds: How long.
    """
    script = Path(__file__).with_name("requests.lua")
    # Fractions of a second are unknown to wrk.
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
    command += ["-s", str(script), base_url, "--", path, str(tokens), str(first)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(answer.stderr.strip().splitlines()[-1])
    return Load(
        done=said["requests"],
        seconds=said["seconds"],
        p50=said["p50"],
        p99=said["p99"],
        failed=said["refused"] + said["lost"],
        unseen=connections,
    )


def full_speed(
    workers: Sequence[Worker], *, first: int, seconds: float = float("inf"), jobs: int | None = None
) -> Load:
    """Let every worker begin its next job as soon as the last one is done.

    Args:
        workers: Each does one job at a time.
        first: Number of the first job.
        seconds: After which no job is begun; those under way are waited for.
        jobs: How many jobs there are, in case that comes first.
    """
    numbers = itertools.count(first) if jobs is None else iter(range(first, first + jobs))
    return asyncio.run(_full_speed(workers, numbers, seconds))


def at_rate(workers: Sequence[Worker], rate: float, *, first: int, seconds: float) -> Load:
    """Begin jobs at fixed times, whether or not earlier ones are done.

    A job that finds no worker free waits for one, and its time counts from when it was due: a
    side that falls behind is not spared the requests it kept from being sent. Before, each worker
    does one job that is not measured.

    Args:
        workers: Each does one job at a time.
        rate: Jobs a second.
        first: Number of the first job.
        seconds: After which no job is begun.
    """
    return asyncio.run(_at_rate(workers, rate, first, seconds))


async def _full_speed(workers: Sequence[Worker], numbers: Iterator[int], seconds: float) -> Load:
    finished = asyncio.get_running_loop().create_future()
    took: list[float] = []
    failed = under_way = 0

    def begin(worker: Worker, number: int) -> None:
        nonlocal under_way
        under_way += 1
        begun = time.perf_counter()

        def done(good: bool) -> None:
            nonlocal failed, under_way
            now = time.perf_counter()
            took.append(now - begun)
            failed += not good
            under_way -= 1
            next_ = next(numbers, None) if now < end else None
            if next_ is not None:
                begin(worker, next_)
            elif not under_way:
                finished.set_result(None)

        worker.begin(number, done)

    with _undisturbed():
        start = time.perf_counter()
        end = start + seconds
        for worker, number in zip(workers, numbers, strict=False):
            begin(worker, number)
        await asyncio.wait_for(finished, min(seconds, LONGEST) + DRAIN)
        # What was under way at the end is counted, and so is its time: pages may take seconds.
        lasted = time.perf_counter() - start
    return _load(took, lasted, failed)


async def _at_rate(workers: Sequence[Worker], rate: float, first: int, seconds: float) -> Load:
    finished = asyncio.get_running_loop().create_future()
    free = deque(workers)
    waiting: deque[tuple[int, float]] = deque()
    took: list[float] = []
    count = max(1, round(rate * seconds))
    failed = 0

    def begin(number: int, since: float) -> None:
        worker = free.popleft()

        def done(good: bool) -> None:
            nonlocal failed
            took.append(time.perf_counter() - since)
            failed += not good
            free.append(worker)
            if waiting:
                begin(*waiting.popleft())
            elif len(took) == count:
                finished.set_result(None)

        worker.begin(number, done)

    with _undisturbed():
        await _each_once(workers, first)
        start = time.perf_counter()
        for number in range(count):
            due = start + number / rate
            while (now := time.perf_counter()) < due:
                await asyncio.sleep(due - now)
            job = first + len(workers) + number
            if free:
                # Not since it was due: that we woke up late is not the side's fault.
                begin(job, time.perf_counter())
            else:
                waiting.append((job, due))
        await asyncio.wait_for(finished, DRAIN)
        lasted = time.perf_counter() - start
    return _load(took, lasted, failed, unseen=len(workers))


async def _each_once(workers: Sequence[Worker], first: int) -> None:
    """Let each worker do a job that is not measured, so that its connections are open."""
    loop = asyncio.get_running_loop()
    jobs = [loop.create_future() for _ in workers]
    for number, (worker, job) in enumerate(zip(workers, jobs, strict=True), first):
        worker.begin(number, job.set_result)
    await asyncio.wait_for(asyncio.gather(*jobs), DRAIN)


def _load(took: list[float], seconds: float, failed: int, unseen: int = 0) -> Load:
    took.sort()

    def percentile(share: float) -> float:
        return took[min(int(len(took) * share), len(took) - 1)] * 1000

    return Load(len(took), seconds, percentile(0.5), percentile(0.99), failed, unseen)


@contextmanager
def _undisturbed() -> Iterator[None]:
    # A collection in between would be taken for a slow answer.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Requests:
    """A worker with one connection; a job is one ``GET``.

    Args:
        connection: Its own.
        path: What is asked for, with the query.
        tokens: Whose turn it is; job ``n`` takes the n-th, beginning again after the last.
    """

    def __init__(self, connection: Connection, path: str, tokens: Sequence[str]) -> None:
        self._connection = connection
        self._path = path
        self._tokens = tokens

    def begin(self, number: int, done: Done) -> None:
        """Send the request of job ``number``."""
        token = self._tokens[number % len(self._tokens)]
        self._connection.get(self._path, token, lambda status: done(status == 200))


class Connection:
    """A connection that is kept alive, and opened again when the other side has closed it.

    Args:
        base_url: ``http://HOST:PORT``.
    """

    def __init__(self, base_url: str) -> None:
        address = urlsplit(base_url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._exchange: _Exchange | None = None
        self._opening: asyncio.Future[None] | None = None  # held, or it would be collected

    def get(self, path: str, token: str, answered: Callable[[int], None]) -> None:
        """Send a ``GET``; ``answered`` is called with the status, 0 where there was no answer."""
        head = f"GET {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAccept: */*\r\n"
        request = f"{head}Authorization: Bearer {token}\r\n\r\n".encode()
        if self._exchange is not None and self._exchange.usable:
            self._exchange.send(request, lambda status: self._heard(status, request, answered))
        else:
            self._opening = asyncio.ensure_future(self._open_and_send(request, answered))

    def _heard(self, status: int, request: bytes, answered: Callable[[int], None]) -> None:
        if status:
            answered(status)
        else:
            # The other side closed an idle connection just when it was to be used.
            self._opening = asyncio.ensure_future(self._open_and_send(request, answered))

    async def _open_and_send(self, request: bytes, answered: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, self._exchange = await loop.create_connection(_Exchange, self._host, self._port)
        except OSError:
            answered(0)
        else:
            self._exchange.send(request, answered)


class _Exchange(asyncio.Protocol):
    """One TCP connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: Callable[[int], None] | None = None
        self._head = b""
        self._status = 0
        self._missing = 0  # bytes of the body; -1 where it comes in chunks
        self._last = False  # whether the other side is about to close the connection

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._last

    def send(self, request: bytes, answered: Callable[[int], None]) -> None:
        """Send a request; ``answered`` is called with the status, 0 for none."""
        assert self._transport is not None
        self._answered = answered
        self._transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        self._end(0)

    def data_received(self, data: bytes) -> None:
        if not self._status:
            data = self._read_head(self._head + data)
            if not self._status:
                return
        if self._missing < 0:
            # Only empty bodies come in chunks here; their end looks like no other text.
            if data.endswith(b"0\r\n\r\n"):
                self._end(self._status)
            return
        self._missing -= len(data)
        if not self._missing:
            self._end(self._status)

    def _read_head(self, data: bytes) -> bytes:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._head = data
            return b""
        head = data[:end].lower()
        self._head = b""
        self._status = int(head[9:12])
        _, found, rest = head.partition(b"\r\ncontent-length:")
        self._missing = int(rest.partition(b"\r\n")[0]) if found else -1
        self._last = b"\r\nconnection: close" in head
        return data[end + 4 :]

    def _end(self, status: int) -> None:
        answered, self._answered = self._answered, None
        self._status = 0
        if answered is not None:
            answered(status)
