// Runs a job with a TypeScript client and tells what happened: the part that ts1.mjs and ts2.mjs share.
// The Python clients do the same in plan.py; the two must describe the same happening in the same words.
// Not for judging: the drivers compare what is printed here.
//
// A job is JSON on stdin:   {"url": ..., "mode": ..., "plan": [{"op": ..., ...}, ...]}
// The answer is on stdout:  {"connection": {...}, "steps": [{"op", "result" | "error" | "skipped", "events"}]}

import { setTimeout as delay } from 'node:timers/promises';

const STEP_MS = 20_000;
const EVENT_MS = 5_000;
const STREAM_MS = 300;

/** What the client says when a server asks it something. */
export const answers = {
    elicitation: params => ({ action: 'accept', content: fill(params.requestedSchema) }),
    sampling: params => ({
        role: 'assistant',
        model: 'canned',
        stopReason: 'endTurn',
        content: { type: 'text', text: `You said: ${lastText(params.messages)}` }
    }),
    roots: () => ({ roots: [{ uri: 'file:///srv/space', name: 'space' }] })
};

function fill(schema) {
    const content = {};
    for (const [name, field] of Object.entries(schema?.properties ?? {})) content[name] = value(field);
    return content;
}

function value(field) {
    if (field.default !== undefined) return field.default;
    if (field.type === 'array') return [value(field.items)];
    const choice = field.enum?.[0] ?? field.oneOf?.[0]?.const ?? field.anyOf?.[0]?.const;
    if (choice !== undefined) return choice;
    return { string: 'Ada', integer: 7, number: 1.5, boolean: true }[field.type];
}

function lastText(messages) {
    const content = messages.at(-1).content;
    return (Array.isArray(content) ? content[0] : content).text;
}

/** What a server told or asked, in the order of arrival, and a way to wait for the next of a kind. */
export class Events {
    #seen = [];
    #waiting = [];

    add(event, details = {}) {
        this.#seen.push({ event, ...details });
        this.#waiting = this.#waiting.filter(waiter => waiter.event !== event || waiter.resolve());
    }

    take() {
        return this.#seen.splice(0);
    }

    async next(event) {
        if (this.#seen.some(seen => seen.event === event)) return;
        const arrived = new Promise(resolve => this.#waiting.push({ event, resolve }));
        const late = AbortSignal.timeout(EVENT_MS);
        await Promise.race([arrived, new Promise((_, reject) => late.addEventListener('abort', reject))]).catch(() => {
            throw new Error(`no event "${event}" within ${EVENT_MS} ms`);
        });
    }
}

/**
 * A fetch that lets the caller wait for the first GET, the stream on which changes arrive. It waits a
 * moment, no longer: some servers send nothing on it, not even headers, before the first change.
 */
export function watchedFetch() {
    let opened;
    const streamOpen = new Promise(resolve => (opened = resolve));
    const fetchAndTell = async (url, init) => {
        const response = await fetch(url, init);
        if ((init?.method ?? 'GET') === 'GET') opened();
        return response;
    };
    return { fetch: fetchAndTell, streamOpen: () => Promise.race([streamOpen, delay(STREAM_MS)]) };
}

function described(error) {
    const message = String(error?.message ?? error);
    return { code: error?.code ?? null, message, ...(error?.data === undefined ? {} : { data: error.data }) };
}

const text = result => result.content?.[0]?.text;

/** Cancels a call in the middle and waits until the server has noticed. */
async function cancel(client, step) {
    const before = Number(text(await client.call({ name: step.counter })));
    const abort = new AbortController();
    const call = client.call({ name: step.tool }, { signal: abort.signal, onProgress: () => abort.abort('enough') });
    const outcome = await call.then(
        () => 'answered',
        () => 'gave up'
    );
    for (const deadline = Date.now() + EVENT_MS; Date.now() < deadline; await delay(50)) {
        if (Number(text(await client.call({ name: step.counter }))) > before) return { outcome, serverNoticed: true };
    }
    return { outcome, serverNoticed: false };
}

const operations = {
    list_tools: client => client.listTools(),
    list_prompts: client => client.listPrompts(),
    list_resources: client => client.listResources(),
    list_templates: client => client.listTemplates(),
    call: (client, { tool, arguments: args, log_level: logLevel }, events) =>
        client.call(
            { name: tool, arguments: args },
            { logLevel, onProgress: progress => events.add('progress', progress) }
        ),
    get_prompt: (client, { prompt, arguments: args }) => client.getPrompt({ name: prompt, arguments: args }),
    read: (client, { uri }) => client.read({ uri }),
    complete: (client, { ref, argument }) => client.complete({ ref, argument }),
    log_level: (client, { level }) => client.setLogLevel(level),
    ping: client => client.ping(),
    watch: (client, { uri }) => client.watch(uri),
    unwatch: (client, { uri }) => client.unwatch(uri),
    cancel
};

async function run(client, step, events) {
    const operation = operations[step.op];
    if (!operation) return { skipped: 'no such operation' };
    try {
        const late = delay(STEP_MS, undefined, { ref: false }).then(() => {
            throw new Error(`no answer within ${STEP_MS} ms`);
        });
        const result = await Promise.race([operation(client, step, events), late]);
        if (step.wait_for) await events.next(step.wait_for);
        return result === undefined ? { skipped: 'this client cannot' } : { result };
    } catch (error) {
        return { error: described(error) };
    }
}

/** Reads the job, connects with `connect(job, events)`, runs the plan and prints what happened. */
export async function main(connect) {
    let input = '';
    for await (const chunk of process.stdin) input += chunk;
    const job = JSON.parse(input);
    const events = new Events();
    const report = { steps: [] };
    try {
        let client = await connect(job, events);
        report.connection = client.connection;
        for (const step of job.plan) {
            let outcome;
            if (step.op === 'reconnect') {
                await client.close();
                client = await connect(job, events);
                outcome = { result: {} };
            } else {
                outcome = await run(client, step, events);
            }
            report.steps.push({ op: step.op, ...outcome, events: events.take() });
        }
        await client.close();
    } catch (error) {
        report.failure = described(error);
    }
    process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
}
