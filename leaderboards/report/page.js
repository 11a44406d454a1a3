"use strict";
// Sorting, filtering and copying. The page is complete without it; nothing here asks the network.
(() => {
  const number = (text) => {
    const found = text.replace(/\u2212/g, "-").trim().match(/^[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i);
    return found ? Number(found[0]) : null;
  };
  const words = (text) => text.trim().toLowerCase();

  // Cells without a number stay last in both directions; equal cells keep their order.
  const compare = (a, b, numeric, sign) => {
    if (!numeric) return sign * words(a).localeCompare(words(b), "en", { numeric: true });
    const x = number(a), y = number(b);
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (x - y);
  };

  const say = (table, text) => {
    table.querySelector("[role=status]").textContent = text;
  };

  const makeSortable = (frame) => {
    const body = frame.querySelector("tbody");
    const original = [...body.rows];
    const headings = [...frame.querySelectorAll("thead th")];
    headings.forEach((heading, column) => {
      const numeric = original.some((row) => row.cells[column].classList.contains("num"));
      const title = heading.textContent;
      // The better end comes first: large numbers, but small ones where the heading points down, and A before Z.
      const first = numeric && !title.includes("\u2193") ? "descending" : "ascending";
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const now = heading.getAttribute("aria-sort");
        const second = first === "ascending" ? "descending" : "ascending";
        const next = now === "none" ? first : now === first ? second : "none";
        headings.forEach((h) => h.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", next);
        const sign = next === "descending" ? -1 : 1;
        const text = (row) => row.cells[column].textContent;
        const rows = next === "none" ? original
          : [...original].sort((a, b) => compare(text(a), text(b), numeric, sign));
        body.append(...rows);
        say(frame, next === "none" ? "original order" : `sorted by ${title}, ${next}`);
      });
    });
  };

  const makeFilterable = (frame, tools) => {
    const rows = [...frame.querySelectorAll("tbody tr")];
    const label = document.createElement("label");
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "words in a row";
    label.append("Filter ", field);
    tools.prepend(label);
    field.addEventListener("input", () => {
      const wanted = words(field.value).split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row) => {
        const text = words(row.textContent);
        row.hidden = !wanted.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      });
      say(frame, `${shown} of ${rows.length} rows`);
    });
  };

  document.querySelectorAll(".table.sortable, .table.filterable").forEach((frame) => {
    const tools = document.createElement("div");
    tools.className = "tools";
    const status = document.createElement("span");
    status.setAttribute("role", "status");
    tools.append(status);
    frame.prepend(tools);
    if (frame.classList.contains("filterable")) makeFilterable(frame, tools);
    if (frame.classList.contains("sortable")) makeSortable(frame);
  });

  document.querySelectorAll("pre.command").forEach((block) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const code = block.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        // Without permission for the clipboard the text is selected instead: the reader presses Ctrl-C.
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
    block.after(button);
  });

  // Numbers are printed, pictures and commands only where they are open.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.numbers:not([open])")];
    closed.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
})();
