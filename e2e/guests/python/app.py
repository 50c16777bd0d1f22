"""Serves HTTP over `wasi:http`, with the bindings and the asyncio loop that componentize-py brings."""

# What is not imported when the component is built can't be later: there are no files to import from.
import asyncio
import encodings.idna  # Sockets import it when they are first used.
import json
import os
import socket
from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Ok
from poll_loop import PollLoop, Sink, Stream
from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, OutgoingResponse, ResponseOutparam

served = 0


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        global served
        served += 1
        loop = PollLoop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(answer(request, response_out))


async def answer(request: IncomingRequest, out: ResponseOutparam) -> None:
    target = urlsplit(request.path_with_query() or "/")
    match target.path:
        case "/":
            await text(out, 200, "Hello from Python!\n")
        case "/echo":
            await echo(request, out)
        case "/env":
            name = parameter(target.query, "name")
            value = os.environ.get(name)
            if value is None:
                await text(out, 404, f"no variable {name}\n")
            else:
                await text(out, 200, f"{value}\n")
        case "/count":
            await text(out, 200, f"{served}\n")
        case "/sum":
            await sum_up(request, out)
        case "/reach":
            await text(out, 200, reach(parameter(target.query, "tcp")))
        case path:
            await text(out, 404, f"no {path}\n")


async def echo(request: IncomingRequest, out: ResponseOutparam) -> None:
    sink = begin(out, 200, "application/octet-stream")
    stream = Stream(request.consume())
    while (chunk := await stream.next()) is not None:
        await sink.send(chunk)
    sink.close()


async def sum_up(request: IncomingRequest, out: ResponseOutparam) -> None:
    """Answers `{"numbers": [1, 2]}` with `{"count": 2, "sum": 3}`."""
    stream, body = Stream(request.consume()), b""
    while (chunk := await stream.next()) is not None:
        body += chunk
    try:
        numbers = json.loads(body)["numbers"]
        status, result = 200, {"count": len(numbers), "sum": sum(numbers)}
    except (ValueError, KeyError, TypeError) as error:
        status, result = 400, {"error": f"{type(error).__name__}: {error}"}
    await send(out, status, "application/json", json.dumps(result) + "\n")


def reach(address: str) -> str:
    """What the standard library says of files and of the network, a line each."""
    host, _, port = address.partition(":")
    tries = {
        "open": lambda: open("/etc/hostname").read(),
        "list": lambda: os.listdir("/"),
        "connect": lambda: socket.create_connection((host, int(port)), timeout=5),
        "lookup": lambda: socket.getaddrinfo("example.com", 80),
    }
    return "".join(f"{name}: {outcome(attempt)}\n" for name, attempt in tries.items())


def outcome(attempt) -> str:
    try:
        return f"reached {attempt()!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def parameter(query: str, name: str) -> str:
    return parse_qs(query).get(name, [""])[0]


async def text(out: ResponseOutparam, status: int, body: str) -> None:
    await send(out, status, "text/plain", body)


async def send(out: ResponseOutparam, status: int, kind: str, body: str) -> None:
    sink = begin(out, status, kind)
    await sink.send(body.encode())
    sink.close()


def begin(out: ResponseOutparam, status: int, kind: str) -> Sink:
    response = OutgoingResponse(Fields.from_list([("content-type", kind.encode())]))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(out, Ok(response))
    return Sink(body)
