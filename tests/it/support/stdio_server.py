"""A small MCP server on standard streams.

Usage: stdio_server.py LOG modern|legacy|exits|silent

`legacy` answers server/discover with an error, `exits` ends on any request
before initialize, `silent` never answers one. Every line that arrives is
appended to LOG as it came, after a number that tells this process from others.
"""

import json
import os
import sys

log, kind = sys.argv[1:]
ready = kind == "modern"


def write(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def result(request):
    method = request["method"]
    if method == "initialize":
        return {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
        }
    if method == "server/discover":
        return {
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "ttlMs": 60000,
            "cacheScope": "public",
        }
    if method == "tools/list":
        return {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
    if method == "tools/call":
        arguments = request["params"].get("arguments")
        return {"content": [{"type": "text", "text": json.dumps(arguments)}]}
    return {}


for line in sys.stdin:
    with open(log, "a") as file:
        file.write(f"{os.getpid()} {line}")
    request = json.loads(line)
    if "id" not in request or "method" not in request:
        continue
    method = request["method"]
    if method == "initialize" and kind != "modern":
        ready = True
    elif not ready and kind == "exits":
        sys.exit(1)
    elif not ready and kind == "silent":
        continue
    elif method == "server/discover" and kind != "modern":
        error = {"code": -32601, "message": "method not found"}
        write({"jsonrpc": "2.0", "id": request["id"], "error": error})
        continue
    answer = result(request)
    if kind == "modern":
        answer["resultType"] = "complete"
    write({"jsonrpc": "2.0", "id": request["id"], "result": answer})
