"""A stdio MCP server that does what its caller says, well or badly.

Usage: scripted_stdio.py [ERA]    legacy (default), modern, exits, silent

`exits` ends on any request before initialize, `silent` never answers one.
Nothing blocks: a call that waits for something is answered when that comes.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

era = sys.argv[1] if len(sys.argv) > 1 else "legacy"
ready = era == "modern"
seen = []
asked = {}
slow = {}
signal.signal(signal.SIGTERM, signal.SIG_DFL)


def write(message):
    sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def notify(method, **params):
    write({"jsonrpc": "2.0", "method": method, "params": params})


def answer(to, **result):
    if era == "modern":
        result["resultType"] = "complete"
    write({"jsonrpc": "2.0", "id": to, "result": result})


def text(id, value):
    answer(id, content=[{"type": "text", "text": value}])


def dial(to):
    """What somebody at that address answers, or why nobody does."""
    try:
        with socket.create_connection((to["host"], to["port"]), 2) as peer:
            peer.settimeout(5)
            peer.sendall(to.get("say", "").encode())
            return peer.recv(2000).decode(errors="replace") or "it hung up"
    except OSError as error:
        return f"unreachable: {error}"


def fork(processes):
    """How many processes can be started, each of which stays."""
    for number in range(processes):
        try:
            if os.fork() == 0:
                signal.pause()
        except OSError as error:
            return f"{number} started, then: {error}"
    return f"{processes} started"


def call(id, params):
    name, arguments = params["name"], params.get("arguments", {})
    meta = params.get("_meta", {})
    if name == "echo":
        text(id, arguments.get("text", ""))
    elif name == "size":
        text(id, "x" * arguments["bytes"])
    elif name == "pid":
        answer(id, pid=os.getpid(), seen=seen, id=id, meta=meta)
    elif name == "environment":
        answer(id, names=sorted(os.environ))
    elif name == "slow":
        slow[arguments.get("name", "")] = id
        notify("notifications/message", level="info", data="begun")
    elif name == "later":
        print("later", file=sys.stderr)
        threading.Timer(arguments["seconds"], text, (id, "late")).start()
    elif name == "release":
        text(slow.pop(arguments["name"]), "released")
        text(id, "done")
    elif name == "progress":
        for step in range(arguments["steps"]):
            notify("notifications/progress", progressToken=meta["progressToken"], progress=step,
                   message="x" * arguments.get("bytes", 0))
        text(id, "done")
    elif name == "ask":
        # The same id each time, as a server that counts from one after each start.
        number = arguments.get("number", 1)
        asked[number] = id
        write({"jsonrpc": "2.0", "id": number, "method": arguments.get("method", "elicitation/create"),
               "params": {"message": arguments.get("message", "?"), "requestedSchema": {"type": "object", "properties": {}}}})
    elif name == "die":
        sys.stderr.write(arguments.get("words", "about to die\nlast words\n"))
        sys.stderr.flush()
        os._exit(arguments.get("code", 3))
    elif name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "forge":
        write({"jsonrpc": "2.0", "id": 999999, "result": {"forged": True}})
        write({"jsonrpc": "2.0", "id": "x", "result": {"forged": True}})
        write({"jsonrpc": "2.0", "id": None, "error": {"code": -1, "message": "forged"}})
        print("this is no JSON", flush=True)
        text(id, "genuine")
        write({"jsonrpc": "2.0", "id": id, "result": {"forged": "again"}})
    elif name == "endless":
        while True:
            sys.stdout.write("x" * 65536)
    elif name == "flood":
        for number in range(arguments["lines"]):
            notify("notifications/progress", progressToken="nobody", progress=number)
        text(id, "done")
    elif name == "noise":
        for number in range(arguments["lines"]):
            print(f"noise {number}", file=sys.stderr)
        text(id, "done")
    elif name == "dial":
        text(id, dial(arguments))
    elif name == "fork":
        text(id, fork(arguments["processes"]))
    elif name == "orphan":
        # A grandchild whose parent ends first, and which then ends itself.
        subprocess.run(["sh", "-c", "(sleep 0.2) & echo $!"], stdout=subprocess.PIPE)
        text(id, "done")
    elif name == "changed":
        notify("notifications/tools/list_changed")
        text(id, "done")
    elif name == "updated":
        notify("notifications/resources/updated", uri=arguments["uri"])
        text(id, "done")
    else:
        write({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "unknown tool", "data": [1.50]}})


def request(id, method, params):
    global ready
    if method == "initialize" and era != "modern":
        ready = True
        answer(id, protocolVersion="2025-11-25", serverInfo={"name": "scripted", "version": "1"},
               capabilities={"tools": {}, "logging": {}, "resources": {"subscribe": True}})
    elif not ready and era == "exits":
        sys.exit(1)
    elif not ready and era == "silent":
        pass
    elif method == "server/discover" and era == "modern":
        answer(id, supportedVersions=["2026-07-28"], capabilities={"tools": {"listChanged": True}}, ttlMs=60000, cacheScope="public")
    elif method == "tools/list":
        answer(id, tools=[{"name": "echo", "inputSchema": {"type": "object"}}])
    elif method == "tools/call":
        call(id, params)
    elif method == "subscriptions/listen" and era == "modern":
        meta = {"io.modelcontextprotocol/subscriptionId": id}
        notify("notifications/subscriptions/acknowledged", _meta=meta, notifications=params["notifications"])
        notify("notifications/tools/list_changed", _meta=meta)
        if params.get("brief"):
            answer(id, _meta=meta)
    elif method in ("ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"):
        answer(id)
    else:
        write({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "method not found"}})


for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if method is None:
        waiting = asked.pop(id, None)
        if waiting is not None:
            answer(waiting, answered=message.get("result"), refused=message.get("error"))
    else:
        seen.append({"method": method, "params": None if method == "tools/call" else message.get("params")})
        if id is not None:
            request(id, method, message.get("params", {}))
