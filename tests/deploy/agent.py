"""An agent: a session at each of some servers through one node, and calls to all of them at once, until it is killed.

Usage: agent.py NODE-URL NUMBER SERVER...    It says after each round how many calls were answered.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import urllib.parse

VERSION = "2025-11-25"


class Session:
    def __init__(self, url: str, server: str) -> None:
        self._path = f"/mcp/{server}"
        address = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Mcp-Protocol-Version": VERSION,
        }
        hello = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "agent", "version": "1"}}
        headers, _ = self._send({"id": 0, "method": "initialize", "params": hello})
        self._headers["Mcp-Session-Id"] = headers["mcp-session-id"]
        self._send({"method": "notifications/initialized"})

    def call(self, number: int, text: str) -> bool:
        params = {"name": "echo", "arguments": {"text": text}}
        _, body = self._send({"id": number, "method": "tools/call", "params": params})
        return text in body

    def _send(self, message: dict[str, object]) -> tuple[dict[str, str], str]:
        body = json.dumps({"jsonrpc": "2.0", **message})
        self._connection.request("POST", self._path, body, self._headers)
        answer = self._connection.getresponse()
        said = answer.read().decode()
        if answer.status not in (200, 202):
            raise RuntimeError(f"{self._path}: {answer.status} {said}")
        return {name.lower(): value for name, value in answer.getheaders()}, said


def main() -> None:
    url, agent, *servers = sys.argv[1:]
    sessions = [Session(url, server) for server in servers]
    turn = 0
    while True:
        turn += 1
        right: list[bool] = []

        def ask(session: Session, turn: int = turn, right: list[bool] = right) -> None:
            right.append(session.call(turn, f"agent {agent} turn {turn}"))

        threads = [threading.Thread(target=ask, args=[session]) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(right) != len(sessions) or not all(right):
            sys.exit(f"a wrong answer: {right}")
        print(len(right), flush=True)


if __name__ == "__main__":
    main()
