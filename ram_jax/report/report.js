"use strict";
// Tables sort by a click on a column's name. Without this file they are whole.
const UNKNOWN = "-";

function sortBy(table, head, column) {
  const body = table.tBodies[0];
  const text = (row) => row.cells[column].textContent.trim();
  const rows = Array.from(body.rows);
  const known = rows.filter((row) => text(row) !== UNKNOWN);
  const unknown = rows.filter((row) => text(row) === UNKNOWN);
  const numeric = known.every((row) => !Number.isNaN(parseFloat(text(row))));
  const before = head.getAttribute("aria-sort");
  // The largest number first, the first letter first.
  const first = numeric ? "descending" : "ascending";
  const second = numeric ? "ascending" : "descending";
  const order = before === first ? second : first;
  const sign = order === "ascending" ? 1 : -1;
  known.sort((a, b) => sign * (numeric
    ? parseFloat(text(a)) - parseFloat(text(b))
    : text(a).localeCompare(text(b))));
  body.append(...known, ...unknown);
  for (const other of table.tHead.rows[0].cells) {
    other.removeAttribute("aria-sort");
  }
  head.setAttribute("aria-sort", order);
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length < 2) continue;
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, head, column));
    head.append(button);
  });
}
