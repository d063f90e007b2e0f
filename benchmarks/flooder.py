"""Floods a host from a process of its own; `benchmarks.host_floods` starts it.

Arguments: the port, how many connections, for how many seconds, and `once` or `again`. Standard input: the bytes of one
request, which every connection sends once, or each time when it has an answer; then it stays open.
Prints JSON: how many answers of each status came.
"""

import asyncio
import json
import re
import socket
import sys
from collections import Counter

import uvloop

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
#: The address of everybody who asks: not that of a proxy.
CLIENT = "127.0.0.2"
#: Bytes of the longest head of an answer that is read.
_MAX_HEAD_BYTES = 64 * 1024
#: Seconds until a connection that was closed or refused tries again.
_RETRY_S = 0.1


class Flooder:
    """Connections that all send the same request."""

    def __init__(self, port: int, request: bytes, *, once: bool) -> None:
        self._port = port
        self._request = request
        self._once = once
        #: How many answers of each status came, and how many connections were closed.
        self.statuses: Counter[str] = Counter()

    async def flood(self, connections: int, seconds: float) -> None:
        """Keep so many connections for so long."""
        tasks = [asyncio.create_task(self._keep_asking()) for _ in range(connections)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_asking(self) -> None:
        while True:
            try:
                await self._ask()
            except (OSError, asyncio.IncompleteReadError):
                self.statuses["closed"] += 1
            await asyncio.sleep(_RETRY_S)

    async def _ask(self) -> None:
        stream = socket.socket()
        try:
            stream.settimeout(0)
            stream.bind((CLIENT, 0))
            await asyncio.get_running_loop().sock_connect(stream, ("127.0.0.1", self._port))
        except BaseException:
            stream.close()
            raise
        reader, writer = await asyncio.open_connection(sock=stream, limit=_MAX_HEAD_BYTES)
        try:
            while True:
                writer.write(self._request)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                length = LENGTH.search(head)
                await reader.readexactly(int(length[1]) if length else 0)
                self.statuses[head[9:12].decode()] += 1
                if self._once:
                    # It comes when the host closes the connection.
                    await reader.readexactly(1)
        finally:
            writer.close()


def main() -> None:
    """Flood."""
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    flooder = Flooder(port, sys.stdin.buffer.read(), once=sys.argv[4] == "once")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(flooder.flood(connections, seconds))
    print(json.dumps(flooder.statuses))


if __name__ == "__main__":
    main()
