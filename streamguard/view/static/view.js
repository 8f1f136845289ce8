// The live view's page. What comes from calls is text and stays text: nodes are made by name and filled by textContent,
// nothing is ever parsed as markup (the answer's own headers forbid it as well).

const $ = (id) => document.getElementById(id);

// ---- what the server has told ----------------------------------------------------------------------------------------

let state = {};
let offset = 0; // the server's clock minus ours, in seconds
let texts = new Map(); // of the attempt that runs: block index -> {kind, type, name, id, text}
let textsOf = null; // which attempt that is
let selected = null;
const filter = new Set();
const session = { token: sessionStorage.getItem("streamguard.token") };

const clock = () => performance.now() / 1000 + offset;

function merge(target, patch) {
  for (const [name, value] of Object.entries(patch)) {
    if (name === "__proto__") continue; // labels are somebody's input
    if (value === null) delete target[name];
    else if (isObject(value)) target[name] = merge(isObject(target[name]) ? target[name] : {}, value);
    else target[name] = value;
  }
  return target;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function receive(event, data) {
  offset = data.now - performance.now() / 1000;
  if (event === "state") {
    state = {};
    texts = new Map();
    textsOf = null;
  }
  merge(state, data.patch);
  for (const piece of data.texts) {
    if (textsOf !== piece.attempt) {
      texts = new Map();
      textsOf = piece.attempt;
    }
    const block = texts.get(piece.index);
    if (block) block.text += piece.text;
    else texts.set(piece.index, piece);
  }
  draw();
}

// ---- the connection --------------------------------------------------------------------------------------------------

let connection = null;

function headers(more = {}) {
  return session.token ? { authorization: `Bearer ${session.token}`, ...more } : more;
}

async function connect() {
  connection?.abort();
  const mine = (connection = new AbortController());
  for (let wait = 500; !mine.signal.aborted; wait = Math.min(wait * 2, 8000)) {
    try {
      const query = selected ? `?call=${encodeURIComponent(selected)}` : "";
      const response = await fetch(`events${query}`, { headers: headers(), signal: mine.signal, cache: "no-store" });
      if (response.status === 401) return askForToken();
      if (!response.ok) throw new Error((await response.json()).error);
      link("live", "live");
      wait = 250;
      for await (const [event, data] of frames(response.body)) receive(event, data);
      throw new Error("ended");
    } catch (error) {
      if (mine.signal.aborted) return;
      link("lost", `lost: ${error.message}; trying again`);
      await new Promise((done) => setTimeout(done, wait));
    }
  }
}

async function* frames(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const event = lines.find((line) => line.startsWith("event: "));
      const data = lines.find((line) => line.startsWith("data: "));
      if (event && data) yield [event.slice(7), JSON.parse(data.slice(6))];
    }
  }
}

function link(how, says) {
  $("link").dataset.link = how;
  $("link").textContent = says;
}

async function act(path) {
  try {
    const response = await fetch(path, { method: "POST", headers: headers({ "x-streamguard": "view" }) });
    if (!response.ok) throw new Error((await response.json()).error);
    notice(null);
  } catch (error) {
    notice(`That did not work: ${error.message}`);
  }
}

function notice(says) {
  $("notice").hidden = !says;
  $("notice").textContent = says ?? "";
}

function askForToken() {
  link("lost", "needs its token");
  if (!$("ask").open) $("ask").showModal();
}

function enter(event) {
  event.preventDefault();
  session.token = $("token").value.trim();
  sessionStorage.setItem("streamguard.token", session.token);
  $("token").value = "";
  $("ask").close();
  connect();
}

// ---- making nodes ----------------------------------------------------------------------------------------------------

function make(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") node.className = value;
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Keeps one node per key, in order, and leaves nodes alone that have not moved: focus and selections survive.
function keyed(parent, items, create, update) {
  const nodes = (parent.nodes ??= new Map());
  const wanted = new Set(items.map(([key]) => key));
  for (const [key, node] of nodes) {
    if (!wanted.has(key)) {
      node.remove();
      nodes.delete(key);
    }
  }
  let next = parent.firstChild;
  for (const [key, item] of items) {
    let node = nodes.get(key);
    if (!node) nodes.set(key, (node = create(key, item)));
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
    update(node, item, key);
  }
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const number = new Intl.NumberFormat("en");
const counted = (tokens) => number.format(tokens ?? 0);
const plural = (count, one, many = `${one}s`) => `${counted(count)} ${count === 1 ? one : many}`;

function money(micro) {
  if (micro === undefined || micro === null) return "unknown";
  const usd = micro / 1e6;
  return `$${usd.toFixed(usd >= 1 ? 2 : usd >= 0.01 ? 4 : 6)}`;
}

function seconds(value) {
  if (value === undefined || value === null) return "–";
  if (value > 0 && value < 0.0995) return `${Math.max(1, Math.round(value * 1000))} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 99.5) return `${Math.round(value)} s`;
  const whole = Math.round(value);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}

function between([low, high], show) {
  if (high === undefined || high === null) return low === undefined || low === null ? "unknown" : `≥ ${show(low)}`;
  return low === high || low === undefined || low === null ? show(high) : `${show(low)} – ${show(high)}`;
}

function title(id, call) {
  const labels = Object.entries(call.labels ?? {});
  if (!labels.length) return `call ${id.slice(0, 8)}`;
  return labels.map(([name, value]) => (labels.length === 1 ? value : `${name} ${value}`)).join(" · ");
}

const WORDS = {
  queued: "waits for its turn",
  waiting: "waits before the next attempt",
  connecting: "waits for a response",
  listening: "waits for the first token",
  thinking: "thinking",
  writing: "writing",
  calling: "calling a tool",
  closing: "complete, closing",
  ending: "being interrupted",
};

// ---- clocks ----------------------------------------------------------------------------------------------------------

function clockNode() {
  return make("div", { class: "clock" }, make("div", { class: "track" }, make("div", { class: "fill" })), make("span", { class: "says" }));
}

function setClock(node, told) {
  node.told = told;
  node.hidden = !told;
  if (told) tick(node);
}

function tick(node) {
  const { knob, limit, due, left } = node.told;
  const stands = due === undefined;
  const rest = Math.max(0, stands ? left : due - clock());
  const share = Math.min(1, rest / limit);
  node.style.setProperty("--left", share.toFixed(4));
  node.dataset.level = share < 0.12 ? "bad" : share < 0.35 ? "warn" : "";
  say(node.lastChild, `${knob} ${seconds(rest)} of ${seconds(limit)}${stands ? ", stands" : ""}`);
}

setInterval(() => {
  for (const node of document.querySelectorAll(".clock")) if (node.told) tick(node);
  const elapsed = $("elapsed");
  if (elapsed?.began !== undefined) say(elapsed, seconds(clock() - elapsed.began));
}, 250);

// ---- lists -----------------------------------------------------------------------------------------------------------

function rowNode(id) {
  const row = make(
    "button",
    { class: "row", type: "button", data: { call: id }, onclick: () => select(id) },
    make("span", { class: "top" }, make("span", { class: "dot" }), make("span", { class: "title" }), make("span", { class: "side" })),
    make("span", { class: "tail" }, make("bdi")),
    make("span", { class: "why" }),
    clockNode(),
  );
  return make("li", {}, row);
}

function setRow(item, { id, call, over }) {
  const row = item.firstChild;
  const [top, tail, why, bar] = row.children;
  const [dot, name, side] = top.children;
  row.setAttribute("aria-current", String(id === selected));
  say(name, title(id, call));
  if (over) {
    dot.dataset.state = ending(call);
    say(side, `${plural(call.attempts, "attempt")} · ${seconds(call.seconds)}`);
    tail.hidden = true;
    say(why, [...call.reasons.map((reason) => `${reason} →`), call.completed ? `${call.completed}${markedWith(call)}` : call.reason].slice(call.reason && call.reason !== "left" ? -1 : 0).join(" "));
    why.hidden = false;
    setClock(bar, null);
    return;
  }
  dot.dataset.state = call.state;
  say(side, `${call.attempts > 1 ? `attempt ${call.attempt}/${call.attempts} · ` : ""}≈ ${counted(call.tokens)}`);
  tail.hidden = false;
  tail.dataset.kind = call.kind ?? "";
  say(tail.firstChild, call.tail ? call.tail.replace(/\s+/g, " ") : WORDS[call.state]);
  why.hidden = !call.reasons.length;
  say(why, call.reasons.length ? `after ${call.reasons.join(", ")}` : "");
  setClock(bar, call.clock);
}

// How a call that is over is shown: as good, bad, or neither, if its consumer left.
const ending = (call) => (call.completed ? "good" : call.reason === "left" ? "" : "bad");

const markedWith = (call) => (call.marked?.length ? `, marked ${call.marked.join(", ")}` : "");

const entry = ([id, call], over) => [id, { id, call, over }];

function drawLists() {
  const running = Object.entries(state.running ?? {}).sort(([, a], [, b]) => a.began - b.began);
  const finished = Object.entries(state.finished ?? {}).sort(([, a], [, b]) => b.number - a.number);
  const alone = running.filter(([, call]) => call.group === undefined);
  keyed($("running"), alone.map((one) => entry(one, false)), rowNode, setRow);
  $("idle").hidden = running.length > 0;
  $("hidden").hidden = !state.hidden;
  say($("hidden"), state.hidden ? `and ${plural(state.hidden, "more call")}, not shown` : "");

  const groups = new Map();
  for (const [id, call] of finished.toReversed()) {
    if (call.group !== undefined) groups.set(call.group, [...(groups.get(call.group) ?? []), entry([id, call], true)]);
  }
  for (const [id, call] of running) {
    if (call.group !== undefined) groups.set(call.group, [...(groups.get(call.group) ?? []), entry([id, call], false)]);
  }
  const live = (steps) => (steps.some(([, step]) => !step.over) ? 1 : 0);
  const order = [...groups].sort(([, a], [, b]) => live(b) - live(a) || latest(b) - latest(a)).slice(0, 30);
  keyed($("groups"), order, groupNode, setGroup);

  const rest = finished.filter(([, call]) => call.group === undefined);
  const shown = rest.filter(([, call]) => !filter.size || filter.has(call.reason ?? call.completed));
  $("finished-box").hidden = !rest.length && !Object.keys(state.reasons ?? {}).length;
  keyed($("finished"), shown.map((one) => entry(one, true)), rowNode, setRow);
  const reasons = Object.entries(state.reasons ?? {}).sort(([, a], [, b]) => b - a);
  keyed($("reasons"), reasons, reasonNode, setReason);
}

const latest = (steps) => Math.max(...steps.map(([, { call, over }]) => (over ? call.number : Infinity)));

function groupNode(name) {
  const list = make("ol", { class: "rows" });
  return make("section", { class: "group" }, make("h2", {}, make("b", { textContent: name }), make("span")), list);
}

function setGroup(node, steps) {
  const runs = steps.some(([, step]) => !step.over);
  say(node.firstChild.lastChild, `${plural(steps.length, "step")}${runs ? ", running" : ""}`);
  keyed(node.lastChild, steps, rowNode, setRow);
}

function reasonNode(reason) {
  const pressed = () => {
    if (!filter.delete(reason)) filter.add(reason);
    draw();
  };
  return make("li", {}, make("button", { type: "button", onclick: pressed }, make("span", { textContent: reason }), make("b")));
}

function setReason(node, count, reason) {
  node.firstChild.setAttribute("aria-pressed", String(filter.has(reason)));
  say(node.firstChild.lastChild, counted(count));
}

function drawBudgets() {
  const budgets = Object.entries(state.budgets ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  $("budgets-box").hidden = !budgets.length;
  keyed($("budgets"), budgets, budgetNode, setBudget);
}

function budgetNode() {
  const meter = make("div", { class: "meter" }, ...["settled", "held", "uncertain"].map((name) => make("i", { class: name })));
  return make("li", {}, make("div", { class: "top" }, make("b"), make("span")), meter, make("small"));
}

function setBudget(node, budget, key) {
  const [top, meter, small] = node.children;
  const per = key.slice(budget.name.length + 1).replace(/\/(micro_usd|tokens)$/, "");
  say(top.firstChild, budget.name);
  meter.hidden = budget.cap === undefined;
  if (budget.cap === undefined) {
    say(top.lastChild, "");
    say(small, "unknown: its ledger does not answer");
    return;
  }
  const show = budget.unit === "micro_usd" ? money : (count) => plural(count, "token");
  const taken = budget.settled + budget.held + budget.uncertain;
  say(top.lastChild, `${show(Math.max(0, budget.cap - taken))} left of ${show(budget.cap)}`);
  ["settled", "held", "uncertain"].forEach((name, place) => {
    meter.children[place].style.setProperty("--share", `${Math.min(100, (100 * budget[name]) / budget.cap)}%`);
  });
  const parts = [`${show(budget.settled)} spent`];
  if (budget.held) parts.push(`${show(budget.held)} held by calls that run`);
  if (budget.uncertain) parts.push(`${show(budget.uncertain)} uncertain`);
  say(small, [per, budget.window, ...parts].filter(Boolean).join(" · "));
}

function drawBar() {
  const sums = state.sums ?? {};
  const shown = [
    ["running", counted(sums.running)],
    ["completed", counted(sums.completed)],
    ["gave up", counted(sums.gave_up)],
    ["retries", counted(sums.retries)],
    ["spent", `${sums.unpriced ? "≥ " : "≤ "}${money(sums.micro_usd ?? 0)}`],
  ];
  keyed($("sums"), shown, (name) => make("div", {}, make("dt", { textContent: name }), make("dd")), (node, value) => say(node.lastChild, value));
  const paused = state.paused !== undefined;
  $("pause").setAttribute("aria-pressed", String(paused));
  say($("pause"), paused ? "Resume admission" : "Pause admission");
  $("paused").hidden = !paused;
  say($("paused"), paused ? `ReservationQueue is paused by ${state.paused}: what runs goes on, nothing new is sent.` : "");
  const down = (state.down ?? []).map((one) => `${one.model || "the model"}${one.base_url ? ` at ${one.base_url}` : ""} since ${new Date(one.since * 1000).toLocaleTimeString()} (${one.reason})`);
  $("down").hidden = !down.length;
  say($("down"), down.length ? `Down: ${down.join(", ")}. One request at a time looks whether it is back.` : "");
  document.title = sums.running ? `${sums.running} running · streamguard` : "streamguard · live";
}

// ---- one call --------------------------------------------------------------------------------------------------------

let drawn = null; // the call whose detail stands

function select(id) {
  selected = id;
  texts = new Map();
  textsOf = null;
  delete state.detail;
  history.replaceState(null, "", id ? `#call=${encodeURIComponent(id)}` : location.pathname);
  draw();
  connect();
  if (id && matchMedia("(max-width: 56rem)").matches) $("detail").scrollIntoView();
}

function drawDetail() {
  const box = $("detail");
  const call = state.running?.[selected] ?? state.finished?.[selected];
  const detail = state.detail?.id === selected ? state.detail : undefined;
  if (!selected || (!call && !detail)) {
    drawn = null;
    box.nodes = undefined;
    box.replaceChildren(make("p", { class: "empty", textContent: selected ? "This call is not on record any more." : "Choose a call to see it as it streams." }));
    return;
  }
  if (drawn !== selected) {
    drawn = selected;
    box.replaceChildren(...frame());
  }
  const [head, facts, clocks, attempts, policy] = box.children;
  const runs = state.running?.[selected] !== undefined;
  setHead(head, call ?? {}, runs);
  setFacts(facts, call ?? {}, detail, runs);
  const told = (detail?.now?.clocks ?? []).toSorted((a, b) => (a.due ?? Infinity) - (b.due ?? Infinity));
  keyed(clocks, told.map((one) => [one.knob, one]), clockNode, setClock);
  const over = Object.entries(detail?.attempts ?? {});
  const items = over.map(([key, attempt]) => [Number(key), { attempt }]);
  if (detail?.now && !detail.attempts?.[detail.now.number] && runs) items.push([detail.now.number, { now: detail.now, call }]);
  items.sort(([a], [b]) => b - a);
  keyed(attempts, items.map(([key, item]) => [`${key}${item.now ? " now" : ""}`, item]), attemptNode, setAttempt);
  policy.hidden = !detail?.policy?.length;
  keyed(policy.lastChild.firstChild, (detail?.policy ?? []).map((row) => [row[0], row]), policyNode, (node, row) => say(node.lastChild, row[1]));
}

function frame() {
  const interrupt = make("button", { type: "button", class: "danger", id: "interrupt", textContent: "Interrupt", title: "End this call now; it is not retried", onclick: () => act(`calls/${encodeURIComponent(selected)}/interrupt`) });
  const names = make("div", { class: "names" }, make("h2"), make("div", { class: "state" }, make("span", { class: "dot" }), make("span"), make("span", { class: "mono" })));
  return [
    make("div", { class: "head" }, names, interrupt),
    make("dl", { class: "facts" }),
    make("div", { class: "clocks" }),
    make("div", { class: "attempts" }),
    make("details", { class: "policy" }, make("summary", { textContent: "What its policy says" }), make("table", {}, make("tbody"))),
  ];
}

function setHead(head, call, runs) {
  const [names, interrupt] = head.children;
  const [dot, says, id] = names.lastChild.children;
  say(names.firstChild, title(selected, call));
  dot.dataset.state = runs ? call.state : ending(call);
  say(says, runs ? WORDS[call.state] : call.completed ? `completed: ${call.completed}${markedWith(call)}` : call.reason === "left" ? "left by its consumer" : `gave up: ${call.reason}`);
  say(id, selected);
  interrupt.hidden = !runs;
  interrupt.disabled = call.state === "ending";
}

function setFacts(facts, call, detail, runs) {
  const now = detail?.now;
  const shown = runs
    ? [
        ["attempt", `${call.attempt} of ${call.attempts}`],
        ["elapsed", seconds(clock() - call.began)],
        ["output", `≈ ${plural(call.tokens, "token")}`],
        ["input", now?.input_tokens === undefined ? "not told yet" : plural(now.input_tokens, "token")],
        ["cost so far", call.cost === undefined ? "unknown" : `≈ ${money(call.cost)}`],
        ["model", call.model ?? "unknown"],
      ]
    : [
        ["attempts", counted(call.attempts)],
        ["took", seconds(call.seconds)],
        ["output", `${between(call.tokens?.output ?? [], counted)} tokens${call.tokens?.exact ? "" : ", estimated"}`],
        ["input", `${between(call.tokens?.input ?? [], counted)} tokens`],
        ["cost", between(call.cost ?? [], money)],
        ["model", call.model ?? "unknown"],
      ];
  if (call.group !== undefined) shown.push(["group", call.group]);
  for (const [name, value] of Object.entries(call.labels ?? {})) shown.push([`label ${name}`, value]);
  keyed(facts, shown, (name) => make("div", {}, make("dt", { textContent: name }), make("dd")), (node, value, name) => {
    const dd = node.lastChild;
    if (name === "elapsed") {
      dd.id = "elapsed";
      dd.began = call.began;
    }
    say(dd, value);
  });
}

const policyNode = (knob) => make("tr", {}, make("td", { textContent: knob }), make("td"));

function attemptNode(key, { attempt, now }) {
  const number = attempt?.number ?? now.number;
  const header = make("header", {}, make("h3", {}, make("span", { textContent: `Attempt ${number}` }), make("span", { class: "reason" })));
  const node = make("section", { class: "attempt" }, header, make("div"));
  if (attempt) fillEnded(node, attempt);
  return node;
}

function fillEnded(node, attempt) {
  const [header, body] = node.children;
  const reason = header.firstChild.lastChild;
  const line = (text, kind = "small") => text && header.append(make("p", { class: kind, textContent: text }));
  if (attempt.ended) {
    reason.textContent = attempt.ended.reason;
    line(attempt.ended.message, "message");
    const where = attempt.ended.where ?? {};
    const place = [
      where.offset !== undefined && (where.offset === "eof" ? "found at the end" : `dead byte ${counted(where.offset)}`),
      where.pointer && `at ${where.pointer}`,
      where.keyword && !attempt.ended.reason.endsWith(where.keyword) && `keyword ${where.keyword}`,
    ].filter(Boolean);
    line(place.join(" · "));
  } else {
    reason.classList.add("good");
    reason.textContent = attempt.completed ? `completed: ${attempt.completed}` : "over";
    line(attempt.stop_reason && `stop reason ${attempt.stop_reason}`);
  }
  const { head, first_token: first, end } = attempt.times;
  const times = [head !== undefined && `head after ${seconds(head)}`, first !== undefined && `first token after ${seconds(first)}`, `over after ${seconds(end)}`];
  const spent = `${between(attempt.tokens.output, counted)} output tokens${attempt.tokens.exact ? "" : ", estimated"}`;
  line([...times, spent, between(attempt.cost, money), attempt.saved !== undefined && `≈ ${counted(attempt.saved)} tokens saved`].filter(Boolean).join(" · "));
  if (attempt.patch) line(`asked with ${Object.entries(attempt.patch).map(([name, value]) => `${name}: ${value}`).join(", ")}`);
  if (attempt.hint) line(`asked with the hint: ${attempt.hint}`);
  if (attempt.decision) line(`then: ${attempt.decision.action.replace("_", " ")}${attempt.decision.wait ? ` after ${seconds(attempt.decision.wait)}` : ""} (${attempt.decision.why})`);
  for (const mark of attempt.marked ?? []) line(`marked: ${mark.reason}: ${mark.message}`, "message");
  for (const seen of attempt.observed) line(`observed, not acted on: ${seen.reason}: ${seen.message}`);
  for (const block of attempt.blocks) {
    const part = blockNode(block);
    part.classList.add("ended");
    fillText(part.pre, block);
    body.append(part);
  }
  if (!attempt.blocks.length) body.append(make("p", { class: "block hint", textContent: "Nothing was said." }));
}

function fillText(pre, { text, mark, omitted, cut }) {
  const parts = [];
  const add = (from, to, name) => {
    const piece = (a, b) => b > a && parts.push(make("span", { class: name, textContent: text.slice(a, b) }));
    if (omitted && from <= cut && cut <= to) {
      piece(from, cut);
      parts.push(make("span", { class: "omitted", textContent: ` … ${plural(omitted, "character")} left out … ` }));
      piece(cut, to);
    } else piece(from, to);
  };
  // Places are told in code points; a script counts in units of 16 bits.
  const at = mark === undefined || mark === null ? null : [...text].slice(0, mark).join("").length;
  if (omitted) cut = [...text].slice(0, cut).join("").length;
  if (at === null) add(0, text.length, "");
  else {
    const dead = String.fromCodePoint(text.codePointAt(at) ?? 0x23);
    const shown = at >= text.length ? "▏" : ({ "\n": "⏎", " ": "␣", "\t": "⇥", "\r": "␍" }[dead] ?? dead);
    add(0, at, "");
    parts.push(make("mark", { class: "dead", title: "The first character after which nothing can repair the answer", textContent: shown }));
    add(at + (at >= text.length ? 0 : dead.length), text.length, "after");
  }
  pre.append(...parts);
  requestAnimationFrame(() => {
    const dead = pre.querySelector("mark.dead");
    if (dead) pre.scrollTop = dead.offsetTop - pre.offsetTop - pre.clientHeight / 2;
  });
}

function blockNode(block) {
  const pre = make("pre");
  let node;
  if (block.kind === "thinking") {
    node = make("details", { class: "block thinking", open: true }, make("summary", { textContent: "Thinking" }), pre);
  } else if (block.kind === "tool_input" || block.kind === "server_tool") {
    const what = block.kind === "server_tool" ? "server tool" : "tool call";
    node = make("div", { class: "block tool" }, make("p", { class: "label" }, what, make("b", { textContent: block.name ?? "" }), make("span", { class: "mono", textContent: block.id ?? "" })), pre);
  } else {
    node = make("div", { class: "block" }, pre);
    if (block.kind === "other") node.prepend(make("p", { class: "label", textContent: block.type }));
  }
  node.pre = pre;
  return node;
}

const MOST_SHOWN = 200_000; // characters of one block that are on the page while it streams

function setAttempt(node, { now, call }) {
  if (!now) return;
  const [header, body] = node.children;
  const reason = header.firstChild.lastChild;
  reason.classList.add("good");
  say(reason, WORDS[call.state]);
  const blocks = textsOf === now.number ? [...texts].sort(([a], [b]) => a - b) : [];
  keyed(body, blocks, (_, block) => blockNode(block), (part, block) => {
    const shown = part.shown ?? 0;
    if (block.text.length > shown) {
      const follows = part.pre.scrollHeight - part.pre.scrollTop - part.pre.clientHeight < 40;
      const node = (part.text ??= part.pre.appendChild(document.createTextNode("")));
      node.appendData(block.text.slice(shown));
      part.shown = block.text.length;
      if (node.length > MOST_SHOWN) node.deleteData(0, node.length - MOST_SHOWN);
      if (follows) part.pre.scrollTop = part.pre.scrollHeight;
    }
    part.pre.classList.toggle("caret", block === blocks.at(-1)?.[1]);
  });
}

// ---- drawing ---------------------------------------------------------------------------------------------------------

let drawing = false;

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawBar();
    drawBudgets();
    drawLists();
    drawDetail();
  });
}

const THEMES = ["system", "light", "dark"];

function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  localStorage.setItem("streamguard.theme", name);
  say($("theme"), `Theme: ${name}`);
}

function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("token")) {
    session.token = given.get("token");
    sessionStorage.setItem("streamguard.token", session.token);
    history.replaceState(null, "", location.pathname); // out of the address bar, and of what is copied from it
  }
  return given.get("call");
}

$("pause").addEventListener("click", () => act(state.paused === undefined ? "pause" : "resume"));
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "system";
  theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});
$("ask-form").addEventListener("submit", enter);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && selected && !$("ask").open) return select(null);
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const rows = [...document.querySelectorAll(".lists .row")];
  const here = rows.indexOf(document.activeElement);
  if (here < 0) return;
  event.preventDefault();
  rows[here + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
});
document.addEventListener("visibilitychange", () => {
  // A page that nobody sees asks for nothing: browsers keep few connections per site.
  if (document.hidden) connection?.abort();
  else connect();
});

theme(THEMES.includes(localStorage.getItem("streamguard.theme")) ? localStorage.getItem("streamguard.theme") : "system");
selected = fromAddress();
connect();
