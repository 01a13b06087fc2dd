/** Small pieces that all parts of the page are made of. */

/** An element with properties and children; text is only ever text. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** A share as people read it: no certainty where there is none. */
export function percent(share) {
  if (share > 0.995 && share < 1) return "over 99\u00a0%";
  if (share > 0 && share < 0.005) return "under 1\u00a0%";
  return `${Math.round(100 * share)}\u00a0%`;
}

const SHOWN = 5; // rows of a long list, before the others are asked for

/**
 * Probabilities as a list of bars, likeliest first.
 *
 * @param chosen names of a set of classes, if any.
 * @param others whether those beyond a few can be unfolded.
 */
export function bars(probabilities, chosen, others = true) {
  const rows = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const list = (part) =>
    element("ol", { className: "bars" }, ...part.map(([name, share]) => bar(name, share, chosen)));
  const shown = rows.length > SHOWN + 1 ? SHOWN : rows.length;
  const all = element("div", {}, list(rows.slice(0, shown)));
  if (others && shown < rows.length) {
    const rest = rows.slice(shown);
    const more = element("details", {}, element("summary", {}, `${rest.length} more classes`));
    // A thousand rows are made when somebody asks for them.
    more.addEventListener("toggle", () => more.append(list(rest)), { once: true });
    all.append(more);
  }
  return all;
}

function bar(name, share, chosen) {
  const fill = element("span", { className: "fill" });
  fill.style.width = `${100 * share}%`;
  return element(
    "li",
    { className: chosen?.includes(name) ? "bar chosen" : "bar" },
    element("span", { className: "bar-name" }, name),
    element("span", { className: "bar-share" }, percent(share)),
    element("span", { className: "track", ariaHidden: "true" }, fill),
  );
}

/** What an answer comes to, in a few words. */
export function verdict(answer) {
  if (answer.error) return "can’t be read";
  if (answer.refused) return "none of these";
  return `${answer.label}, ${percent(answer.probability)}`;
}

/** What an answer says of its set, or nothing where nobody asked. */
export function setWords(answer, coverage) {
  if (!answer.set || answer.refused) return "";
  const { set } = answer;
  const listed = set.length > SHOWN ? `${set.length} classes` : set.join(", ");
  return `${Math.round(100 * coverage)} % set: ${listed || "empty"}`;
}
