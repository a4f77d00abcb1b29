// The table of theorems: sorted by any column, filtered, opened by address; the two sides of the page; copy buttons.
"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const table = at("table");
  const entries = [...table.tBodies];
  const headers = [...table.tHead.rows[0].cells];
  const details = new Map(entries.map((entry) => [entry, entry.querySelector("details")]));
  const words = new Map(entries.map((entry) => [entry, wordsOf(entry)]));

  function wordsOf(entry) {
    const told = [...entry.querySelectorAll(".name, .equation, .more summary, .words")];
    return plain(told.map((node) => node.textContent).join(" "));
  }

  // As people type: small letters, and hyphens for all dashes.
  function plain(text) {
    return text.toLowerCase().replace(/[–−]/g, "-");
  }

  function say(text) {
    at("told").textContent = text;
  }

  // Missing numbers (NaN) come last whichever way; equal ones stay in the order they are in.
  function sort(header) {
    const column = headers.indexOf(header);
    const down = header.getAttribute("aria-sort") === "ascending";
    const text = header.dataset.kind === "text";
    const key = (entry) => {
      const value = entry.rows[0].cells[column].dataset.sort;
      return text ? value : value === "inf" ? Infinity : Number(value);
    };
    const missing = (value) => !text && Number.isNaN(value);
    const compare = (a, b) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      const order = text ? a.localeCompare(b) : a === b ? 0 : a < b ? -1 : 1;
      return down ? -order : order;
    };
    entries.sort((a, b) => compare(key(a), key(b)));
    table.append(...entries);
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    say(`Sorted by ${header.textContent.trim()}, ${down ? "largest" : "smallest"} first`);
  }

  function filter() {
    const wanted = plain(at("search").value).split(/\s+/).filter(Boolean);
    const verdict = at("verdict").value;
    const section = at("section").value;
    let shown = 0;
    for (const entry of entries) {
      const fits = wanted.every((word) => words.get(entry).includes(word))
        && (!verdict || entry.dataset.verdict === verdict)
        && (!section || entry.dataset.section === section);
      entry.hidden = !fits;
      shown += fits;
    }
    at("shown").textContent = `${shown} of ${entries.length} shown`;
    at("nothing").hidden = shown > 0;
    table.hidden = shown === 0;
    relabel();
  }

  function clear() {
    at("filters").reset();
    filter();
  }

  function relabel() {
    const closed = entries.some((entry) => !entry.hidden && !details.get(entry).open);
    at("open-all").textContent = closed ? "Open all" : "Close all";
  }

  function openAll() {
    const closed = entries.some((entry) => !entry.hidden && !details.get(entry).open);
    for (const entry of entries) if (!entry.hidden) details.get(entry).open = closed;
    relabel();
  }

  // An address with #NAME opens the theorem NAME, filtered out or not.
  function openAddressed() {
    const entry = at(decodeURIComponent(location.hash.slice(1)));
    if (!details.has(entry)) return;
    if (entry.hidden) clear();
    details.get(entry).open = true;
    entry.scrollIntoView();
  }

  for (const header of headers) header.querySelector("button").addEventListener("click", () => sort(header));
  for (const entry of entries) {
    details.get(entry).addEventListener("toggle", relabel);
    entry.rows[0].addEventListener("click", () => {
      if (String(getSelection())) return; // someone is copying a number
      details.get(entry).open = !details.get(entry).open;
    });
  }
  at("filters").hidden = false;
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("filters").addEventListener("input", filter);
  at("open-all").addEventListener("click", openAll);
  at("clear").addEventListener("click", () => {
    clear();
    at("search").focus();
  });
  addEventListener("hashchange", openAddressed);
  filter(); // what a browser keeps of a form when a page is loaded again
  openAddressed();

  // Light or dark: what the system says, until someone presses the button.
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const theme = at("theme");

  function showTheme() {
    theme.textContent = dark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", dark() ? "Switch to the light side" : "Switch to the dark side");
    document.dispatchEvent(new CustomEvent("themechange"));
  }

  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("gradstarve-theme", root.dataset.theme);
    } catch {
      // a browser that keeps nothing for pages on disk
    }
    showTheme();
  });
  system.addEventListener("change", showTheme);
  showTheme();

  // Where there is no clipboard, the command is marked instead, for Ctrl-C.
  async function copy(button) {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      say("Copied");
      button.firstChild.textContent = "Copied";
      setTimeout(() => (button.firstChild.textContent = "Copy"), 1500);
    } catch {
      getSelection().selectAllChildren(code);
      say("Marked; press Control C to copy");
    }
  }

  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
})();
