"""A dual-era server (2026-07-28 and legacy) made with the Python SDK 2.x, over Streamable HTTP or SSE.

The tools are those of py1_fastmcp.py, so that one test fits both. Not for conformance: fixture/ is.

    py2_mcpserver.py PORT [http|sse]
"""

from __future__ import annotations

import sys
from typing import Annotated

from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve, Sample
from mcp_types import CreateMessageResult, SamplingMessage, TextContent
from pydantic import BaseModel

server = MCPServer("py2", instructions="A dual-era server for tests.")


class Name(BaseModel):
    name: str


def ask_name() -> Elicit[Name]:
    return Elicit("What is your name?", Name)


def sample(question: str) -> Sample:
    return Sample([SamplingMessage(role="user", content=TextContent(text=question))], max_tokens=10)


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers"""
    return a + b


@server.tool()
async def count(upto: int, ctx: Context) -> str:
    """Counts, reporting progress"""
    for number in range(1, upto + 1):
        await ctx.report_progress(number, upto)
    return f"counted to {upto}"


@server.tool()
def greet(user: Annotated[Name, Resolve(ask_name)]) -> str:
    """Asks the user for a name, then greets"""
    return f"Hello, {user.name}!"


@server.tool()
def ask_model(question: str, answer: Annotated[CreateMessageResult, Resolve(sample)]) -> str:
    """Asks the client's model"""
    return f"The model says: {answer.content.text}"


@server.resource("note://today", mime_type="text/plain")
def today() -> str:
    """A note"""
    return "Buy bread."


@server.prompt()
def summarize(topic: str) -> str:
    """Asks for a summary"""
    return f"Summarize {topic}."


transport = "sse" if sys.argv[2:] == ["sse"] else "streamable-http"
server.run(transport, host="127.0.0.1", port=int(sys.argv[1]))
