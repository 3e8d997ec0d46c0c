// The TypeScript SDK 1.x as a client. Modes: `http` (Streamable HTTP, 2025-11-25) and `sse` (2024-11-05).
// Not for the stateless era, which this SDK does not know.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import * as schemas from '@modelcontextprotocol/sdk/types.js';
import { answers, main, watchedFetch } from './plan.mjs';

async function connect({ url, mode }, events) {
    const capabilities = { elicitation: {}, sampling: {}, roots: {} };
    const client = new Client({ name: 'ts1', version: '1.0.0' }, { capabilities });
    client.setRequestHandler(schemas.ElicitRequestSchema, ({ params }) => {
        events.add('elicitation', { message: params.message, schema: params.requestedSchema });
        return answers.elicitation(params);
    });
    client.setRequestHandler(schemas.CreateMessageRequestSchema, ({ params }) => {
        events.add('sampling', { messages: params.messages, maxTokens: params.maxTokens });
        return answers.sampling(params);
    });
    client.setRequestHandler(schemas.ListRootsRequestSchema, () => {
        events.add('roots');
        return answers.roots();
    });
    for (const [schema, event, details] of [
        [schemas.LoggingMessageNotificationSchema, 'log', ({ level, data, logger }) => ({ level, data, logger })],
        [schemas.ToolListChangedNotificationSchema, 'tools changed'],
        [schemas.PromptListChangedNotificationSchema, 'prompts changed'],
        [schemas.ResourceListChangedNotificationSchema, 'resources changed'],
        [schemas.ResourceUpdatedNotificationSchema, 'resource updated', ({ uri }) => ({ uri })]
    ]) {
        client.setNotificationHandler(schema, ({ params }) => events.add(event, details?.(params)));
    }

    const { fetch, streamOpen } = watchedFetch();
    const Transport = mode === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
    const transport = new Transport(new URL(url), { fetch });
    await client.connect(transport);
    await streamOpen();

    return {
        connection: {
            version: transport.protocolVersion ?? transport._protocolVersion ?? null,
            capabilities: client.getServerCapabilities(),
            instructions: client.getInstructions() ?? null,
            server: client.getServerVersion()
        },
        listTools: () => client.listTools(),
        listPrompts: () => client.listPrompts(),
        listResources: () => client.listResources(),
        listTemplates: () => client.listResourceTemplates(),
        call: (params, { onProgress, signal } = {}) =>
            client.callTool(params, undefined, { onprogress: onProgress, signal }),
        getPrompt: params => client.getPrompt(params),
        read: params => client.readResource(params),
        complete: params => client.complete(params),
        setLogLevel: level => client.setLoggingLevel(level),
        ping: () => client.ping(),
        watch: uri => client.subscribeResource({ uri }),
        unwatch: uri => client.unsubscribeResource({ uri }),
        close: async () => {
            await transport.terminateSession?.();
            await client.close();
        }
    };
}

await main(connect);
