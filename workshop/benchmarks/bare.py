"""The limit: an ASGI application that does nothing but send a constant.

The constants are the files of the folder BODIES, so that they are as long as the service's own
responses. What the server, the socket and the load generator cost is all there is here.
"""

import os
from pathlib import Path

from starlette.types import Message, Receive, Scope, Send

_RESPONSES: dict[str, tuple[Message, Message]] = {}
for _file in Path(os.environ["BODIES"]).iterdir():
    _body = _file.read_bytes()
    _headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_body)).encode()),
    ]
    _RESPONSES[f"/{_file.name}"] = (
        {"type": "http.response.start", "status": 200, "headers": _headers},
        {"type": "http.response.body", "body": _body},
    )


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    start, body = _RESPONSES[scope["path"]]
    await send(start)
    await send(body)


async def _live(receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
