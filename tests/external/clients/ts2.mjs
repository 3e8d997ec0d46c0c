// The TypeScript SDK 2.x as a client. Modes: `default` (its own default: legacy), `auto` (asks with
// server/discover, falls back to legacy), `modern` (2026-07-28 or nothing) and `sse` (2024-11-05).

import {
    Client,
    LOG_LEVEL_META_KEY,
    SSEClientTransport,
    StreamableHTTPClientTransport
} from '@modelcontextprotocol/client';
import { answers, main, watchedFetch } from './plan.mjs';

const NEGOTIATION = { auto: { mode: 'auto' }, modern: { mode: { pin: '2026-07-28' } } };

async function connect({ url, mode }, events) {
    const capabilities = { elicitation: {}, sampling: {}, roots: {} };
    const versionNegotiation = NEGOTIATION[mode];
    const client = new Client(
        { name: 'ts2', version: '1.0.0' },
        { capabilities, ...(versionNegotiation && { versionNegotiation }) }
    );
    client.setRequestHandler('elicitation/create', ({ params }) => {
        events.add('elicitation', { message: params.message, schema: params.requestedSchema });
        return answers.elicitation(params);
    });
    client.setRequestHandler('sampling/createMessage', ({ params }) => {
        events.add('sampling', { messages: params.messages, maxTokens: params.maxTokens });
        return answers.sampling(params);
    });
    client.setRequestHandler('roots/list', () => {
        events.add('roots');
        return answers.roots();
    });
    for (const [method, event, details] of [
        ['notifications/message', 'log', ({ level, data, logger }) => ({ level, data, logger })],
        ['notifications/tools/list_changed', 'tools changed'],
        ['notifications/prompts/list_changed', 'prompts changed'],
        ['notifications/resources/list_changed', 'resources changed'],
        ['notifications/resources/updated', 'resource updated', ({ uri }) => ({ uri })]
    ]) {
        client.setNotificationHandler(method, ({ params }) => events.add(event, details?.(params)));
    }

    const { fetch, streamOpen } = watchedFetch();
    const Transport = mode === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
    const transport = new Transport(new URL(url), { fetch });
    await client.connect(transport);
    const isModern = client.getProtocolEra() === 'modern';
    if (!isModern) await streamOpen();

    const fresh = { cacheMode: 'bypass' };
    let subscription;
    let levelForAll;
    const withLevel = (params, level = levelForAll) =>
        isModern && level ? { ...params, _meta: { ...params._meta, [LOG_LEVEL_META_KEY]: level } } : params;
    return {
        connection: {
            version: client.getNegotiatedProtocolVersion(),
            capabilities: client.getServerCapabilities(),
            instructions: client.getInstructions() ?? null,
            server: client.getServerVersion()
        },
        listTools: () => client.listTools(undefined, fresh),
        listPrompts: () => client.listPrompts(undefined, fresh),
        listResources: () => client.listResources(undefined, fresh),
        listTemplates: () => client.listResourceTemplates(undefined, fresh),
        call: (params, { onProgress, signal, logLevel } = {}) =>
            client.callTool(withLevel(params, logLevel), { onprogress: onProgress, signal }),
        getPrompt: params => client.getPrompt(params),
        read: params => client.readResource(params, fresh),
        complete: params => client.complete(params),
        setLogLevel: async level => {
            levelForAll = level;
            return isModern ? {} : client.setLoggingLevel(level);
        },
        // The stateless era has no ping; discovering is how a client asks whether anyone is there.
        ping: async () => (isModern ? (await client.discover()) && {} : client.ping()),
        watch: async uri => {
            if (!isModern) return client.subscribeResource({ uri });
            const filter = { toolsListChanged: true, promptsListChanged: true, resourceSubscriptions: [uri] };
            subscription = await client.listen(filter);
            return {};
        },
        unwatch: async uri => {
            if (!isModern) return client.unsubscribeResource({ uri });
            await subscription.close();
            return {};
        },
        close: async () => {
            if (!isModern) await transport.terminateSession?.();
            await client.close();
        }
    };
}

await main(connect);
