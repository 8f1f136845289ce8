// The official TypeScript SDK against BASE_URL: what it makes of each script, as one JSON line.
import Anthropic from "@anthropic-ai/sdk";

const policy = process.env.POLICY ? { "x-streamguard-policy": process.env.POLICY } : {};

async function tried(how, script) {
  const client = new Anthropic({
    apiKey: process.env.KEY,
    baseURL: process.env.BASE_URL,
    maxRetries: Number(process.env.MAX_RETRIES ?? 0),
    timeout: 20_000,
    defaultHeaders: { "x-script": script, ...policy },
  });
  const request = { model: `claude-${script}`, max_tokens: 100, messages: [{ role: "user", content: "Hi" }] };
  try {
    if (how === "stream") {
      const stream = client.messages.stream(request);
      const message = await stream.finalMessage();
      return { message };
    }
    if (how === "events") {
      const types = [];
      for await (const event of await client.messages.create({ ...request, stream: true })) types.push(event);
      return { events: types };
    }
    return { message: await client.messages.create(request) };
  } catch (error) {
    return {
      error: error.constructor.name,
      status: error.status ?? null,
      type: error.error?.error?.type ?? null,
      reason: error.error?.error?.details?.streamguard?.reason ?? null,
    };
  }
}

const found = {};
const hows = JSON.parse(process.env.HOWS ?? '["create", "stream", "events"]');
await Promise.all(
  JSON.parse(process.env.SCRIPTS).map(async (script) => {
    found[script] = {};
    for (const how of hows) found[script][how] = await tried(how, script);
  }),
);
console.log(JSON.stringify(found));
