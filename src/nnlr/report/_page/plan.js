"use strict";
(() => {
  // --- the data: rows in model order -------------------------------------------------
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const [kindOf, shapeOf, roleOf] = data.of;
  let before = [];
  const rows = data.rest.map((rest, at) => {
    const path = before.slice(0, data.shared[at]).concat(rest.split("."));
    before = path.slice(0, -1);
    const shape = data.shapes[shapeOf[at]];
    const [role, basis] = data.roles[roleOf[at]];
    const numel = shape.reduce((product, size) => product * size, 1);
    const [name, aliases] = [path.join("."), data.aliases[at] || []];
    const texts = [name, ...aliases].map((text) => text.toLowerCase());
    return { at, path, name, searched: texts, shape, numel, role, basis, aliases, ...data.kinds[kindOf[at]] };
  });

  // --- small tools --------------------------------------------------------------------
  // Texts become text nodes, never markup.
  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  };
  const name = (text) => make("bdi", { dir: "ltr" }, text);
  const amount = (number) => {
    for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]])
      if (number >= size) return `${(number / (unit === "k" ? 1e3 : size)).toFixed(1)}${unit}`;
    return number.toLocaleString("en");
  };
  const tensors = (number) => `${number.toLocaleString("en")} tensor${number === 1 ? "" : "s"}`;
  const place = (value, [low, high]) => (low === high ? 1 : Math.log(value / low) / Math.log(high / low));
  const share = (value, scale) => (value > 0 ? 0.08 + 0.92 * place(value, scale) : 0);

  // --- the tree of modules --------------------------------------------------------------
  const grow = (chosen) => {
    const root = { path: "", label: "", modules: new Map(), children: [], level: 0 };
    for (const row of chosen) {
      let at = root;
      for (const part of row.path.slice(0, -1)) {
        if (!at.modules.has(part)) {
          const path = at === root ? part : `${at.path}.${part}`;
          const module = { path, label: part, modules: new Map(), children: [], up: at };
          at.modules.set(part, module);
          at.children.push(module);
        }
        at = at.modules.get(part);
      }
      at.children.push({ row, label: row.path[row.path.length - 1], up: at });
    }
    settle(root, 0);
    return root;
  };
  // Joins modules that hold nothing but one module, and adds up what each holds.
  const settle = (node, level) => {
    while (level && node.children.length === 1 && node.children[0].modules) {
      const only = node.children[0];
      node.label += `.${only.label}`;
      node.path = only.path;
      node.children = only.children;
    }
    Object.assign(node, { level, count: 0, numel: 0, lr: null, wd: null, states: new Set() });
    for (const child of node.children) {
      child.up = node;
      if (child.modules) settle(child, level + 1);
      else child.level = level + 1;
      node.count += child.row ? 1 : child.count;
      node.numel += child.row ? child.row.numel : child.numel;
      for (const state of child.row ? [child.row.state] : child.states) node.states.add(state);
      if (child.row && child.row.state !== "trained") continue;
      node.lr = widened(node.lr, child.row ? span(child.row.lr, child.row.texts[0]) : child.lr);
      node.wd = widened(node.wd, child.row ? span(child.row.wd, child.row.texts[1]) : child.wd);
    }
  };
  const span = (value, text) => ({ low: value, high: value, lowText: text, highText: text });
  const widened = (one, two) => {
    if (!one || !two) return one || two;
    const [low, high] = [one.low <= two.low ? one : two, one.high >= two.high ? one : two];
    return { low: low.low, lowText: low.lowText, high: high.high, highText: high.highText };
  };

  // --- what is shown: the view, which the address says too -------------------------------
  const selects = [...document.querySelectorAll("[data-by]")];
  const view = { q: "", by: {}, as: "tree", sort: "", row: "" };
  const toggled = new Map();
  let root, items, chosen, active = 0, whole = false, openLevel = 0;

  const readAddress = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    view.q = asked.get("q") || "";
    view.as = asked.get("view") === "table" ? "table" : "tree";
    view.sort = asked.get("sort") || "";
    view.row = asked.get("row") || "";
    view.by = {};
    for (const select of selects) if (asked.get(select.dataset.by)) view.by[select.dataset.by] = asked.get(select.dataset.by);
    byId("search").value = view.q;
    for (const select of selects) select.value = view.by[select.dataset.by] || "";
    return view.q || view.as === "table" || view.sort || view.row || Object.keys(view.by).length > 0;
  };
  const writeAddress = () => {
    const asked = new URLSearchParams();
    if (view.q) asked.set("q", view.q);
    for (const [key, value] of Object.entries(view.by)) asked.set(key, value);
    if (view.as === "table") asked.set("view", "table");
    if (view.sort) asked.set("sort", view.sort);
    if (view.row) asked.set("row", view.row);
    const hash = asked.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  };

  const wanted = (row) => {
    for (const [key, value] of Object.entries(view.by)) if (String(row[key] ?? "") !== value) return false;
    return true;
  };
  // Each word is a part of a name, or with stars a pattern for the whole of it.
  const tests = () =>
    view.q.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
      if (!word.includes("*")) return (text) => text.includes(word);
      const pattern = new RegExp(`^${word.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join(".*")}$`);
      return (text) => pattern.test(text);
    });
  const keys = {
    name: (row) => row.name, layer: (row) => row.layer ?? -1, role: (row) => row.role, numel: (row) => row.numel,
    lr: (row) => (row.state === "trained" ? row.lr : -1), wd: (row) => (row.state === "trained" ? row.wd : -1),
    group: (row) => row.group || "",
  };
  const sorted = (list) => {
    const down = view.sort.startsWith("-");
    const key = keys[view.sort.replace("-", "")];
    if (!key) return list;
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    return [...list].sort((a, b) => (down ? -1 : 1) * compare(key(a), key(b)) || a.at - b.at);
  };
  const filtering = () => Boolean(view.q || Object.keys(view.by).length);
  const isOpen = (node) => toggled.get(node.path) ?? (filtering() && chosen.length <= 500 ? true : node.level <= openLevel);

  const choose = () => {
    const all = tests();
    chosen = rows.filter((row) => wanted(row) && all.every((test) => row.searched.some(test)));
    toggled.clear();
    root = null;
    arrange();
  };
  // As many levels are open at first as fit on a screen or two.
  const firstLevel = () => {
    let level = 0, nodes = [root];
    for (;;) {
      const below = nodes.flatMap((node) => node.children.filter((child) => child.modules));
      const shown = below.reduce((sum, node) => sum + node.children.length, 0);
      if (!below.length || shown + nodes.length > 36) return Math.max(level, 0.5);
      [level, nodes] = [level + 1, below];
    }
  };
  const arrange = () => {
    const was = items && items[active];
    if (view.as === "table") items = sorted(chosen).map((row) => ({ row, label: row.name }));
    else {
      root ||= grow(chosen);
      openLevel ||= firstLevel();
      items = [];
      const walk = (node) => node.children.forEach((child, at) => {
        child.at = at;
        items.push(child);
        if (child.modules && isOpen(child)) walk(child);
      });
      walk(root);
    }
    active = Math.max(0, was ? items.findIndex((item) => same(item, was)) : 0);
    describe();
    draw();
  };
  const same = (one, two) => (one.row ? one.row === two.row : one.path === two.path && !two.row);

  const grid = byId("grid"), body = byId("rows");
  const describe = () => {
    const numel = chosen.reduce((sum, row) => sum + row.numel, 0);
    const of = chosen.length < rows.length ? ` of ${rows.length.toLocaleString("en")}` : "";
    byId("count").textContent = `${chosen.length.toLocaleString("en")}${of} parameters, ${amount(numel)} elements`;
    grid.hidden = !chosen.length;
    byId("none").hidden = chosen.length > 0;
    byId("reset").hidden = !filtering();
    byId("as-tree").setAttribute("aria-pressed", view.as === "tree");
    byId("as-table").setAttribute("aria-pressed", view.as === "table");
    for (const id of ["expand", "collapse"]) byId(id).hidden = view.as === "table";
    grid.setAttribute("role", view.as === "tree" ? "treegrid" : "grid");
    grid.setAttribute("aria-rowcount", items.length + 1);
    for (const button of grid.querySelectorAll("[data-sort]")) {
      const [th, key] = [button.parentElement, button.dataset.sort];
      if (view.sort.replace("-", "") !== key) th.removeAttribute("aria-sort");
      else th.setAttribute("aria-sort", view.sort.startsWith("-") ? "descending" : "ascending");
    }
  };

  // --- drawing: only the rows in sight --------------------------------------------------
  const columns = [...grid.querySelectorAll("thead th")].map((th) => th.className);
  const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
  const meter = (range, scale, colour) => {
    const [from, to] = [share(range.low, scale), share(range.high, scale)];
    const start = range.low === range.high || !from ? 0 : from;
    const fill = make("i", { class: colour || `c${range.high > 0 ? Math.round(place(range.high, scale) * 8) : 0}` });
    fill.style.left = `${100 * start}%`;
    fill.style.width = to ? `max(2px, ${100 * (to - start)}%)` : "0";
    return make("span", { class: "meter", "aria-hidden": "true" }, fill);
  };
  const rated = (range, scale, colour) => {
    const text = range.low === range.high ? range.lowText : `${range.lowText} \u2013 ${range.highText}`;
    return make("div", { class: "rate" }, make("span", { class: "value" }, text), meter(range, scale, colour));
  };
  const off = (states) => {
    const word = [...states].join(", ");
    const pattern = make("span", { class: `meter ${states.has("locked") ? "locked" : "frozen"}`, "aria-hidden": "true" });
    return make("div", { class: "rate" }, make("span", { class: "value off" }, word), pattern);
  };
  const cell = {
    name: (item) => {
      const indent = make("span", { class: "indent" });
      indent.style.flex = `0 0 ${view.as === "tree" ? (item.level - 1) * 18 : 0}px`;
      const twist = item.modules ? make("span", { class: "twist", "aria-hidden": "true" }) : null;
      const spare = view.as === "tree" && !item.modules ? make("span", {}) : null;
      if (spare) spare.style.flex = "0 0 18px";
      return make("div", {}, indent, twist, spare, make("button", { type: "button", tabindex: -1, title: item.row ? item.row.name : item.path }, name(item.label)));
    },
    layer: (item) => (item.row && item.row.layer !== undefined ? String(item.row.layer) : ""),
    role: (item) => (item.row ? item.row.role : ""),
    numel: (item) => amount(item.row ? item.row.numel : item.numel),
    lr: (item) => {
      const states = item.row ? new Set([item.row.state]) : item.states;
      return states.has("trained") ? rated(item.row ? span(item.row.lr, item.row.texts[0]) : item.lr, data.scales.lr) : off(states);
    },
    wd: (item) => {
      const states = item.row ? new Set([item.row.state]) : item.states;
      return states.has("trained") ? rated(item.row ? span(item.row.wd, item.row.texts[1]) : item.wd, data.scales.decay, "wd") : "";
    },
    group: (item) => (item.row ? (item.row.group ? name(item.row.group) : "") : tensors(item.count)),
  };
  const drawRow = (item, at) => {
    const tr = make("tr", { id: `row-${at}`, "aria-rowindex": at + 2 });
    if (view.as === "tree") {
      tr.setAttribute("aria-level", item.level);
      tr.setAttribute("aria-posinset", item.at + 1);
      tr.setAttribute("aria-setsize", item.up.children.length);
    }
    if (item.modules) tr.setAttribute("aria-expanded", isOpen(item));
    tr.classList.toggle("module", Boolean(item.modules));
    tr.classList.toggle("active", at === active);
    tr.classList.toggle("chosen", Boolean(item.row && item.row.name === view.row));
    for (const column of columns) tr.append(make("td", { class: column }, cell[column.split(" ")[0]](item)));
    return tr;
  };
  const space = (height) => {
    const seen = [...grid.querySelectorAll("thead th")].filter((th) => th.offsetWidth); // narrow windows hide some
    const td = make("td", { colspan: seen.length });
    td.style.height = `${height}px`;
    return make("tr", { class: "space", "aria-hidden": "true" }, td);
  };
  const SPARE = 16; // rows drawn above and below those in sight
  let first = 0, last = 0;
  const draw = (scrolled) => {
    const height = rowHeight();
    const sight = Math.ceil(innerHeight / height);
    const top = Math.max(0, Math.min(items.length - sight, Math.floor(-body.getBoundingClientRect().top / height)));
    if (scrolled && top >= first && Math.min(items.length, top + sight) <= last) return;
    first = whole ? 0 : Math.max(0, top - SPARE);
    last = whole ? items.length : Math.min(items.length, top + sight + SPARE);
    const drawn = items.slice(first, last).map((item, at) => drawRow(item, first + at));
    if (first) drawn.unshift(space(first * height));
    if (last < items.length) drawn.push(space((items.length - last) * height));
    body.replaceChildren(...drawn);
    if (items.length) grid.setAttribute("aria-activedescendant", `row-${active}`);
  };
  let waiting = false;
  const drawSoon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(true); });
  };

  // --- the explanation ---------------------------------------------------------------------
  const panel = byId("explain");
  const explain = (row, focus) => {
    const facts = make("dl", {});
    const entry = (title, text, kind) => {
      const box = make("div", kind ? { class: kind } : {}, make("dt", {}, title), make("dd", {}, text));
      facts.append(box);
      return box;
    };
    entry("shape", `${row.shape.join(" \u00d7 ") || "scalar"}, ${row.numel.toLocaleString("en")} element${row.numel === 1 ? "" : "s"}`);
    entry("role", `${row.role} (by ${row.basis})`);
    if (row.aliases.length) entry("tied to", row.aliases.join(", "));
    if (row.layer !== undefined) entry("layer", `${row.layer} of ${row.last}${row.tower ? ` of ${row.tower}` : ""}`);
    let box = null;
    for (const at of row.why) {
      const [title, text] = data.lines[at];
      if (title && !title.startsWith("x ")) box = entry(title, text, / = /.test(text) ? "number" : "");
      else box.append(make("dd", { class: "step" }, make("b", {}, title.replace("x ", "\u00d7 ")), make("span", {}, text)));
    }
    const close = make("button", { type: "button", class: "close", "aria-label": "Close the explanation" }, "\u00d7");
    close.addEventListener("click", unexplain);
    panel.replaceChildren(close, make("h2", { id: "explain-name" }, name(row.name)), facts, make("p", { class: "keys" }, "Arrow keys move through the rows, Esc closes."));
    panel.hidden = false;
    document.body.classList.add("explaining");
    view.row = row.name;
    writeAddress();
    draw();
    if (focus) panel.focus();
  };
  const unexplain = () => {
    panel.hidden = true;
    document.body.classList.remove("explaining");
    view.row = "";
    writeAddress();
    draw();
    grid.focus({ preventScroll: true });
  };

  // --- what a reader does ----------------------------------------------------------------
  const update = () => { choose(); writeAddress(); };
  const toggle = (node, open) => { toggled.set(node.path, open); arrange(); };
  const act = (item, focus) => (item.modules ? toggle(item, !isOpen(item)) : explain(item.row, focus));
  const goTo = (at) => {
    active = Math.max(0, Math.min(items.length - 1, at));
    const [height, head] = [rowHeight(), 40];
    const top = body.getBoundingClientRect().top + active * height;
    const sheet = panel.getBoundingClientRect(); // at the foot of narrow windows
    const foot = sheet.width >= innerWidth && sheet.height ? sheet.top : innerHeight;
    if (top < head) scrollBy(0, top - head);
    else if (top + height > foot) scrollBy(0, top + height - foot);
    if (!panel.hidden && items[active].row) explain(items[active].row);
    else draw();
  };
  const toggleAll = (open) => {
    const walk = (node) => node.children.forEach((child) => {
      if (child.modules) { toggled.set(child.path, open); walk(child); }
    });
    walk(root);
    arrange();
  };
  const page = () => Math.max(1, Math.floor(innerHeight / rowHeight()) - 3);
  const moves = {
    ArrowDown: () => goTo(active + 1), ArrowUp: () => goTo(active - 1), Home: () => goTo(0), End: () => goTo(items.length - 1),
    PageDown: () => goTo(active + page()), PageUp: () => goTo(active - page()),
    Enter: () => act(items[active], true), " ": () => act(items[active], true),
    ArrowRight: () => {
      const item = items[active];
      if (!item.modules) return;
      if (isOpen(item)) goTo(active + 1);
      else toggle(item, true);
    },
    ArrowLeft: () => {
      const item = items[active];
      if (item.modules && isOpen(item)) toggle(item, false);
      else if (item.up && item.up !== root) goTo(items.indexOf(item.up));
    },
  };
  grid.addEventListener("keydown", (event) => {
    if (event.target !== grid || event.ctrlKey || event.metaKey || event.altKey || !moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  });
  body.addEventListener("click", (event) => {
    const tr = event.target.closest("tr[id]");
    if (!tr || String(getSelection())) return;
    active = Number(tr.id.slice(4));
    grid.focus({ preventScroll: true });
    act(items[active], false);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !panel.hidden) unexplain();
  });
  const sortBy = (key) => {
    const first = ["lr", "wd", "numel"].includes(key) ? `-${key}` : key;
    const second = first === key ? `-${key}` : key;
    view.sort = view.as === "table" && view.sort === first ? second : view.as === "table" && view.sort === second ? "" : first;
    view.as = "table";
    update();
  };
  for (const button of grid.querySelectorAll("[data-sort]")) {
    button.tabIndex = 0;
    button.addEventListener("click", () => sortBy(button.dataset.sort));
  }
  for (const as of ["tree", "table"])
    byId(`as-${as}`).addEventListener("click", () => { view.as = as; if (as === "tree") view.sort = ""; update(); });
  byId("expand").addEventListener("click", () => toggleAll(true));
  byId("collapse").addEventListener("click", () => toggleAll(false));
  const filterBy = (by) => {
    view.by = by;
    for (const select of selects) select.value = by[select.dataset.by] || "";
    update();
  };
  const clear = () => { view.q = byId("search").value = ""; filterBy({}); byId("search").focus(); };
  for (const id of ["reset", "reset-too"]) byId(id).addEventListener("click", clear);
  document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
  let typing = 0;
  byId("search").addEventListener("input", (event) => {
    view.q = event.target.value.trim();
    clearTimeout(typing);
    if (rows.length < 5000) update();
    else typing = setTimeout(update, 120); // between key strokes
  });
  for (const select of selects)
    select.addEventListener("change", () => {
      if (select.value) view.by[select.dataset.by] = select.value;
      else delete view.by[select.dataset.by];
      update();
    });
  document.addEventListener("click", (event) => {
    const group = event.target.closest("[data-group]"), bar = event.target.closest("g[data-layer]");
    if (group) { filterBy({ group: group.dataset.group }); byId("parameters").scrollIntoView(); }
    if (bar && bar.dataset.layer) {
      const by = { layer: bar.dataset.layer };
      if (byId("by-tower")) by.tower = bar.dataset.tower;
      filterBy(by);
      byId("parameters").scrollIntoView();
    }
  });
  addEventListener("scroll", drawSoon, { passive: true });
  addEventListener("resize", () => draw());
  // Opens the modules that a row is in.
  const reveal = (row) => {
    for (let node = root, path = ""; node; node = node.children.find((child) => child.modules && `${row.name}.`.startsWith(`${child.path}.`))) {
      path = node.path;
      if (path) toggled.set(path, true);
    }
    arrange();
  };
  const open = () => {
    const asked = readAddress();
    choose();
    const row = rows.find((each) => each.name === view.row);
    if (row && view.as === "tree") reveal(row);
    if (asked) byId("parameters").scrollIntoView();
    if (!row) return;
    explain(row);
    const at = items.findIndex((item) => item.row === row);
    if (at >= 0) goTo(at);
  };
  addEventListener("hashchange", () => { if (!location.hash || location.hash.includes("=")) open(); });
  let unprinted;
  addEventListener("beforeprint", () => {
    unprinted = new Map(toggled);
    whole = chosen.length <= 5000;
    if (whole && view.as === "tree") toggleAll(true);
    else draw();
  });
  addEventListener("afterprint", () => {
    whole = false;
    toggled.clear();
    unprinted.forEach((state, path) => toggled.set(path, state));
    arrange();
  });
  open();
})();
