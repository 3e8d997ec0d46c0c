"""A way to a Unix socket that takes its time: each connection waits before it is passed on.

Usage: slow_socket.py LISTEN TARGET SECONDS    The gateway makes a connection for each operation of the engine.
"""

import asyncio
import sys


async def main(listen: str, target: str, seconds: float) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        try:
            other_reader, other_writer = await asyncio.open_unix_connection(target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, other_writer), carry(other_reader, writer))

    server = await asyncio.start_unix_server(serve, listen)
    print(f"listening on {listen}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
