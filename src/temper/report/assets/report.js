// Filters over the completions. The page is complete without it.
(function () {
  const section = document.getElementById("completions");
  if (!section) return;
  const cards = Array.from(section.querySelectorAll("article.completion"));
  const bar = document.getElementById("filters");
  const values = (key) => Array.from(new Set(cards.map((card) => card.dataset[key])));
  const chosen = { stage: "", task: "", verdict: "" };

  function select(label, key, options) {
    const wrap = document.createElement("label");
    wrap.textContent = label + " ";
    const box = document.createElement("select");
    for (const [value, text] of options) box.add(new Option(text, value));
    box.addEventListener("change", () => { chosen[key] = box.value; apply(); });
    wrap.append(box);
    bar.append(wrap);
  }

  function fits(card) {
    const data = card.dataset;
    if (chosen.stage && data.stage !== chosen.stage) return false;
    if (chosen.task && data.task !== chosen.task) return false;
    if (chosen.verdict === "right") return data.right === "1";
    if (chosen.verdict === "wrong") return data.right === "0";
    return chosen.verdict !== "cut" || data.cut === "1";
  }

  function apply() {
    const active = Object.values(chosen).some(Boolean);
    let shown = 0;
    for (const card of cards) {
      card.hidden = !fits(card);
      shown += card.hidden ? 0 : 1;
    }
    for (const fold of section.querySelectorAll("details")) fold.open = active;
    for (const task of section.querySelectorAll(".task")) task.hidden = !task.querySelector("article:not([hidden])");
    for (const title of section.querySelectorAll("h3")) {
      let next = title.nextElementSibling;
      let any = false;
      for (; next && next.tagName !== "H3"; next = next.nextElementSibling) any = any || !next.hidden;
      title.hidden = !any;
    }
    count.textContent = shown + " of " + cards.length;
  }

  const all = (key) => [["", "all"]].concat(values(key).map((value) => [value, value]));
  select("stage", "stage", all("stage"));
  select("task", "task", all("task"));
  select("verdict", "verdict", [["", "all"], ["right", "right"], ["wrong", "wrong"], ["cut", "truncated"]]);
  const count = document.createElement("span");
  bar.append(count);
  bar.hidden = false;
  apply();
})();
