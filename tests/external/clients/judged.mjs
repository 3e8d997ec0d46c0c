// The client that the official suite's client scenarios want to see, made with the TypeScript SDK 2.x.
// The suite says in its environment which scenario; the URL is the last argument. JUDGED_ERA, legacy or
// modern, says what this client speaks. Between this client and the suite's mock server stands the gateway: what the suite judges
// is what the gateway sends. Not for comparing clients (ts1.mjs and its siblings).

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const isModern = process.env.JUDGED_ERA === 'modern';
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const url = new URL(process.argv.at(-1));

const client = new Client(
    { name: 'judged', version: '1.0.0' },
    {
        capabilities: { elicitation: { form: { applyDefaults: true } }, sampling: {}, roots: {} },
        ...(isModern && { versionNegotiation: { mode: 'auto' } })
    }
);
// Accepting with nothing filled in makes the SDK fill in the defaults.
client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: {} }));
client.setRequestHandler('sampling/createMessage', () => ({
    role: 'assistant',
    model: 'canned',
    content: { type: 'text', text: 'canned' }
}));
client.setRequestHandler('roots/list', () => ({ roots: [] }));

const call = (name, args = {}) => client.callTool({ name, arguments: args });
const listTools = async () => (await client.listTools()).tools;

/** A value of the right type for each required parameter. */
const sample = { string: 'eu', integer: 1, number: 1.5, boolean: true, object: {}, array: [], null: null };
const argumentsFor = ({ properties = {}, required = [] }) =>
    Object.fromEntries(required.map(name => [name, sample[properties[name].type]]));

const callEvery = async tools => {
    for (const tool of tools) await call(tool.name, argumentsFor(tool.inputSchema));
};

const scenarios = {
    initialize: listTools,
    'request-metadata': listTools,
    'json-schema-ref-no-deref': listTools,
    tools_call: async () => {
        await listTools();
        await call('add_numbers', { a: 5, b: 3 });
    },
    'elicitation-sep1034-client-defaults': async () => callEvery(await listTools()),
    'sse-retry': async () => callEvery(await listTools()),
    'http-invalid-tool-headers': async () => callEvery(await listTools()),
    'sep-2322-client-request-state': async () => callEvery(await listTools()),
    'json-schema-2020-12-preservation': async () => {
        const [rich] = await listTools();
        await call('json_schema_echo', { schema: rich.inputSchema });
    },
    'http-custom-headers': async () => {
        await listTools();
        for (const { name, arguments: args } of context.toolCalls) await call(name, args);
    },
    'http-standard-headers': async () => {
        await callEvery(await listTools());
        for (const { uri } of (await client.listResources()).resources) await client.readResource({ uri });
        for (const { name } of (await client.listPrompts()).prompts) await client.getPrompt({ name });
    }
};

await client.connect(new StreamableHTTPClientTransport(url));
console.log(`${scenario}: speaks ${client.getNegotiatedProtocolVersion()}`);
await scenarios[scenario]();
await client.close();
