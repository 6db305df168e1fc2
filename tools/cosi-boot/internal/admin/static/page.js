"use strict";
// Keeps the table as new as the server's list. All text in it comes from machines: it is put in as text.
const rows = document.getElementById("machines");
const state = document.getElementById("state");
const columns = ["mac", "address", "firmware", "image", "stage", "boots", "last", "problem"];

function show(m) {
  let row = document.getElementById(m.mac);
  if (!row) {
    row = document.createElement("tr");
    row.id = m.mac;
    for (const name of columns) row.insertCell().className = name;
    const next = [...rows.children].find((other) => other.id > m.mac);
    rows.insertBefore(row, next || null);
  }
  row.dataset.stage = m.stage;
  columns.forEach((name, i) => {
    const value = name === "last" ? new Date(m.last).toLocaleTimeString() : m[name];
    row.cells[i].textContent = value ?? "";
  });
  row.title = ["UUID " + (m.uuids || []).join(" or "), "serial number " + (m.serial || "unknown")].join("\n");
}

const events = new EventSource("events");
events.addEventListener("machines", (event) => {
  const { whole, machines } = JSON.parse(event.data);
  if (whole) rows.replaceChildren();
  (machines || []).forEach(show);
  state.className = "";
  state.textContent = rows.children.length === 1 ? "1 machine" : rows.children.length + " machines";
});
events.addEventListener("error", () => {
  state.className = "lost";
  state.textContent = "the boot server does not answer";
});
