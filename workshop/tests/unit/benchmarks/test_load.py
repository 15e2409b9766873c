"""A load generator measures answers, and refuses to measure errors."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.client import LoadError, ask_for, ask_once, percentile
from benchmarks.load import Load, PythonClient, Result, parse_wrk
from benchmarks.traffic import Request

WRK = """\
Running 2s test @ http://127.0.0.1:8000/countries?limit=20
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.39ms  210.00us   7.58ms   93.75%
    Req/Sec    23.02k   781.11    24.15k    75.00%
  Latency Distribution
     50%  807.00us
     75%    1.41ms
     90%    1.52ms
     99%    1.14s
  45879 requests in 2.00s, 172.81MB read
Requests/sec:  22922.11
Transfer/sec:     86.34MB
"""
FOUND = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


def test_what_wrk_prints_is_read_in_milliseconds() -> None:
    # It pads the units of one letter with a space.
    assert parse_wrk(WRK.replace("1.14s\n", "1.14s \n")) == Result(45879, 22922.11, 0.807, 1140)


@pytest.mark.parametrize(
    "line",
    [
        "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        "  Non-2xx or 3xx responses: 7\n",
    ],
)
def test_a_run_of_wrk_with_errors_is_no_result(line: str) -> None:
    with pytest.raises(LoadError, match=line.strip()):
        parse_wrk(WRK.replace("Requests/sec", f"{line}Requests/sec"))


def test_what_wrk_does_not_print_is_not_made_up() -> None:
    with pytest.raises(LoadError, match="not understood"):
        parse_wrk("unable to connect to 127.0.0.1:8000 Connection refused")


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0.1, 1)])
def test_a_percentile_is_one_of_the_values(percent: float, value: float) -> None:
    assert percentile(range(1, 101), percent) == value


async def test_each_request_is_sent_once() -> None:
    requests = [Request(f"/{number}").encode() for number in range(50)]
    async with server(lambda _: FOUND) as (port, seen):
        latencies = await ask_once(port, 8, requests)

    assert len(latencies.each_ms) == 50
    assert seen == Counter({f"/{number}": 1 for number in range(50)})


async def test_requests_go_round_until_the_time_is_over() -> None:
    async with server(lambda _: FOUND) as (port, seen):
        latencies = await ask_for(0.1, port, 4, [Request("/a").encode(), Request("/b").encode()])

    assert len(latencies.each_ms) == seen.total() > 2
    assert abs(seen["/a"] - seen["/b"]) <= 1
    assert sorted(latencies.each_ms) == list(latencies.each_ms)


async def test_the_stand_in_for_wrk_runs_in_a_process_of_its_own() -> None:
    async with server(lambda _: FOUND) as (port, seen):
        load = Load(port, [Request("/a"), Request("/b")], connections=4, seconds=1)
        result = await asyncio.to_thread(PythonClient().run, load)

    assert result.completed == seen.total() > 2
    assert 0 < result.p50_ms <= result.p99_ms


async def test_the_stand_in_for_wrk_refuses_errors() -> None:
    async with server(lambda _: b"HTTP/1.1 500 Error\r\ncontent-length: 0\r\n\r\n") as (port, _):
        load = Load(port, [Request("/")], connections=1, seconds=1)
        with pytest.raises(LoadError, match="status 500"):
            await asyncio.to_thread(PythonClient().run, load)


async def test_an_answer_in_pieces_is_one_answer() -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    async with server(lambda _: large) as (port, seen):
        latencies = await ask_once(port, 2, [Request("/").encode()] * 6)

    assert len(latencies.each_ms) == seen.total() == 6


async def test_not_modified_has_no_body_to_wait_for() -> None:
    async with server(lambda _: b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n") as (port, _):
        latencies = await ask_once(port, 1, [Request("/").encode()] * 3)

    assert len(latencies.each_ms) == 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "status 503"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "Content-Length"),
        (b"", "closed before its answer"),
    ],
)
async def test_one_error_among_many_answers_is_no_result(answer: bytes, why: str) -> None:
    def answers(path: str) -> bytes:
        return answer if path == "/7" else FOUND

    async with server(answers) as (port, _):
        with pytest.raises(LoadError, match=why):
            await ask_once(port, 4, [Request(f"/{number}").encode() for number in range(20)])


async def test_nobody_there_is_no_result() -> None:
    async with server(lambda _: FOUND) as (port, _):
        pass
    with pytest.raises(LoadError, match="does not answer"):
        await ask_once(port, 1, [Request("/").encode()])


@asynccontextmanager
async def server(answers: Callable[[str], bytes]) -> AsyncIterator[tuple[int, Counter[str]]]:
    """Answers as told by path, and hangs up on an empty answer; counts what was asked for."""
    seen: Counter[str] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                seen[path] += 1
                if not (answer := answers(path)):
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):  # the client has gone
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], seen
