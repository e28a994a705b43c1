"use strict";
// Columns of the leaderboard sort when their heading is pressed; a second time the other way. Undefined stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const falls = heading.getAttribute("aria-sort") !== "descending";
      const key = (row) => {
        const text = row.cells[column].dataset.v ?? "";
        return text === "" ? null : Number(text);
      };
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return falls ? y - x : x - y;
      });
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", falls ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}
