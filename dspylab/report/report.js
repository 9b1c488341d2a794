"use strict";
/* The page of `dspylab report`. Whatever comes from data is shown with textContent, never as HTML. */
(() => {
  const ROW = 30; // height of a line of the list in pixels, as in report.css
  const SPARE = 12; // lines drawn above and below what is seen
  const HAS_ROW = 1, FAILED = 2, SLOW = 4; // bits of `state`, as explorer.py writes them
  const LEVELS = "▁▃▅▆█";
  const CALL_PARTS_KEPT = 4;

  const byId = (id) => document.getElementById(id);

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    const given = children.filter((child) => child !== null && child !== undefined);
    element.append(...given.map((child) => (typeof child === "string" ? visible(child) : child)));
    return element;
  }

  /* Control and direction characters, which could hide or reorder text, or act where it is pasted. */
  const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;
  const visible = (text) => text.replace(INVISIBLE, (character) => {
    const code = character.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`;
  });

  function button(text, onClick) {
    const element = make("button", "", text);
    element.type = "button";
    element.addEventListener("click", onClick);
    return element;
  }

  /* ---- data ---------------------------------------------------------------------------------- */

  async function unpack(name) {
    const binary = atob(byId(`data-${name}`).textContent);
    const bytes = new Uint8Array(binary.length);
    for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  const loading = new Map();
  function load(name, kept = Infinity) {
    if (!loading.has(name)) {
      const kind = name.split("-")[0];
      const same = [...loading.keys()].filter((other) => other.startsWith(`${kind}-`));
      if (same.length >= kept) loading.delete(same[0]);
      loading.set(name, unpack(name));
    }
    return loading.get(name);
  }

  const part = (position) => Math.floor(position / index.part_size);
  const inPart = (position) => position % index.part_size;
  const answersOf = async (position) => (await load(`answers-${part(position)}`))[inPart(position)];

  async function callsOf(position, run) {
    const found = await load(`calls-${part(position)}`, CALL_PARTS_KEPT);
    const shared = await load("shared");
    const text = (reference) => (reference < 0 ? shared[-reference - 1] : found.texts[reference]);
    return { calls: found.examples[inPart(position)][run], text };
  }

  /* ---- state --------------------------------------------------------------------------------- */

  let index = null; // what explorer.py calls the index
  let shownRuns = []; // positions in index.runs
  let filter = "all";
  let found = null; // per example whether the search finds it; null without a search
  let order = []; // positions of the examples in the list, in its order
  let selected = -1; // position of the example that is shown
  let scoreRange = [0, 1];

  const count = () => index.indexes.length;
  const right = (score) => score !== null && score >= 1;

  const FILTERS = {
    all: { text: "all", has: () => true },
    failed: { text: "failed", has: (at) => shownRuns.some((run) => index.runs[run].state[at] & FAILED) },
    flipped: { text: "flipped", title: "the runs shown differ in their score", has: differ },
    slow: {
      text: "slow",
      title: "among the slowest 2% of the same run's examples",
      has: (at) => shownRuns.some((run) => index.runs[run].state[at] & SLOW),
    },
    wrong: { text: "all wrong", passFail: true, has: (at) => scores(at).length > 0 && !scores(at).some(right) },
    right: { text: "all right", passFail: true, has: (at) => scores(at).length > 0 && scores(at).every(right) },
  };

  function scores(at) {
    return shownRuns.map((run) => index.runs[run].score[at]).filter((score) => score !== null);
  }

  function differ(at) {
    const values = scores(at);
    return values.some((value) => value !== values[0]);
  }

  const ORDERS = {
    dataset: null,
    difference: (at) => (scores(at).length ? Math.min(...scores(at)) - Math.max(...scores(at)) : 1),
    worst: (at) => {
      const values = scores(at);
      return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : -Infinity;
    },
    slowest: (at) => -Math.max(...shownRuns.map((run) => index.runs[run].seconds[at])),
  };

  function refresh() {
    const all = Array.from({ length: count() }, (_, at) => at);
    const searched = found === null ? all : all.filter((at) => found[at]);
    for (const [name, entry] of Object.entries(FILTERS)) {
      if (!entry.button) continue;
      entry.number.textContent = searched.filter(entry.has).length.toLocaleString("en");
      entry.button.setAttribute("aria-pressed", String(name === filter));
    }
    order = searched.filter(FILTERS[filter].has);
    const rank = ORDERS[byId("order").value];
    if (rank) {
      const ranks = new Map(order.map((at) => [at, rank(at)]));
      order.sort((one, other) => ranks.get(one) - ranks.get(other) || one - other);
    }
    byId("explorer").classList.toggle("many", shownRuns.length > 10);
    byId("sizer").style.height = `${order.length * ROW}px`;
    byId("shown").textContent = `${order.length.toLocaleString("en")} of ${count().toLocaleString("en")} examples`;
    drawHead();
    draw();
  }

  /* ---- the list ------------------------------------------------------------------------------ */

  function drawHead() {
    const numbers = shownRuns.map((run) => {
      const cell = make("span", "cell", String(index.runs[run].rank));
      cell.title = index.runs[run].key;
      return cell;
    });
    byId("list-head").replaceChildren(
      make("span", "number", "#"), make("span", "text", "inputs"), make("span", "cells", ...numbers));
    byId("legend").replaceChildren(...shownRuns.map((run) =>
      make("span", "", make("b", "", String(index.runs[run].rank)), ` ${index.runs[run].key}`)));
  }

  function draw() {
    const list = byId("list");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
    const last = Math.min(order.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
    const lines = [];
    for (let line = first; line < last; line++) lines.push(drawLine(line));
    byId("sizer").replaceChildren(...lines);
    const line = order.indexOf(selected);
    if (line >= first && line < last) list.setAttribute("aria-activedescendant", `line-${line}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function drawLine(line) {
    const at = order[line];
    const element = make("div", "line",
      make("span", "number", String(index.indexes[at] + 1)),
      make("span", "text", index.texts[at]),
      make("span", "cells", ...shownRuns.map((run) => drawCell(index.runs[run], at))));
    element.id = `line-${line}`;
    element.style.transform = `translateY(${line * ROW}px)`;
    element.setAttribute("role", "option");
    element.setAttribute("aria-selected", String(at === selected));
    element.setAttribute("aria-setsize", String(order.length));
    element.setAttribute("aria-posinset", String(line + 1));
    element.addEventListener("click", () => select(at));
    return element;
  }

  function drawCell(run, at) {
    const state = run.state[at], score = run.score[at];
    const [className, text, words] = describe(state, score);
    const cell = make("span", `cell ${className}${state & SLOW ? " slow" : ""}`, text);
    cell.title = `${run.key}: ${words}${state & SLOW ? ", slow" : ""}`;
    cell.setAttribute("role", "img");
    cell.setAttribute("aria-label", cell.title);
    return cell;
  }

  function describe(state, score) {
    if (!(state & HAS_ROW)) return ["absent", "·", "not executed"];
    if (state & FAILED) return ["failed", "!", "failed"];
    if (score === null) return ["absent", "–", "no score"];
    if (index.pass_fail) return right(score) ? ["right", "✓", "right"] : ["wrong", "✗", "wrong"];
    const [low, high] = scoreRange;
    const level = high > low ? Math.min(4, Math.floor(((score - low) / (high - low)) * 5)) : 4;
    return [`level-${level}`, LEVELS[level], String(Number(score.toPrecision(3)))];
  }

  function step(by) {
    if (!order.length) return;
    const line = order.indexOf(selected);
    const next = line < 0 ? 0 : Math.max(0, Math.min(order.length - 1, line + by));
    select(order[next]);
  }

  function select(at) {
    selected = at;
    const line = order.indexOf(at), list = byId("list");
    if (line >= 0) {
      if (line * ROW < list.scrollTop) list.scrollTop = line * ROW;
      else if ((line + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (line + 1) * ROW - list.clientHeight;
    }
    draw();
    try {
      history.replaceState(null, "", `#example-${index.indexes[at] + 1}`);
    } catch { /* some browsers refuse it for files */ }
    return show(at);
  }

  /* ---- one example --------------------------------------------------------------------------- */

  async function show(at) {
    const answer = await answersOf(at);
    if (at !== selected) return; // the reader has gone on meanwhile
    const heading = make("h3", "", `Example ${index.indexes[at] + 1} `, make("small", "", index.ids[at]));
    const moves = make("span", "moves", button("‹ previous", () => step(-1)), button("next ›", () => step(1)));
    const open = areCallsOpen();
    byId("detail").replaceChildren(
      make("div", "bar", heading, moves),
      fields(answer.inputs, "inputs"),
      Object.keys(answer.labels).length ? make("div", "labels", make("h4", "", "Expected"), fields(answer.labels)) : null,
      make("div", "cards", ...shownRuns.map((run) => card(at, run, answer.runs[run]))));
    byId("detail").scrollTop = 0;
    if (open) toggleCalls(true);
  }

  function fields(values, className = "") {
    const list = make("dl", `fields ${className}`);
    for (const [name, value] of Object.entries(values ?? {})) {
      list.append(make("dt", "", name), make("dd", "", asText(value)));
    }
    return list;
  }

  const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));

  function card(at, run, answer) {
    const entry = index.runs[run];
    const [className, , words] = describe(entry.state[at], entry.score[at]);
    const title = make("header", "", make("b", "rank", String(entry.rank)), make("code", "", entry.key),
      make("span", `chip ${className}`, words));
    const element = make("section", `card ${className}`, title);
    if (!answer) return element;
    if (answer.error) element.append(make("p", "error", answer.error));
    element.append(fields(answer.prediction));
    const others = Object.entries(answer.metrics ?? {}).filter(([name]) => name !== index.primary || !index.pass_fail);
    if (others.length) element.append(make("p", "figures", others.map(([name, value]) => `${name} ${value}`).join(" · ")));
    if (answer.metric_errors) element.append(make("p", "error", "Metrics that raised:"), fields(answer.metric_errors));
    if (answer.details) element.append(make("div", "details", make("h4", "", "Metric details"), fields(answer.details)));
    element.append(make("p", "figures", answer.figures.join(" · ")), callsOfCard(at, run));
    return element;
  }

  function callsOfCard(at, run) {
    const content = make("div", "calls-content");
    const element = make("details", "calls", make("summary", "", "Prompts and responses"), content);
    element.addEventListener("toggle", async () => {
      if (!element.open || content.hasChildNodes()) return;
      const { calls, text } = await callsOf(at, run);
      content.replaceChildren(...(calls.length ? calls.map((call) => drawCall(call, text)) : ["No call was made."]));
    });
    return element;
  }

  function drawCall(call, text) {
    const marks = call.marks ?? [];
    const element = make("div", "call", make("h5", "", call.who, ...marks.map((mark) => make("span", "mark", mark))),
      make("p", "figures", call.figures.map(([name, value]) => `${name} ${value}`).join(" · ")));
    if (call.error) element.append(make("p", "error", call.error));
    if (!call.prompt) element.append(make("p", "note", "What was said was not kept (execution.keep_prompts)."));
    for (const [role, reference] of call.prompt ?? []) element.append(said(role, text(reference)));
    if ("reasoning" in call) element.append(said("reasoning", text(call.reasoning)));
    if ("response" in call) element.append(said("response", text(call.response)));
    return element;
  }

  const said = (role, words) => make("div", `said ${role === "response" ? "response" : ""}`, make("span", "role", role), make("pre", "", words));

  const areCallsOpen = () => byId("detail").querySelector("details.calls[open]") !== null;
  function toggleCalls(open) {
    for (const element of byId("detail").querySelectorAll("details.calls")) element.open = open;
  }

  /* ---- search -------------------------------------------------------------------------------- */

  const searchable = []; // for each part, for each example, its texts in lower case

  function gather(value, texts) {
    if (typeof value === "string") texts.push(value);
    else if (Array.isArray(value)) value.forEach((item) => gather(item, texts));
    else if (value !== null && typeof value === "object") Object.values(value).forEach((item) => gather(item, texts));
    else if (value !== null && value !== undefined) texts.push(String(value));
  }

  async function searchablePart(number) {
    if (!searchable[number]) {
      const examples = await load(`answers-${number}`);
      searchable[number] = examples.map((example) => {
        const texts = [];
        gather([example.inputs, example.labels], texts);
        for (const run of example.runs) if (run) gather([run.prediction, run.error, run.details, run.metric_errors], texts);
        return texts.join("\n").toLowerCase();
      });
    }
    return searchable[number];
  }

  let searches = 0;
  async function search() {
    const words = byId("search").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const mine = ++searches;
    if (!words.length) {
      found = null;
    } else {
      const hits = new Array(count()).fill(false);
      for (let number = 0; number * index.part_size < count(); number++) {
        const texts = await searchablePart(number);
        if (mine !== searches) return; // the reader has typed on
        texts.forEach((text, at) => {
          const position = number * index.part_size + at;
          const id = index.ids[position].toLowerCase();
          hits[position] = words.every((word) => text.includes(word) || id.includes(word));
        });
      }
      found = hits;
    }
    byId("list").scrollTop = 0;
    refresh();
  }

  /* ---- table, theme, keys -------------------------------------------------------------------- */

  function sortTable(table, heading) {
    const before = heading.getAttribute("aria-sort");
    const other = { ascending: "descending", descending: "ascending" };
    const direction = other[before] ?? heading.dataset.first;
    for (const cell of heading.parentElement.children) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const isNumber = heading.classList.contains("number");
    const value = (row) => row.cells[heading.cellIndex].dataset.value;
    const rows = [...table.tBodies[0].rows];
    rows.sort((one, two) => {
      const [left, right_] = [value(one), value(two)];
      if (left === "" || right_ === "") return Number(left === "") - Number(right_ === "");
      return sign * (isNumber || !isNaN(left - right_) ? left - right_ : left.localeCompare(right_, "en", { numeric: true }));
    });
    table.tBodies[0].append(...rows);
  }

  function prepareTable() {
    const table = byId("runs");
    for (const heading of table.tHead.rows[0].cells) {
      heading.querySelector("button")?.addEventListener("click", () => sortTable(table, heading));
    }
    for (const box of table.querySelectorAll("input[type=checkbox]")) box.addEventListener("change", chooseRuns);
  }

  function chooseRuns() {
    const boxes = [...byId("runs").querySelectorAll("input[type=checkbox]:checked")].map((box) => box.dataset.run);
    shownRuns = index.runs.map((_, run) => run).filter((run) => boxes.includes(index.runs[run].key));
    refresh();
    if (selected >= 0) show(selected);
  }

  const THEMES = { "": "System", light: "Light", dark: "Dark" };
  function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    byId("theme-name").textContent = THEMES[theme];
    try {
      localStorage.setItem("dspylab-theme", theme);
    } catch { /* no storage: it holds until the page is closed */ }
  }
  function nextTheme() {
    const names = Object.keys(THEMES);
    setTheme(names[(names.indexOf(document.documentElement.dataset.theme ?? "") + 1) % names.length]);
  }

  function nextFilter() {
    const names = Object.keys(FILTERS).filter((name) => FILTERS[name].button);
    chooseFilter(names[(names.indexOf(filter) + 1) % names.length]);
  }
  function chooseFilter(name) {
    filter = name;
    byId("list").scrollTop = 0;
    refresh();
  }

  const LIST_KEYS = {
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    PageDown: () => step(10),
    PageUp: () => step(-10),
    Home: () => step(-Infinity),
    End: () => step(Infinity),
    Enter: () => byId("detail").focus(),
  };
  const KEYS = {
    "/": () => byId("search").focus(),
    j: () => step(1),
    k: () => step(-1),
    c: () => toggleCalls(!areCallsOpen()),
    f: nextFilter,
    t: nextTheme,
    "?": () => byId("keys").showModal(),
  };

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
    const isTyping = event.target.matches("input[type=search], select, textarea");
    let act = null;
    if (event.key === "Escape") act = leave;
    else if (isTyping) act = event.key === "Enter" && event.target === byId("search") ? enterList : null;
    else act = (event.target === byId("list") && LIST_KEYS[event.key]) || (index ? KEYS[event.key] : null);
    if (!act) return;
    event.preventDefault();
    act();
  }
  function leave() {
    if (document.activeElement === byId("search") && byId("search").value) {
      byId("search").value = "";
      search();
    } else enterList();
  }
  function enterList() {
    byId("list").focus();
    if (selected < 0 || !order.includes(selected)) step(0);
  }

  /* The labels that screen readers get, for those who point at a mark. */
  function labelPlots() {
    for (const mark of document.querySelectorAll(".plots svg [aria-roledescription][aria-label]")) {
      if (mark.tagName === "g" && mark.querySelector("[aria-label]")) continue;
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = mark.getAttribute("aria-label");
      mark.append(title);
    }
  }

  function prepareExplorer() {
    const all = index.runs.flatMap((run) => run.score).filter((score) => score !== null);
    scoreRange = all.reduce(([low, high], score) => [Math.min(low, score), Math.max(high, score)], [Infinity, -Infinity]);
    for (const [name, entry] of Object.entries(FILTERS)) {
      if (entry.passFail && !index.pass_fail) continue;
      entry.number = make("span", "count");
      entry.button = button(`${entry.text} `, () => chooseFilter(name));
      entry.button.append(entry.number);
      if (entry.title) entry.button.title = entry.title;
      entry.button.dataset.filter = name;
      byId("filters").append(entry.button);
    }
    let waiting = 0;
    byId("search").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(search, 120);
    });
    byId("order").addEventListener("change", refresh);
    byId("list").addEventListener("scroll", () => requestAnimationFrame(draw));
    new ResizeObserver(draw).observe(byId("list"));
    const digits = String(1 + Math.max(...index.indexes)).length;
    byId("explorer").style.setProperty("--digits", String(Math.max(2, digits)));
    byId("controls").hidden = byId("explorer").hidden = false;
  }

  function firstExample() {
    const asked = /^#example-(\d+)$/.exec(location.hash);
    const at = asked ? index.indexes.indexOf(Number(asked[1]) - 1) : -1;
    return at >= 0 ? at : (order[0] ?? -1);
  }

  async function start() {
    let theme = "";
    try {
      theme = localStorage.getItem("dspylab-theme") ?? "";
    } catch { /* no storage */ }
    setTheme(theme in THEMES ? theme : "");
    byId("theme").addEventListener("click", nextTheme);
    byId("help").addEventListener("click", () => byId("keys").showModal());
    document.addEventListener("keydown", onKey);
    prepareTable();
    labelPlots();
    const data = await unpack("index");
    if (data.runs.length && data.indexes.length) {
      index = data;
      shownRuns = index.runs.map((_, run) => run);
      prepareExplorer();
      refresh();
      await select(firstExample());
    }
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  }

  start();
})();
