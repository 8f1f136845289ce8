// Node's own fetch against BASE_URL: status and body of each script, streamed and not.
const found = {};
for (const script of JSON.parse(process.env.SCRIPTS)) {
  found[script] = {};
  for (const stream of [true, false]) {
    let result;
    try {
      const response = await fetch(`${process.env.BASE_URL}/v1/messages`, {
        method: "POST",
        headers: { "content-type": "application/json", "x-api-key": process.env.KEY, "x-script": script },
        body: JSON.stringify({
          model: `claude-${script}-${stream}`,
          max_tokens: 100,
          messages: [{ role: "user", content: "Hi" }],
          stream,
        }),
      });
      result = { status: response.status, body: await response.text() };
    } catch (error) {
      result = { error: error.constructor.name };
    }
    found[script][stream ? "stream" : "json"] = result;
  }
}
console.log(JSON.stringify(found));
