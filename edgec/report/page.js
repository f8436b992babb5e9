"use strict";
(() => {
  const tip = document.getElementById("tip");
  const show = (event) => {
    const target = event.target.closest("[data-tip]");
    if (!target) { tip.hidden = true; return; }
    if (tip.hidden || tip.textContent !== target.dataset.tip) {
      tip.textContent = target.dataset.tip;
      tip.hidden = false;
    }
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - width - 8);
    const below = event.clientY + 16;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below + height > innerHeight ? Math.max(8, event.clientY - height - 12) : below}px`;
  };
  addEventListener("pointermove", show);
  addEventListener("pointerdown", show);
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
      const body = table.tBodies[0];
      const rows = [...body.rows];
      const number = rows.length > 0 && typeof value(rows[0], column) === "number";
      const now = head.getAttribute("aria-sort");
      const down = now === "none" ? number : now === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((x, y) => {
        const a = value(x, column), b = value(y, column);
        return (typeof a === "number" ? a - b : String(a).localeCompare(String(b))) * (down ? -1 : 1);
      });
      body.append(...rows);
    }));
  }
})();
