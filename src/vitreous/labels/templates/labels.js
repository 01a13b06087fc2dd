"use strict";
const form = document.forms[0], output = form.elements.overlay;
const suspects = [...form.querySelectorAll("[data-path]")];
const before = output.defaultValue; // a browser may restore what was typed, and chosen, earlier
let saved = before + suspects.map(({ dataset }) => dataset.group + dataset.label).join("");
const field = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const line = (...fields) => fields.map(field).join(",") + "\n";

function lines(suspect) {
  const { path, reason, group, label } = suspect.dataset;
  const choice = suspect.querySelector("input:checked").value;
  if (choice === "keep") return group + label;
  if (choice === "drop") return line(path, "drop", "", reason);
  const value = choice === "other" ? suspect.querySelector("select").value : suspect.dataset.suggested;
  return group + line(path, "relabel", value, reason);
}

function update() {
  const chosen = suspects.filter((suspect) => !suspect.querySelector("[value=keep]").checked);
  output.value = before + suspects.map(lines).join("");
  form.elements.count.value = `${chosen.length} of ${suspects.length} changed`;
}

form.addEventListener("input", ({ target }) => {
  if (target.matches("select")) target.closest("[data-path]").querySelector("[value=other]").checked = true;
  update();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([output.value], { type: "text/csv" }));
  link.download = "overlay.csv";
  link.click();
  saved = output.value;
});
addEventListener("beforeunload", (event) => {
  if (output.value !== saved) event.preventDefault();
});
addEventListener("pageshow", update);
document.documentElement.classList.add("scripted");
