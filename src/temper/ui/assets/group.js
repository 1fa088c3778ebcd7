// One prompt and its replies, beside those of another step, stage or run.
import { add, api, failure, fill, h, link, number, select } from "./dom.js";
import { body, headline, isRight, rewards, verdict } from "./reply.js";

// All completions of one prompt at one step beside one another, and where else the prompt was sampled.
export async function group(box, run, given) {
  const found = await api(`/runs/${run}/group/${encodeURIComponent(given.row)}`);
  const rows = found.rows;
  if (!rows.length) return add(box, [h("p.soft", {}, "This completion is not there any more."), h("a", { href: link("completions", [run]) }, "all completions")]) && undefined;
  const first = rows[0], right = rows.filter(isRight).length;
  const other = given.other || run; // the run of what stands beside it
  const [against, runs] = await Promise.all([given.with ? api(`/runs/${other}/group/${encodeURIComponent(given.with)}`).then((one) => one.rows) : [], api("/runs")]);
  const nameOf = (id) => (runs.find((one) => one.id === id) || { name: "a run that is gone" }).name;
  box.append(h("h1", {}, "A prompt and its replies"),
    h("p.soft", {}, h("a", { href: link("completions", [run], { stage: first.stage, step: first.step ?? -1 }) }, "‹ all of this step"), " · ",
      h("a", { href: link("completions", [run], { prompt: first.prompt_number }) }, "all of this prompt")),
    h("pre.prompt", {}, String(first.prompt ?? "")), first.gold === null || first.gold === undefined ? "" : h("p", {}, "gold ", h("code", {}, String(first.gold))),
    side(rows, `${first.stage}, ${first.step === null ? "held out" : `step ${first.step}`}: ${right} of ${rows.length} right`));
  if (against.length) box.append(side(against, `${other === run ? "" : nameOf(other) + ", "}${against[0].stage}, ${against[0].step === null ? "held out" : `step ${against[0].step}`}: ${against.filter(isRight).length} of ${against.length} right`));
  if (found.elsewhere.length > 1) box.append(h("h2", {}, "The same prompt elsewhere"), places(found.elsewhere, run, run, given.row));
  const others = runs.filter((one) => one.id !== run);
  if (!others.length) return;
  const there = h("div"), chooser = h("div.controls", {}, select("in another run", "", [["", "choose"], ...others.map((one) => [one.id, one.name])], (id) => id && look(id)));
  box.append(h("h2", {}, "The same prompt in another run"), chooser, there);
  if (given.other) await look(given.other);

  async function look(id) {
    try {
      const of = await api(`/runs/${id}/prompt`, { of: run, row: given.row });
      const missing = of.indexed.done < of.indexed.of ? "The completions of that run are being indexed: look again in a moment." : `${nameOf(id)} has not sampled this prompt.`;
      fill(there, of.elsewhere.length ? places(of.elsewhere, run, id, given.row) : h("p.soft", {}, missing));
    } catch (error) {
      fill(there, failure(error));
    }
  }
}

function places(rows, run, other, row) {
  return h("div.scroll", {}, h("table", {}, h("thead", {}, h("tr", {}, ["stage", "step", "replies", "mean total", ""].map((t) => h("th", {}, t)))),
    h("tbody", {}, rows.map((at) => h("tr", {}, h("th", {}, at.stage), h("td", {}, at.step ?? "held out"), h("td", {}, at.count), h("td", {}, number(at.mean, 3)),
      h("td", {}, h("a", { href: link("completions", [other], { row: at.id }) }, "look"), " ", h("a", { href: link("completions", [run], { row, with: at.id, other: other === run ? "" : other }) }, "beside this")))))));
}

function side(rows, title) {
  const like = String(rows[0].reply ?? "");
  return h("section", {}, h("h2", {}, title), h("p.soft", {}, "Marked are words that the first reply does not have in their place."),
    h("div.group", {}, rows.map((row, i) => h(`article.completion.${verdict(row)}`, { "data-row": row.id },
      h("p.soft", {}, headline(row)), rewards(row), body(row, { open: true, like: i ? like : null })))));
}
