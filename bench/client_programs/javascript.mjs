// One call by one JavaScript client: node javascript.mjs CLIENT stream|json, with BASE_URL. Prints what the client sees.
const [client, mode] = process.argv.slice(2);
const url = process.env.BASE_URL;
const prompt = "Hi";
const streams = mode === "stream";

const programs = {
  "typescript-sdk": async () => {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const sdk = new Anthropic({ baseURL: url, apiKey: "x" });
    const request = { model: "claude-haiku-4-5", max_tokens: 100, messages: [{ role: "user", content: prompt }] };
    const message = streams ? await sdk.messages.stream(request).finalMessage() : await sdk.messages.create(request);
    return message.content[0].text;
  },
  "vercel-ai-sdk": async () => {
    const { generateText, streamText } = await import("ai");
    const { createAnthropic } = await import("@ai-sdk/anthropic");
    const model = createAnthropic({ baseURL: `${url}/v1`, apiKey: "x" })("claude-haiku-4-5");
    if (!streams) return (await generateText({ model, prompt })).text;
    let failure;
    const result = streamText({ model, prompt, onError: ({ error }) => { failure = error; } });
    let text = "";
    for await (const piece of result.textStream) text += piece;
    if (failure) throw failure;
    return text;
  },
  "n8n-http-node": async () => {
    // What the node does: axios with the body as JSON; a status from 400 on, and a body that breaks off, are errors.
    const { default: axios } = await import("axios");
    const body = { model: "claude-haiku-4-5", max_tokens: 100, messages: [{ role: "user", content: prompt }], stream: streams };
    const { data } = await axios.post(`${url}/v1/messages`, body, { headers: { "x-api-key": "x" } });
    if (typeof data === "string") return data.includes("event: error") ? "an error event inside of the text" : data.slice(0, 60);
    return data.type === "message" ? data.content[0].text : `a body of type ${data.type}`;
  },
};

try {
  console.log(JSON.stringify({ returned: await programs[client]() }));
} catch (error) {
  const inner = error.lastError ?? error;
  console.log(JSON.stringify({ raised: error.constructor.name, status: inner.statusCode ?? inner.status ?? null, message: String(inner.message).slice(0, 120) }));
}
