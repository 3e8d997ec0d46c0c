"""The Python SDK 2.x as a client.

Modes: ``default`` (asks with server/discover, falls back to legacy), ``modern`` (2026-07-28 without
asking), ``legacy`` and ``sse`` (2024-11-05).
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp import Client as SdkClient
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from plan import Events, StreamWatch, elicitation_answer, main, plain, roots_answer, sampling_answer

MODES = {"default": "auto", "modern": "2026-07-28", "legacy": "legacy", "sse": "legacy"}
LOG_LEVEL = "io.modelcontextprotocol/logLevel"

CHANGES = {
    types.ToolListChangedNotification: "tools changed",
    types.PromptListChangedNotification: "prompts changed",
    types.ResourceListChangedNotification: "resources changed",
}


class Client:
    can_cancel = True

    def __init__(self, sdk: SdkClient, events: Events) -> None:
        self._sdk = sdk
        self._events = events
        self._log_level: str | None = None
        self._listening = AsyncExitStack()
        self.is_modern = sdk.protocol_version in MODERN_PROTOCOL_VERSIONS
        self.connection = {
            "version": sdk.protocol_version,
            "capabilities": plain(sdk.server_capabilities),
            "instructions": sdk.instructions,
            "server": plain(sdk.server_info) if sdk.server_info else None,
        }

    async def list_tools(self) -> Any:
        return plain(await self._sdk.list_tools(cache_mode="refresh"))

    async def list_prompts(self) -> Any:
        return plain(await self._sdk.list_prompts(cache_mode="refresh"))

    async def list_resources(self) -> Any:
        return plain(await self._sdk.list_resources(cache_mode="refresh"))

    async def list_templates(self) -> Any:
        return plain(await self._sdk.list_resource_templates(cache_mode="refresh"))

    async def call(self, tool: str, arguments: dict[str, Any] | None, on_progress: Any = None) -> Any:
        meta: Any = {LOG_LEVEL: self._log_level} if self.is_modern and self._log_level else None
        return plain(await self._sdk.call_tool(tool, arguments, progress_callback=on_progress, meta=meta))

    async def get_prompt(self, prompt: str, arguments: dict[str, str] | None) -> Any:
        return plain(await self._sdk.get_prompt(prompt, arguments))

    async def read(self, uri: str) -> Any:
        return plain(await self._sdk.read_resource(uri, cache_mode="refresh"))

    async def complete(self, ref: dict[str, str], argument: dict[str, str]) -> Any:
        kind = types.PromptReference if ref["type"] == "ref/prompt" else types.ResourceTemplateReference
        return plain(await self._sdk.complete(kind.model_validate(ref), argument))

    async def set_log_level(self, level: types.LoggingLevel) -> Any:
        self._log_level = level
        return {} if self.is_modern else plain(await self._sdk.set_logging_level(level))

    async def ping(self) -> Any:
        """The stateless era has no ping; discovering is how a client asks whether anyone is there."""
        if self.is_modern:
            await self._sdk.session.discover()
            return {}
        return plain(await self._sdk.send_ping())

    async def watch(self, uri: str) -> Any:
        if not self.is_modern:
            return plain(await self._sdk.subscribe_resource(uri))
        wanted = self._sdk.listen(tools_list_changed=True, prompts_list_changed=True, resource_subscriptions=[uri])
        # What arrives is also given to the message handler, which records it.
        await self._listening.enter_async_context(wanted)
        return {}

    async def unwatch(self, uri: str) -> Any:
        if not self.is_modern:
            return plain(await self._sdk.unsubscribe_resource(uri))
        await self._listening.aclose()
        return {}


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
        known = plain(params)
        known.pop("_meta", None)
        events.add("log", **known)

    async def on_message(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            events.add("resource updated", uri=str(message.params.uri))
        elif type(message) in CHANGES:
            events.add(CHANGES[type(message)])

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
    async with AsyncExitStack() as stack:
        if job["mode"] == "sse":
            transport = sse_client(job["url"])
        else:
            http = await stack.enter_async_context(create_mcp_http_client())
            http.event_hooks["response"].append(stream.on_response)
            transport = streamable_http_client(job["url"], http_client=http)
        sdk = SdkClient(transport, mode=MODES[job["mode"]], **callbacks(events))
        client = Client(await stack.enter_async_context(sdk), events)
        if not client.is_modern:
            await stream.wait()
        yield client
        with anyio.move_on_after(1):
            await client._listening.aclose()


warnings.simplefilter("ignore")
main(connect)
