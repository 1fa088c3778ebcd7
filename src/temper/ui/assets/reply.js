// A completion as it is read: thinking folded, rewards beside it, a program with its failing test.
import { h, link, number } from "./dom.js";

const FAILING = ["input", "expected", "got", "error"];

// [thinking or null, the rest]: what stands before the one </think>, without its tag.
export function parts(reply) {
  const end = reply.indexOf("</think>");
  if (end < 0) return reply.startsWith("<think>") ? [reply.slice(7), ""] : [null, reply];
  return [reply.slice(0, end).replace(/^\s*<think>/, ""), reply.slice(end + 8)];
}

const WORDS = /\s+|[\p{L}\p{N}_]+|[^\s]/gu;
const MOST = 400000; // pairs of words that are held against each other

// [start, end] of each stretch of `text` whose words are not, in their order, words of `like`.
export function departures(text, like) {
  const a = text.match(WORDS) || [], b = like.match(WORDS) || [];
  if (a.length * b.length > MOST) { // too long: all from the first difference on
    let n = 0;
    while (n < a.length && a[n] === b[n]) n++;
    return n < a.length ? [[a.slice(0, n).join("").length, text.length]] : [];
  }
  const best = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1)); // words in common from here on
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--) best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const found = [];
  for (let i = 0, j = 0, at = 0; i < a.length; at += a[i++].length) {
    while (j < b.length && a[i] !== b[j] && best[i][j + 1] >= best[i + 1][j]) j++;
    if (j < b.length && a[i] === b[j]) j++;
    else if (found.length && found.at(-1)[1] === at) found.at(-1)[1] += a[i].length;
    else found.push([at, at + a[i].length]);
  }
  return found;
}

// The part of a reply that begins at `offset`, with its departures marked.
function text(value, offset, marked) {
  const shown = [];
  let at = 0;
  for (const [from, to] of marked) {
    const start = Math.max(at, from - offset), end = Math.min(value.length, to - offset);
    if (end <= start) continue;
    shown.push(value.slice(at, start), h("mark", {}, value.slice(start, end)));
    at = end;
  }
  return [...shown, value.slice(at)];
}

export function body(row, { open = false, like = null } = {}) {
  const reply = String(row.reply ?? "");
  const marked = like === null ? [] : departures(reply, like);
  const [thinking, rest] = parts(reply);
  return h("div.reply", {},
    thinking !== null && thinking.trim()
      ? h("details.thinking", { open: open || !rest.trim() }, h("summary", {}, `thinking, ${number(thinking.length)} characters`),
          h("pre", {}, text(thinking, reply.indexOf(thinking), marked)))
      : null,
    rest.trim() ? h("pre", {}, text(rest, reply.length - rest.length, marked)) : null,
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
