// The page is whole without this script: it adds a choice of one component, values under the
// pointer, larger pictures, tables that sort and download, and a switch of light and dark.
// What is chosen is in the fragment of the address: #component=3&theme=dark.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within) => [...(within || document).querySelectorAll(selector)];
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // -- what is chosen ---------------------------------------------------------------------

  const chips = all("button.chip");
  const known = new Set(chips.map((chip) => chip.dataset.choose));
  const marked = all("[data-component]").map((element) => ({
    element,
    components: element.dataset.component.split(" "),
  }));
  const said = document.getElementById("said");
  const themes = ["auto", "light", "dark"];
  const switched = make("button", { type: "button", className: "tool" });
  let state = { component: null, theme: "auto" };

  const read = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    const component = asked.get("component");
    const theme = asked.get("theme");
    state = {
      component: known.has(component) ? component : null,
      theme: themes.includes(theme) ? theme : "auto",
    };
    show();
  };

  const write = (changes) => {
    Object.assign(state, changes);
    const told = new URLSearchParams();
    if (state.component !== null) told.set("component", state.component);
    if (state.theme !== "auto") told.set("theme", state.theme);
    history.replaceState(null, "", told.size ? `#${told}` : location.href.split("#")[0]);
    show();
  };

  const show = () => {
    const { component, theme } = state;
    root.classList.toggle("choosing", component !== null);
    for (const { element, components } of marked) {
      element.classList.toggle("dim", component !== null && !components.includes(component));
    }
    for (const chip of chips) {
      chip.setAttribute("aria-pressed", String(chip.dataset.choose === component));
    }
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    switched.textContent = `Colours: ${theme}`;
  };

  const choose = (component) => {
    const chosen = component === state.component ? null : component;
    write({ component: chosen });
    const chip = chips.find((one) => one.dataset.choose === chosen);
    said.textContent = chip
      ? `${chip.getAttribute("aria-label")} is chosen; Escape shows all`
      : "all components are shown";
  };

  for (const [i, chip] of chips.entries()) {
    chip.addEventListener("click", () => choose(chip.dataset.choose));
    chip.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      chips[(i + step + chips.length) % chips.length].focus();
    });
  }
  switched.addEventListener("click", () => {
    write({ theme: themes[(themes.indexOf(state.theme) + 1) % themes.length] });
  });
  document.querySelector(".bar").append(switched);
  addEventListener("hashchange", read);

  // -- values under the pointer, and by arrow keys -----------------------------------------

  const tip = make("div", { className: "tip", hidden: true });
  document.body.append(tip);
  const values = new Map();
  for (const title of all("svg title")) {
    // The browser's own would come late, and beside ours.
    values.set(title.parentElement, title.textContent);
    title.remove();
  }
  const valued = (element) => {
    let one = element;
    while (one && one !== document && !values.has(one)) one = one.parentElement;
    return one && values.has(one) ? one : null;
  };
  let here = null;
  const point = (mark, x, y) => {
    if (here) here.classList.remove("here");
    here = mark;
    tip.hidden = !mark;
    if (!mark) return;
    mark.classList.add("here");
    tip.textContent = values.get(mark);
    (mark.closest("dialog") || document.body).append(tip);
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 4))}px`;
    tip.style.top = `${y + 16 + height > innerHeight ? y - height - 8 : y + 16}px`;
  };
  document.addEventListener("pointermove", (event) => {
    point(valued(event.target), event.clientX, event.clientY);
  });
  document.addEventListener("pointerdown", (event) => {
    point(valued(event.target), event.clientX, event.clientY);
  });

  for (const picture of all("figure svg")) {
    const marks = all("[data-component]", picture).filter((mark) => values.has(mark));
    if (marks.length) picture.setAttribute("tabindex", "0");
    picture.addEventListener("click", (event) => {
      const mark = event.target.closest("[data-component]");
      const [component] = mark ? mark.dataset.component.split(" ") : [];
      if (known.has(component)) choose(component);
    });
    let at = -1;
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step || !marks.length) return;
      event.preventDefault();
      at = (Math.max(at, step > 0 ? -1 : 0) + step + marks.length) % marks.length;
      const box = marks[at].getBoundingClientRect();
      point(marks[at], box.right, box.top);
      said.textContent = values.get(marks[at]);
    });
    picture.addEventListener("blur", () => point(null));
  }

  // -- larger pictures --------------------------------------------------------------------

  const dialog = make("dialog", { className: "large" });
  const close = make("button", { type: "button", className: "tool", textContent: "Close" });
  const place = make("div");
  dialog.append(close, place);
  document.body.append(dialog);
  let home = null;
  const restore = () => {
    if (!home) return;
    // The very picture, not a copy, whose names would be there twice.
    home.stand.replaceWith(home.picture);
    home.button.focus();
    home = null;
    point(null);
    document.body.append(tip);
  };
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", restore);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  for (const figure of all("figure")) {
    const title = figure.querySelector("h3");
    const picture = figure.querySelector("svg");
    if (!title || !picture) continue;
    const button = make("button", { type: "button", className: "tool", textContent: "Enlarge" });
    button.setAttribute("aria-label", `Enlarge: ${title.textContent}`);
    button.addEventListener("click", () => {
      const stand = make("div", { className: "stand" });
      stand.style.height = `${picture.getBoundingClientRect().height}px`;
      home = { picture, stand, button };
      picture.replaceWith(stand);
      place.replaceChildren(make("h3", { textContent: title.textContent }), picture);
      dialog.showModal();
    });
    title.append(button);
  }

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || dialog.open) return;
    point(null);
    if (state.component !== null) choose(state.component);
  });

  // -- tables -----------------------------------------------------------------------------

  const value = (cell) => {
    if (!("value" in cell.dataset)) return cell.textContent.trim();
    const { value: told } = cell.dataset;
    return told.endsWith("inf") ? Number(told.replace("inf", "Infinity")) : Number(told);
  };
  const compare = (a, b) => {
    if (typeof a === "string" || typeof b === "string") {
      return String(a).localeCompare(String(b), "en", { numeric: true });
    }
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return a < b ? -1 : Number(a > b);
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const first = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    for (const [j, head] of heads.entries()) {
      const button = make("button", { type: "button", className: "sort" }, ...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const next = { none: "ascending", ascending: "descending", descending: "none" }[before];
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", next);
        const rows = [...first];
        const sign = next === "descending" ? -1 : 1;
        if (next !== "none") {
          rows.sort((a, b) => sign * compare(value(a.cells[j]), value(b.cells[j])));
        }
        body.append(...rows);
      });
    }
  };

  // RFC 4180. A text that a spreadsheet would take for a formula is told to be a text.
  const quoted = (told) => {
    const text = /^[=+\-@\t\r]/.test(told) && Number.isNaN(Number(told)) ? `'${told}` : told;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (table) => {
    const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    const rows = [...table.tBodies[0].rows];
    const spread = heads.map((_, j) => rows.some((row) => "spread" in row.cells[j].dataset));
    const line = (cells) => cells.map(quoted).join(",");
    const names = heads.flatMap((name, j) => (spread[j] ? [name, `${name} sd`] : [name]));
    const lines = rows.map((row) => {
      const cells = [...row.cells].flatMap((cell, j) => {
        const told = "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim();
        return spread[j] ? [told, cell.dataset.spread || ""] : [told];
      });
      return line(cells);
    });
    return [line(names), ...lines, ""].join("\r\n");
  };

  for (const table of all("table[data-name]")) {
    sortable(table);
    const button = make("button", { type: "button", className: "tool" }, "Download CSV");
    button.setAttribute("aria-label", `Download CSV: ${table.dataset.name}`);
    button.addEventListener("click", () => {
      // The mark of UTF-8 that spreadsheets look for.
      const blob = new Blob(["\ufeff", csv(table)], { type: "text/csv;charset=utf-8" });
      const link = make("a", {
        href: URL.createObjectURL(blob),
        download: `${table.dataset.name.replace(/[^\w.-]+/g, "_")}.csv`,
      });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    });
    table.parentElement.after(make("p", { className: "get" }, button));
  }

  // -- print ------------------------------------------------------------------------------

  const opened = [];
  addEventListener("beforeprint", () => {
    for (const one of all("details:not([open])")) {
      one.open = true;
      opened.push(one);
    }
  });
  addEventListener("afterprint", () => {
    for (const one of opened.splice(0)) one.open = false;
  });

  read();
  root.classList.add("js");
})();
