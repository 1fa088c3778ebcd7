// Search and filters over the completions, and a look at what has come since. The page is complete without it.
(function () {
  const section = document.getElementById("completions");
  const chosen = Object.fromEntries(new URLSearchParams(location.hash.startsWith("#?") ? location.hash.slice(2) : ""));
  const busy = () => (document.activeElement && document.activeElement.tagName === "INPUT") || String(getSelection());
  if (document.body.dataset.again)
    setInterval(() => { if (!busy() && !document.hidden) location.reload(); }, 1000 * Number(document.body.dataset.again));
  if (!section) return;
  const cards = Array.from(section.querySelectorAll("article.completion"));
  const bar = document.getElementById("filters"), blocks = document.getElementById("blocks");
  const found = document.createElement("div"), count = document.createElement("span"), more = document.createElement("button");
  const PAGE = 50;
  let limit = PAGE, boxes = {};
  const texts = new Map();
  const text = (card) => texts.get(card) || texts.set(card, card.textContent.toLowerCase()).get(card);

  function field(label, key, box, wide) {
    const wrap = document.createElement("label");
    wrap.textContent = label + " ";
    if (wide) wrap.className = "search";
    box.value = chosen[key] || "";
    box.addEventListener("input", () => { chosen[key] = box.value; limit = PAGE; if (key === "stage") steps(); apply(); });
    wrap.append(box);
    bar.append(wrap);
    boxes[key] = box;
  }

  function select(label, key, options) {
    const box = document.createElement("select");
    for (const [value, name] of options) box.add(new Option(name, value));
    field(label, key, box);
  }

  const values = (key) => Array.from(new Set(cards.map((card) => card.dataset[key])));
  const all = (key) => [["", "all"]].concat(values(key).map((value) => [value, value]));

  function steps() { // of the stage that is chosen
    const mine = cards.filter((card) => !chosen.stage || card.dataset.stage === chosen.stage);
    const kept = Array.from(new Set(mine.map((card) => card.dataset.step).filter(Boolean).map(Number))).sort((a, b) => a - b);
    const box = boxes.step;
    box.replaceChildren(new Option("all", ""), new Option("held out", "-"), ...kept.map((step) => new Option(step, step)));
    box.value = chosen.step || "";
    if (box.selectedIndex < 0) { box.value = ""; chosen.step = ""; }
  }

  function fits(card, words) {
    const data = card.dataset;
    if (chosen.stage && data.stage !== chosen.stage) return false;
    if (chosen.task && data.task !== chosen.task) return false;
    if (chosen.step && (chosen.step === "-" ? data.step !== "" : data.step !== chosen.step)) return false;
    if (chosen.verdict === "right" && data.right !== "1") return false;
    if (chosen.verdict === "wrong" && data.right !== "0") return false;
    if (chosen.verdict === "cut" && data.cut !== "1") return false;
    return words.every((word) => text(card).includes(word));
  }

  function named(card) { // a copy that says where it comes from
    const copy = card.cloneNode(true), from = document.createElement("span");
    from.textContent = card.dataset.stage + (card.dataset.step ? ", step " + card.dataset.step : "");
    copy.querySelector(".ask").prepend(from);
    return copy;
  }

  function apply() {
    const active = Object.values(chosen).some(Boolean);
    const words = (chosen.search || "").toLowerCase().split(/\s+/).filter(Boolean);
    const fit = active ? cards.filter((card) => fits(card, words)) : cards;
    blocks.hidden = active;
    found.replaceChildren(...(active ? fit.slice(0, limit).map(named) : []));
    more.hidden = !active || fit.length <= limit;
    more.textContent = (fit.length - limit) + " more";
    count.textContent = fit.length + " of " + cards.length;
    const kept = Object.entries(chosen).filter(([, value]) => value);
    if (kept.length || location.hash.startsWith("#?")) try { history.replaceState(null, "", kept.length ? "#?" + new URLSearchParams(kept) : "#"); } catch (error) { /* a file's address cannot be changed everywhere */ }
  }

  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "words of a prompt or reply";
  field("search", "search", search, true);
  select("stage", "stage", all("stage"));
  select("step", "step", [["", "all"]]);
  select("task", "task", all("task"));
  select("verdict", "verdict", [["", "all"], ["right", "right"], ["wrong", "wrong"], ["cut", "truncated"]]);
  bar.append(count);
  more.type = "button";
  more.addEventListener("click", () => { limit += PAGE; apply(); });
  section.append(found, more);
  steps();
  bar.hidden = false;
  apply();
})();
