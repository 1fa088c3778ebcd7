// Talk to models, one or two side by side on the same questions. Nothing said is kept anywhere but here.
import { api, failure, fill, h, select } from "./dom.js";

export async function show(box, [run], given, go) {
  const models = (await api("/models")).map((one) => ({ ...one, key: `${one.run}/${one.stage}`, label: one.stage === "model" ? one.name : `${one.name} · ${one.stage}` }));
  const label = (key) => models.find((one) => one.key === key)?.label || "a model that is gone";
  if (!models.length) return void box.append(h("h1", {}, "Chat"), h("p.soft", {}, "No run here has finished a model yet."));
  const own = models.filter((one) => !run || one.run === run);
  const state = { a: (own.at(-1) || models.at(-1)).key, b: "", temperature: "0.6", max_tokens: "512", ...given };
  const sides = { a: [], b: [] }; // what was said to each: { role, content, thinking }
  const talk = h("div.talk"), controls = h("div.controls");
  let stop = null;
  const set = (key) => (value) => { state[key] = value; go("chat", [], state, true); if (key === "a" || key === "b") clear(); };
  const system = h("input", { type: "text", placeholder: "none", "aria-label": "system prompt" });
  const question = h("textarea", { rows: 2, placeholder: "A question; Enter asks, Shift+Enter breaks the line", "aria-label": "question", onkeydown: (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
  } });
  const send = h("button", { type: "button", onclick: () => (stop ? stop.abort() : ask()) }, "ask");
  fill(controls, select("model", state.a, models.map((one) => [one.key, one.label]), set("a")), select("beside it", state.b, [["", "no other"], ...models.map((one) => [one.key, one.label])], set("b")),
    h("label.field.short", {}, h("span", {}, "temperature"), h("input", { type: "number", min: 0, max: 10, step: 0.1, value: state.temperature, onchange: (e) => set("temperature")(e.target.value) })),
    h("label.field.short", {}, h("span", {}, "tokens"), h("input", { type: "number", min: 1, value: state.max_tokens, onchange: (e) => set("max_tokens")(e.target.value) })),
    h("label.field.wide", {}, h("span", {}, "system prompt"), system), h("button", { type: "button", onclick: () => clear() }, "new"),
    h("button", { type: "button", onclick: save }, "save"));
  box.append(h("h1", {}, "Chat"), controls, talk, h("div.ask", {}, question, send));
  clear();

  function clear() {
    stop?.abort();
    sides.a.length = sides.b.length = 0;
    fill(talk, run && !own.length ? h("p.soft", {}, "This run has finished no model yet: here is another's.") : null, h("p.soft", {}, `with ${label(state.a)}${state.b ? ` and ${label(state.b)}` : ""}; the first question opens ${state.b ? "them" : "it"}`));
  }

  function save() {
    const text = JSON.stringify({ models: [state.a, state.b].filter(Boolean).map(label), system: system.value, said: sides }, null, 1);
    const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    h("a", { href: url, download: "conversation.json" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  async function ask() {
    const text = question.value.trim();
    if (!text || stop) return;
    question.value = "";
    stop = new AbortController();
    send.textContent = "stop";
    const shown = ["a", "b"].filter((side) => state[side]);
    const row = h("div.turn", {}, h("p.asked", {}, text));
    const places = shown.map(() => h("div.answer", { "aria-live": "polite" }));
    row.append(h("div.sides", {}, places));
    talk.append(row);
    row.scrollIntoView({ block: "nearest" });
    await Promise.all(shown.map((side, i) => reply(side, text, places[i]).catch((error) => places[i].append(failure(error)))));
    stop = null;
    send.textContent = "ask";
    question.focus();
  }

  async function reply(side, text, place) {
    const thinking = h("pre"), fold = h("details.thinking", { open: true, hidden: true }, h("summary", {}, "thinking"), thinking), content = h("pre");
    fill(place, state.b ? h("small", {}, label(state[side])) : null, fold, content);
    const said = { role: "assistant", content: "", thinking: "" };
    const before = sides[side].map(({ role, content }) => ({ role, content }));
    const messages = [...(system.value ? [{ role: "system", content: system.value }] : []), ...before, { role: "user", content: text }];
    try {
      const response = await fetch(`/api/runs/${state[side].split("/", 1)[0]}/chat/${encodeURIComponent(state[side].slice(state[side].indexOf("/") + 1))}`, { method: "POST", signal: stop.signal, headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ messages, stream: true, temperature: Number(state.temperature), max_tokens: Number(state.max_tokens) }) });
      if (!response.ok) throw new Error((await response.json()).error.message);
      for await (const chunk of events(response.body)) {
        if (chunk.error) throw new Error(chunk.error.message);
        const { delta = {}, finish_reason: reason } = chunk.choices[0] || {};
        if (delta.reasoning_content) { fold.hidden = false; said.thinking += delta.reasoning_content; thinking.append(delta.reasoning_content); }
        if (delta.content) { said.content += delta.content; content.append(delta.content); fold.open = false; }
        if (reason === "length") place.append(h("small", {}, "cut off"));
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
      place.append(h("small", {}, "stopped"));
    }
    sides[side].push({ role: "user", content: text }, said);
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (waiting + value).split("\n\n");
    waiting = lines.pop();
    for (const line of lines) if (line.startsWith("data: {")) yield JSON.parse(line.slice(6));
  }
}
