"""The Python SDK 1.x as a client. Modes: ``http`` (Streamable HTTP, 2025-11-25), ``sse`` (2024-11-05).

Not for the stateless era, which this SDK does not know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import ClientSession, types
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from plan import Events, StreamWatch, elicitation_answer, main, plain, roots_answer, sampling_answer
from pydantic import AnyUrl

CHANGES = {
    types.ToolListChangedNotification: "tools changed",
    types.PromptListChangedNotification: "prompts changed",
    types.ResourceListChangedNotification: "resources changed",
}


class Client:
    can_cancel = False  # giving up on a call does not make this SDK tell the server

    def __init__(self, session: ClientSession, initialized: types.InitializeResult) -> None:
        self._session = session
        self.connection = {
            "version": initialized.protocolVersion,
            "capabilities": plain(initialized.capabilities),
            "instructions": initialized.instructions,
            "server": plain(initialized.serverInfo),
        }

    async def list_tools(self) -> Any:
        return plain(await self._session.list_tools())

    async def list_prompts(self) -> Any:
        return plain(await self._session.list_prompts())

    async def list_resources(self) -> Any:
        return plain(await self._session.list_resources())

    async def list_templates(self) -> Any:
        return plain(await self._session.list_resource_templates())

    async def call(self, tool: str, arguments: dict[str, Any] | None, on_progress: Any = None) -> Any:
        return plain(await self._session.call_tool(tool, arguments, progress_callback=on_progress))

    async def get_prompt(self, prompt: str, arguments: dict[str, str] | None) -> Any:
        return plain(await self._session.get_prompt(prompt, arguments))

    async def read(self, uri: str) -> Any:
        return plain(await self._session.read_resource(AnyUrl(uri)))

    async def complete(self, ref: dict[str, str], argument: dict[str, str]) -> Any:
        kind = types.PromptReference if ref["type"] == "ref/prompt" else types.ResourceTemplateReference
        return plain(await self._session.complete(kind.model_validate(ref), argument))

    async def set_log_level(self, level: types.LoggingLevel) -> Any:
        return plain(await self._session.set_logging_level(level))

    async def ping(self) -> Any:
        return plain(await self._session.send_ping())

    async def watch(self, uri: str) -> Any:
        return plain(await self._session.subscribe_resource(AnyUrl(uri)))

    async def unwatch(self, uri: str) -> Any:
        return plain(await self._session.unsubscribe_resource(AnyUrl(uri)))


def callbacks(events: Events) -> dict[str, Any]:
    async def on_elicitation(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked = plain(params)
        events.add("elicitation", message=asked["message"], schema=asked["requestedSchema"])
        return types.ElicitResult.model_validate(elicitation_answer(asked["requestedSchema"]))

    async def on_sampling(_: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        asked = plain(params)
        events.add("sampling", messages=asked["messages"], maxTokens=asked["maxTokens"])
        return types.CreateMessageResult.model_validate(sampling_answer(asked["messages"]))

    async def on_roots(_: Any) -> types.ListRootsResult:
        events.add("roots")
        return types.ListRootsResult.model_validate(roots_answer())

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        events.add("log", **plain(params))

    async def on_message(message: Any) -> None:
        if not isinstance(message, types.ServerNotification):
            return
        if isinstance(message.root, types.ResourceUpdatedNotification):
            events.add("resource updated", uri=str(message.root.params.uri))
        elif type(message.root) in CHANGES:
            events.add(CHANGES[type(message.root)])

    return {
        "elicitation_callback": on_elicitation,
        "sampling_callback": on_sampling,
        "list_roots_callback": on_roots,
        "logging_callback": on_log,
        "message_handler": on_message,
    }


@asynccontextmanager
async def connect(job: dict[str, Any], events: Events) -> AsyncIterator[Client]:
    stream = StreamWatch()
    if job["mode"] == "sse":
        async with sse_client(job["url"]) as (read, write):
            async with ClientSession(read, write, **callbacks(events)) as session:
                yield Client(session, await session.initialize())
        return
    http = create_mcp_http_client()
    http.event_hooks["response"].append(stream.on_response)
    async with http, streamable_http_client(job["url"], http_client=http) as (read, write, _):
        async with ClientSession(read, write, **callbacks(events)) as session:
            initialized = await session.initialize()
            await stream.wait()
            yield Client(session, initialized)


main(connect)
