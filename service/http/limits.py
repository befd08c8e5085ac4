"""The longest body a request may have, enforced while it arrives and not after it is in memory."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.errors import problem_response


class BodyLimit:
    """ASGI middleware that answers 413 as soon as more than ``limit`` bytes were announced or received."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await self._refuse(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client went away
            body += message.get("body", b"")
            if len(body) > self._limit:
                await self._refuse(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        whole: Message = {"type": "http.request", "body": bytes(body), "more_body": False}
        await self._app(scope, replayed(whole, receive), send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"The body is longer than {self._limit} bytes. Refer to files by path or pattern instead."
        await problem_response(413, "body_too_large", detail)(scope, receive, send)


def replayed(message: Message, receive: Receive) -> Receive:
    """A channel that gives ``message``, which was read from it already, before what else comes."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return message

    return replay
