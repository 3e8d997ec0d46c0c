"""A legacy server (up to 2025-11-25) made with the Python SDK 1.x, over Streamable HTTP or SSE.

The tools are those of py2_mcpserver.py, so that one test fits both. Not for conformance: fixture/ is.

    py1_fastmcp.py PORT [http|sse]
"""

from __future__ import annotations

import sys

from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

server = FastMCP("py1", instructions="A legacy server for tests.", host="127.0.0.1", port=int(sys.argv[1]))


class Name(BaseModel):
    name: str


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
async def greet(ctx: Context) -> str:
    """Asks the user for a name, then greets"""
    answer = await ctx.elicit("What is your name?", Name)
    return f"Hello, {answer.data.name}!" if answer.action == "accept" else answer.action


@server.tool()
async def ask_model(question: str, ctx: Context) -> str:
    """Asks the client's model"""
    message = SamplingMessage(role="user", content=TextContent(type="text", text=question))
    request = ctx.request_context.request_id
    answer = await ctx.session.create_message([message], max_tokens=10, related_request_id=request)
    return f"The model says: {answer.content.text}"


@server.resource("note://today", mime_type="text/plain")
def today() -> str:
    """A note"""
    return "Buy bread."


@server.prompt()
def summarize(topic: str) -> str:
    """Asks for a summary"""
    return f"Summarize {topic}."


server.run("sse" if sys.argv[2:] == ["sse"] else "streamable-http")
