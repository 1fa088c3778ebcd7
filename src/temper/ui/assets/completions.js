// Every completion of a run, a page at a time: filters, search, the spread of each reward, one prompt's group.
import { add, api, debounced, every, failure, fill, h, link, number, query, select } from "./dom.js";
import { group } from "./group.js";
import { histogram } from "./histogram.js";
import { card } from "./reply.js";

const PAGE = 50;
const SPREADS = 9; // histograms at once
const KEYS = ["stage", "step", "task", "language", "prompt", "prompt_id", "verdict", "truncated", "by", "low", "high", "text", "sort", "down"];

export async function show(box, [run], given, go) {
  if (!run) return choose(box);
  if (given.row) return group(box, run, given);
  const state = { ...given };
  const count = h("p.soft", { role: "status" }), list = h("div.list"), pages = h("div.pages"), spread = h("div.spread"), controls = h("div.controls");
  box.append(h("h1", {}, "Completions"), controls, spread, count, pages, list);
  let facets = await api(`/runs/${run}/facets`);
  let start = Number(state.start || 0), asked = 0, total = 0;

  function settle() { // a point of a curve: the kept step nearest to it
    if (state.near === undefined) return;
    const steps = (facets.stages || []).filter((s) => !state.stage || s.stage === state.stage).flatMap((s) => s.steps.map((at) => at.step)).filter((step) => step !== null);
    if (!steps.length) return;
    state.step = String(steps.reduce((a, b) => (Math.abs(b - state.near) < Math.abs(a - state.near) ? b : a)));
    delete state.near;
  }
  const filter = () => Object.fromEntries(KEYS.map((key) => [key, state[key] ?? ""]));
  const set = (changes) => { Object.assign(state, changes); start = 0; refresh(); };

  function drawControls() {
    const stages = facets.stages || [];
    const steps = [...new Set(stages.filter((s) => !state.stage || s.stage === state.stage).flatMap((s) => s.steps.map((at) => at.step)))].filter((s) => s !== null).sort((a, b) => a - b);
    const hasHeldOut = stages.some((s) => s.steps.some((at) => at.step === null));
    const measures = ["total", ...(facets.rewards || []), "tokens", "advantage"];
    const bound = (key, label) => h("label.field.short", {}, h("span", {}, label), h("input", { type: "number", step: "any", value: state[key] ?? "", "aria-label": label,
      oninput: debounced((event) => set({ [key]: event.target.value })) }));
    const search = h("input", { type: "search", value: state.text ?? "", placeholder: "words of the prompt or reply", "aria-label": "Search", oninput: debounced((event) => set({ text: event.target.value })) });
    fill(controls,
      h("label.field.wide", {}, h("span", {}, "search ( / )"), search),
      select("stage", state.stage, [["", "all"], ...stages.map((s) => s.stage)], (value) => { set({ stage: value, step: "" }); drawControls(); }),
      select("step", state.step, [["", "all"], ...(hasHeldOut ? [["-1", "held out"]] : []), ...steps.map(String)], (value) => set({ step: value })),
      select("task", state.task, [["", "all"], ...(facets.tasks || []).filter(Boolean)], (value) => set({ task: value })),
      select("language", state.language, [["", "all"], ...(facets.languages || []).filter(Boolean)], (value) => set({ language: value })),
      select("verdict", state.verdict, [["", "all"], "right", "wrong"], (value) => set({ verdict: value })),
      select("truncated", state.truncated, [["", "all"], "yes", "no"], (value) => set({ truncated: value })),
      select("reward", state.by || "total", measures, (value) => { set({ by: value, low: "", high: "" }); drawControls(); }),
      bound("low", "from"), bound("high", "to"),
      select("sorted by", `${state.sort || ""}${state.down === "yes" ? " down" : ""}`,
        [["", "as drawn"], ["total", "total, lowest"], ["total down", "total, highest"], ["tokens", "shortest"], ["tokens down", "longest"], ["advantage", "advantage, lowest"], ["advantage down", "advantage, highest"]],
        (value) => set({ sort: value.split(" ")[0], down: value.endsWith("down") ? "yes" : "" })),
      h("button", { type: "button", onclick: () => { KEYS.forEach((key) => delete state[key]); set({}); drawControls(); } }, "clear"),
      saved("jsonl", "save as JSONL"), saved("eval", "as .eval"));
  }

  function saved(kind, label) {
    const to = () => `/api/runs/${run}/export` + query({ ...filter(), as: kind });
    return h("a.button", { href: to(), download: `completions.${kind}`, title: "what fits, the first 10,000", onclick: (event) => { event.currentTarget.href = to(); } }, label);
  }

  function drawPages() {
    const last = Math.max(0, Math.ceil(total / PAGE) - 1), page = Math.floor(start / PAGE);
    const to = (text, n, off) => h("button", { type: "button", disabled: off, onclick: () => turn(n) }, text);
    fill(pages, to("‹ before", page - 1, page <= 0), h("span", {}, ` page ${number(page + 1)} of ${number(last + 1)} `), to("next ›", page + 1, page >= last), h("small.hint", {}, "keys: / search, j and k from one to the next, Enter its group, ← → pages"));
  }

  function turn(page) {
    start = Math.max(0, page) * PAGE;
    refresh();
    scrollTo(0, 0);
  }

  async function refresh() {
    const turnOf = ++asked;
    go("completions", [run], { ...filter(), start: start || "" }, true);
    try {
      const found = await api(`/runs/${run}/completions`, { ...filter(), start });
      if (turnOf !== asked) return;
      total = found.total;
      say(found);
      fill(list, found.rows.map((row) => card(row, run, { tabindex: 0, "data-row": row.id })));
      drawPages();
      await drawSpread(turnOf);
    } catch (error) {
      if (turnOf === asked) fill(list, failure(error));
    }
  }

  async function drawSpread(turnOf) { // the chosen one first, the others after it
    const chosen = state.by || "total", names = [...new Set([chosen, "total", ...(facets.rewards || []), "tokens"])].slice(0, SPREADS);
    let first = true;
    for (const name of names) {
      const of = await api(`/runs/${run}/histogram`, { ...filter(), of: name });
      if (turnOf !== asked) return;
      if (first) fill(spread);
      first = false;
      spread.append(histogram(of, state, chosen, (changes) => { set(changes); drawControls(); }));
    }
  }

  function say(found) {
    const { done, of, rows, problem } = found.indexed;
    fill(count, `${number(found.total)} completions that fit`, done < of || found.empty ? `; the index is being made: ${number(done)} of ${number(of)} files, ${number(rows)} completions so far` : "", problem ? `; ${problem}` : "");
  }

  const keys = (event) => {
    if (/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
      if (event.key === "Escape") document.activeElement.blur();
      return;
    }
    const cards = [...list.children], at = cards.indexOf(document.activeElement.closest(".completion"));
    if (event.key === "j" || event.key === "k") (cards[event.key === "j" ? at + 1 : Math.max(0, at - 1)] || cards.at(-1))?.focus();
    else if (event.key === "Enter" && at >= 0) location.hash = link("completions", [run], { row: cards[at].dataset.row });
    else if (event.key === "ArrowRight" && start + PAGE < total) turn(start / PAGE + 1);
    else if (event.key === "ArrowLeft" && start > 0) turn(start / PAGE - 1);
    else if (event.key === "/") controls.querySelector("input[type=search]").focus();
    else return;
    event.preventDefault();
  };
  addEventListener("keydown", keys);
  settle();
  drawControls();
  await refresh();
  let seen = facets.indexed;
  const stop = every(3, async () => {
    const fresh = await api(`/runs/${run}/facets`);
    if (JSON.stringify(fresh.indexed) === JSON.stringify(seen)) return;
    const wasEmpty = !(facets.stages || []).length;
    [facets, seen] = [fresh, fresh.indexed];
    settle();
    if (!controls.contains(document.activeElement)) drawControls();
    if (wasEmpty || start === 0) await refresh();
  });
  return () => { stop(); removeEventListener("keydown", keys); };
}

async function choose(box) {
  const runs = await api("/runs");
  add(box, [h("h1", {}, "Completions"), runs.map((run) => h("p", {}, h("a", { href: link("completions", [run.id]) }, run.name)))]);
}
