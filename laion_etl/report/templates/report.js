"use strict";
(() => {
  // Tips: the text of a shape's data-tip, next to the pointer. It is inserted as text, never as markup.
  const tip = document.getElementById("tip");
  const place = (event) => {
    const box = tip.getBoundingClientRect();
    const right = event.clientX + 14 + box.width > innerWidth;
    const low = event.clientY + 18 + box.height > innerHeight;
    tip.style.left = `${Math.max(4, right ? event.clientX - box.width - 10 : event.clientX + 14)}px`;
    tip.style.top = `${low ? event.clientY - box.height - 10 : event.clientY + 18}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const shape = event.target.closest("[data-tip]");
    tip.hidden = !shape;
    if (shape) {
      tip.textContent = shape.dataset.tip;
      place(event);
    }
  });
  document.addEventListener("pointermove", (event) => tip.hidden || place(event));
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // What scrolls sideways can be scrolled by keyboard, and only that is a stop for it.
  const regions = document.querySelectorAll(".scroll, .flow");
  const scrollable = () => {
    for (const region of regions) {
      if (region.scrollWidth <= region.clientWidth) {
        for (const name of ["tabindex", "role", "aria-label"]) region.removeAttribute(name);
        continue;
      }
      const title = region.closest("section")?.querySelector("h2")?.textContent ?? "table";
      region.tabIndex = 0;
      region.setAttribute("role", "group");
      region.setAttribute("aria-label", `${title}, scrolls sideways`);
    }
  };
  scrollable();
  addEventListener("resize", scrollable);
  document.addEventListener("toggle", scrollable, true);

  // Sorting: a click on a heading sorts by its column, another one the other way round.
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const sort = (table, column) => {
    const heading = table.tHead.rows[0].cells[column];
    const rising = heading.getAttribute("aria-sort") === "descending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((one, other) => {
      const [a, b] = [value(one, column), value(other, column)];
      const order = typeof a === "number" ? a - b : a.localeCompare(b);
      return rising ? order : -order;
    });
    table.tBodies[0].append(...rows);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    if (table.tBodies[0].rows.length < 2) continue;
    for (const [column, heading] of [...table.tHead.rows[0].cells].entries()) {
      if (heading.querySelector(".unseen")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(table, column));
      heading.append(button);
    }
  }
})();
