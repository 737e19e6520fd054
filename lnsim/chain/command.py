"""`lnsim chain`: the embedded chain alone, for as long as it is wanted."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lnsim.chain.server import HOST, ChainServer, PortRefused, ServerOptions

BAD_USAGE = 2
MAX_PORT = 65_535


def chain(
    *,
    datadir: Annotated[Path | None, typer.Option(help="Where the cookie and the scratch files go.")] = None,
    host: Annotated[
        str, typer.Option(help="Where RPC and ZMQ listen; whoever reaches it can try passwords.")
    ] = HOST,
    rpc_port: Annotated[
        int, typer.Option(min=0, max=MAX_PORT, help="JSON-RPC port; 0 takes a free one.")
    ] = 0,
    zmq_port: Annotated[
        int, typer.Option(min=0, max=MAX_PORT, help="ZMQ port, all topics; 0 takes a free one.")
    ] = 0,
    rpcuser: Annotated[str | None, typer.Option(help="With --rpcpassword: instead of a cookie.")] = None,
    rpcpassword: Annotated[str | None, typer.Option()] = None,
    blocks: Annotated[int, typer.Option(min=0, help="Blocks to begin with; 101 make the first coin.")] = 110,
    mine_every: Annotated[float | None, typer.Option(min=0.01, help="Mine a block every so often.")] = None,
) -> None:
    """Run a regtest chain that speaks bitcoind's JSON-RPC and ZMQ, checked by Bitcoin Core's own engine."""
    options = ServerOptions(
        datadir=datadir,
        host=host,
        rpc_port=rpc_port,
        zmq_port=zmq_port,
        user=rpcuser,
        password=rpcpassword,
        blocks=blocks,
    )
    try:
        asyncio.run(_serve(options, mine_every))
    except PortRefused as error:
        typer.echo(f"lnsim: {error}", err=True)
        raise typer.Exit(BAD_USAGE) from error


async def _serve(options: ServerOptions, mine_every_s: float | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with ChainServer(time.time, options) as server:
        typer.echo(msgspec.json.encode(server.endpoint).decode())
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), mine_every_s)
            except TimeoutError:
                server.node.mine()
