"""The admin listener: whether a process lives, whether it is ready, and its metrics. It can be read, nothing else.

Starlette and uvicorn are loaded with it, so only a process that is asked to listen pays for them.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from node.runtime.http_server import HttpServer

Complaints = Callable[[], list[str]]

UNAVAILABLE = 503


def application(complaints: Complaints, registry: CollectorRegistry) -> Starlette:
    """`complaints` are the reasons why this process should not be sent any work."""

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("alive\n")  # the loop turns, or nothing would answer

    async def ready(_: Request) -> Response:
        reasons = complaints()
        if reasons:
            return PlainTextResponse("".join(f"{reason}\n" for reason in reasons), UNAVAILABLE)
        return PlainTextResponse("ready\n")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Starlette(routes=[Route("/healthz", healthy), Route("/readyz", ready), Route("/metrics", metrics)])


@asynccontextmanager
async def admin(address: str, complaints: Complaints, registry: CollectorRegistry) -> AsyncIterator[str]:
    """Serve meanwhile; yields the address. Raises Refused where it can't be had."""
    server = HttpServer(application(complaints, registry), address)
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop()
