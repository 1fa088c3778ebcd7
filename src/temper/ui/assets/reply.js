// A completion as it is read: thinking folded, rewards beside it, a program with its failing test.
import { h, link, number } from "./dom.js";

const FAILING = ["input", "expected", "got", "error"];

// [thinking or null, the rest]: what stands before the one </think>, without its tag.
export function parts(reply) {
  const end = reply.indexOf("</think>");
  if (end < 0) return reply.startsWith("<think>") ? [reply.slice(7), ""] : [null, reply];
  return [reply.slice(0, end).replace(/^\s*<think>/, ""), reply.slice(end + 8)];
}

// How many first characters two texts have in common, cut at a word.
export function common(a, b) {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n++;
  if (n === a.length && n === b.length) return n;
  while (n > 0 && /\w/.test(a[n - 1] || "") && /\w/.test(a[n] || b[n] || "")) n--;
  return n;
}

const text = (value, shared) => (shared !== null && value ? [h("span.same", {}, value.slice(0, shared)), h("mark", {}, value.slice(shared))] : value);

export function body(row, { open = false, like = null } = {}) {
  const reply = String(row.reply ?? "");
  const shared = like === null || like === reply ? null : common(reply, like); // null: nothing is marked
  const of = (offset, length) => (shared === null ? null : Math.max(0, Math.min(length, shared - offset)));
  const [thinking, rest] = parts(reply);
  const offset = reply.length - rest.length;
  return h("div.reply", {},
    thinking !== null && thinking.trim()
      ? h("details.thinking", { open: open || !rest.trim() }, h("summary", {}, `thinking, ${number(thinking.length)} characters`),
          h("pre", {}, text(thinking, of(reply.indexOf(thinking), thinking.length))))
      : null,
    rest.trim() ? h("pre", {}, text(rest, of(offset, rest.length))) : null,
    program(row.code));
}

function program(code) {
  if (!code || typeof code !== "object") return null;
  const failing = code.failing && typeof code.failing === "object" ? code.failing : {};
  return h("div.program", {}, h("p", {}, h("b", {}, String(code.verdict)), failing.test !== undefined ? ` (test ${failing.test})` : ""),
    code.program ? h("pre", {}, code.program) : null,
    FAILING.filter((name) => failing[name]).map((name) => [h("small", {}, name), h("pre", {}, failing[name])]));
}

export function rewards(row) {
  const values = Object.entries(row.rewards || {});
  const all = [["total", row.total], ...values, ...(row.advantage === undefined || row.advantage === null ? [] : [["advantage", row.advantage]])];
  return h("p.rewards", {}, all.map(([name, value]) => h("span", {}, h("small", {}, name), " ", h("b", {}, number(value, 3)))));
}

export const isRight = (row) => verdict(row) === "right";

export function verdict(row) {
  const given = row.rewards || {}, value = given.accuracy ?? given.code;
  return value === undefined || value === null ? "open" : value === 1 ? "right" : "wrong";
}

export function headline(row) {
  return [row.step === null || row.step === undefined ? "held out" : `step ${row.step}`, row.prompt_id, row.sample === undefined ? "" : `sample ${row.sample}`,
    row.tokens === undefined ? "" : `${row.tokens} tokens`, row.finish_reason === "length" ? "truncated" : ""].filter(Boolean).join(" · ");
}

export function card(row, run, attributes = {}) {
  return h(`article.completion.${verdict(row)}`, attributes,
    h("p.soft", {}, h("b", {}, row.stage), " · ", headline(row), " · ", h("a", { href: link("completions", [run], { row: row.id }) }, "group")),
    h("pre.prompt", {}, String(row.prompt ?? "")),
    row.gold === null || row.gold === undefined ? null : h("p.soft", {}, "gold ", h("code", {}, String(row.gold))),
    body(row), rewards(row));
}
