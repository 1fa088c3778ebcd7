// Every completion of a run, a page at a time: filters, search, the spread of each reward, one prompt's group.
import { add, api, debounced, every, failure, fill, h, link, number, query, select, svg } from "./dom.js";
import { body, card, headline, isRight, rewards } from "./reply.js";

const PAGE = 50;
const KEYS = ["stage", "step", "task", "prompt", "prompt_id", "verdict", "truncated", "by", "low", "high", "text", "sort", "down"];

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
      select("verdict", state.verdict, [["", "all"], "right", "wrong"], (value) => set({ verdict: value })),
      select("truncated", state.truncated, [["", "all"], "yes", "no"], (value) => set({ truncated: value })),
      select("reward", state.by || "total", measures, (value) => { set({ by: value, low: "", high: "" }); drawControls(); }),
      bound("low", "from"), bound("high", "to"),
      select("sorted by", `${state.sort || ""}${state.down === "yes" ? " down" : ""}`,
        [["", "as drawn"], ["total", "total, lowest"], ["total down", "total, highest"], ["tokens", "shortest"], ["tokens down", "longest"], ["advantage", "advantage, lowest"], ["advantage down", "advantage, highest"]],
        (value) => set({ sort: value.split(" ")[0], down: value.endsWith("down") ? "yes" : "" })),
      h("button", { type: "button", onclick: () => { KEYS.forEach((key) => delete state[key]); set({}); drawControls(); } }, "clear"),
      h("a.button", { href: `/api/runs/${run}/export`, download: "completions.jsonl", onclick: (event) => { event.currentTarget.href = `/api/runs/${run}/export` + query(filter()); } }, "export"));
  }

  function drawPages() {
    const last = Math.max(0, Math.ceil(total / PAGE) - 1), page = Math.floor(start / PAGE);
    const to = (text, n, off) => h("button", { type: "button", disabled: off, onclick: () => turn(n) }, text);
    fill(pages, to("‹ before", page - 1, page <= 0), h("span", {}, ` page ${number(page + 1)} of ${number(last + 1)} `), to("next ›", page + 1, page >= last));
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
      const of = await api(`/runs/${run}/histogram`, { ...filter(), of: state.by || "total" });
      if (turnOf === asked) fill(spread, histogram(of, state, set));
    } catch (error) {
      if (turnOf === asked) fill(list, failure(error));
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

// Bars of one reward's values; a click keeps what lies in the bar.
function histogram(found, state, set) {
  if (!found.bins || !found.bins.length) return h("span");
  const most = Math.max(1, ...found.bins.map((bin) => bin[2])), width = 300 / found.bins.length;
  const root = svg("svg", { viewBox: "0 0 300 56", class: "histogram", role: "img", "aria-label": `how ${found.name} is spread` });
  found.bins.forEach(([low, high, n], i) => {
    const tall = n ? Math.max(1.5, (40 * n) / most) : 0;
    const label = `${number(low, 3)} to ${number(high, 3)}: ${number(n)}`;
    root.append(svg("rect", { x: i * width + 0.5, y: 42 - tall, width: width - 1, height: tall, class: "bin" }),
      svg("rect", { x: i * width, y: 0, width, height: 42, class: "hit", onclick: () => set({ low: String(low), high: String(high) }) }, svg("title", {}, label)));
  });
  root.append(svg("text", { x: 0, y: 54, class: "tick" }, number(found.bins[0][0], 3)), svg("text", { x: 300, y: 54, class: "tick end" }, number(found.bins.at(-1)[1], 3)));
  const bounded = (state.low ?? "") !== "" || (state.high ?? "") !== "";
  return h("div", {}, h("small", {}, `${found.name}, of those that fit `, bounded ? h("button", { type: "button", onclick: () => set({ low: "", high: "" }) }, "all values") : ""), root);
}

// All completions of one prompt at one step beside one another, and where else the prompt was sampled.
async function group(box, run, given) {
  const found = await api(`/runs/${run}/group/${encodeURIComponent(given.row)}`);
  const rows = found.rows;
  if (!rows.length) return add(box, [h("p.soft", {}, "This completion is not there any more."), h("a", { href: link("completions", [run]) }, "all completions")]) && undefined;
  const first = rows[0], right = rows.filter(isRight).length;
  const against = given.with ? (await api(`/runs/${run}/group/${encodeURIComponent(given.with)}`)).rows : [];
  box.append(h("h1", {}, "A prompt and its replies"),
    h("p.soft", {}, h("a", { href: link("completions", [run], { stage: first.stage, step: first.step ?? -1 }) }, "‹ all of this step"), " · ",
      h("a", { href: link("completions", [run], { prompt: first.prompt_number }) }, "all of this prompt")),
    h("pre.prompt", {}, String(first.prompt ?? "")), first.gold === null || first.gold === undefined ? "" : h("p", {}, "gold ", h("code", {}, String(first.gold))),
    side(rows, `${first.stage}, ${first.step === null ? "held out" : `step ${first.step}`}: ${right} of ${rows.length} right`));
  if (against.length) box.append(side(against, `${against[0].stage}, ${against[0].step === null ? "held out" : `step ${against[0].step}`}: ${against.filter(isRight).length} of ${against.length} right`));
  if (found.elsewhere.length > 1)
    box.append(h("h2", {}, "The same prompt elsewhere"), h("div.scroll", {}, h("table", {}, h("thead", {}, h("tr", {}, ["stage", "step", "replies", "mean total", ""].map((t) => h("th", {}, t)))),
      h("tbody", {}, found.elsewhere.map((at) => h("tr", {}, h("th", {}, at.stage), h("td", {}, at.step ?? "held out"), h("td", {}, at.count), h("td", {}, number(at.mean, 3)),
        h("td", {}, h("a", { href: link("completions", [run], { row: at.id }) }, "look"), " ", h("a", { href: link("completions", [run], { row: given.row, with: at.id }) }, "beside this"))))))));
}

function side(rows, title) {
  const like = String(rows[0].reply ?? "");
  return h("section", {}, h("h2", {}, title), h("p.soft", {}, "Marked is what departs from the first reply."),
    h("div.group", {}, rows.map((row, i) => h(isRight(row) ? "article.completion.right" : "article.completion.wrong", { "data-row": row.id },
      h("p.soft", {}, headline(row)), rewards(row), body(row, { open: true, like: i ? like : null })))));
}
