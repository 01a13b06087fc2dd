/** One picture's card: the picture, its answer, and where that comes from. */

import { bars, element, setWords, verdict } from "./elements.js";

const SMALL = 64; // pixels a side, up to which they are shown as squares
let cards = 0;

/** A card; `classify` fills it. */
export class Card {
  #engine;
  #model;
  #asked = 0;
  #picture = element("div", { className: "picture" });
  #said = element("div", { className: "said", ariaBusy: "true" });
  #why = element("div", { className: "why" });

  constructor(blob, name, engine, model) {
    Object.assign(this, { blob, name, kept: false });
    this.#engine = engine;
    this.#model = model;
    const id = `card-${++cards}`;
    const words = element("div", {}, element("h3", { id }, name), this.#said);
    this.element = element(
      "li",
      {},
      element(
        "article",
        { className: "card answer", "aria-labelledby": id },
        this.#picture,
        words,
        this.#why,
      ),
    );
    showPicture(this.#picture, URL.createObjectURL(blob), name);
    this.#said.append(element("p", { className: "note" }, "classifying …"));
  }

  /**
   * Ask the engine and show what it says; an error is an answer too.
   *
   * @returns the answer, or null where it was asked anew meanwhile: then this one counts no more.
   */
  async classify(options) {
    const asked = ++this.#asked;
    this.#said.ariaBusy = "true";
    let answer;
    try {
      const { max_bytes: most } = this.#model;
      if (most && this.blob.size > most) throw new Error(`larger than the limit of ${most / 1e6} MB`);
      answer = await this.#engine.predict(this.blob, { name: this.name, ...options });
    } catch (error) {
      answer = { file: this.name, error: error.message };
    }
    if (asked !== this.#asked) return null;
    this.#said.replaceChildren(...answerElements(answer, options.sets));
    this.#said.ariaBusy = "false";
    this.element.firstChild.classList.toggle("refused", Boolean(answer.refused));
    if (this.#engine.explain && this.#model.explain && !answer.error && !this.#why.firstChild) {
      this.#why.append(this.#explainButton());
    }
    return answer;
  }

  #explainButton() {
    const button = element("button", { type: "button" }, "Explain");
    button.setAttribute("aria-label", `Explain ${this.name}`);
    button.addEventListener("click", () => {
      const panel = this.#explanationPanel();
      this.#why.replaceChildren(panel);
      panel.querySelector("select").focus(); // the button is gone
    });
    return button;
  }

  #explanationPanel() {
    const { classes, methods } = this.#model;
    const choose = (first, names) =>
      element("select", {}, new Option(first, ""), ...names.map((one) => new Option(one)));
    const className = choose("its answer", classes);
    const method = choose("the best that passes", methods);
    const slider = element("input", { type: "range", min: 0, max: 100, value: 100 });
    const verdictText = element("p", { className: "note", role: "status" });
    const heat = element("img", { className: "heat", alt: "" });
    this.#picture.append(heat);
    const fade = () => {
      heat.style.opacity = slider.value / 100;
      // Colours of the picture would pass for those of the map.
      const grey = heat.hasAttribute("src") ? slider.value : 0;
      this.#picture.firstChild.style.filter = `grayscale(${grey}%)`;
    };
    let asked = 0;
    const show = async () => {
      const turn = ++asked;
      verdictText.textContent = "looking …";
      verdictText.classList.remove("problem");
      try {
        const wanted = { className: className.value, method: method.value };
        const found = await this.#engine.explain(this.blob, wanted);
        if (turn !== asked) return; // asked anew meanwhile
        layOver(heat, found);
        fade();
        verdictText.textContent = explanationWords(found);
        verdictText.classList.toggle("problem", !found.passed);
      } catch (error) {
        if (turn !== asked) return;
        heat.removeAttribute("src");
        fade();
        verdictText.textContent = error.message;
      }
    };
    slider.addEventListener("input", fade);
    for (const select of [className, method]) select.addEventListener("change", show);
    show();
    return element(
      "fieldset",
      { className: "options" },
      element("legend", {}, "Where the answer comes from"),
      element("label", {}, "What speaks for ", className),
      element("label", {}, "Method ", method),
      element("label", {}, "Over the picture ", slider),
      verdictText,
    );
  }
}

/** A picture in its box, as squares where it is tiny. */
export function showPicture(box, address, name) {
  const image = element("img", { className: "seen", alt: name });
  image.addEventListener("load", () => {
    URL.revokeObjectURL(address); // it is shown, and its bytes aren't needed again
    image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL);
  });
  image.addEventListener("error", () => {
    URL.revokeObjectURL(address);
    image.replaceWith(element("span", { className: "gone" }, "no preview"));
  });
  image.src = address;
  box.prepend(image);
}

function answerElements(answer, coverage) {
  if (answer.error) return [element("p", { className: "problem" }, answer.error)];
  const made = [element("p", { className: "result" }, verdict(answer))];
  if (answer.refused) {
    const words = `It is unlike all that the model learned from in ${answer.reason}.`;
    made.push(element("p", { className: "note" }, words));
  }
  const set = setWords(answer, coverage);
  if (set) made.push(element("p", { className: "set" }, set));
  made.push(bars(answer.probabilities, answer.set));
  return made;
}

function layOver(image, { heatmap, box: [left, top, width, height] }) {
  image.src = `data:image/png;base64,${heatmap}`;
  const sides = { left, top, width, height };
  for (const [side, share] of Object.entries(sides)) image.style[side] = `${100 * share}%`;
}

function explanationWords({ class: name, method, passed, verdict: words }) {
  const told = `${name}, by ${method}${words ? `: ${words}` : ""}.`;
  return passed ? told : `${told} Don’t believe this map.`;
}
