/** The live camera: only what is inside the guide frame is classified, again and again. */

import { Chart } from "./chart.js";
import { bars, element, setWords, verdict } from "./elements.js";

const LEAST_WAIT = 150; // milliseconds from one picture to the next, at least
const ERROR_WAIT = 2000; // and after one that got no answer
const TOLD_EVERY = 4000; // milliseconds between words to a screen reader, at least
const FRAME = 75; // percent of what fits

/** Opens in a section of the page and closes with it. */
export class Camera {
  #section;
  #engine;
  #options;
  #keep;
  #shape;
  #stream = null;
  #turn = 0; // of asking for the camera: an earlier one's answer may come late
  #next = null; // device of the camera behind this one

  /**
   * @param section where it is shown.
   * @param engine what classifies.
   * @param options gives the page's present {sets, refuse}.
   * @param keep is given a picture that the person wants to keep.
   * @param size height and width that the model sees: the frame has its shape.
   */
  constructor(section, { engine, options, keep, size }) {
    this.#section = section;
    this.#engine = engine;
    this.#options = options;
    this.#keep = keep;
    this.#shape = size[1] / size[0];
  }

  /** Ask for the camera and begin; says what to do where there is none. */
  async open() {
    this.close();
    this.#section.hidden = false;
    if (!navigator.mediaDevices?.getUserMedia) {
      this.#section.replaceChildren(...whySecure(), this.#closeButton());
      this.#section.querySelector("h2").focus();
      return;
    }
    this.#build();
    this.#title.focus();
    await this.#start();
  }

  close() {
    this.#stop();
    this.#section.hidden = true;
    this.#section.replaceChildren();
  }

  #title;
  #video;
  #stage;
  #guide;
  #size;
  #now;
  #set;
  #told;
  #shares;
  #chart;
  #switch;

  #build() {
    this.#title = element("h2", { id: "camera-title", tabIndex: -1 }, "Live camera");
    this.#video = element("video", { muted: true, autoplay: true, playsInline: true });
    this.#video.setAttribute("aria-label", "camera");
    this.#guide = element("div", { className: "guide", ariaHidden: "true" });
    this.#stage = element("div", { className: "stage" }, this.#video, this.#guide);
    this.#size = element("input", { type: "range", min: 30, max: 100, value: FRAME });
    this.#now = element("p", { className: "result" }, "…");
    this.#set = element("p", { className: "set" });
    this.#told = element("p", { className: "unseen", role: "status" });
    this.#shares = element("div");
    this.#chart = new Chart();
    this.#switch = element("button", { type: "button", hidden: true }, "Other camera");
    const keep = element("button", { type: "button", className: "main" }, "Keep this picture");
    keep.addEventListener("click", async () => {
      const part = await this.#part();
      if (part) this.#keep(part);
    });
    this.#switch.addEventListener("click", () => this.#start(this.#next));
    this.#size.addEventListener("input", () => this.#frame());
    // A telephone that is turned gives a picture of another shape.
    for (const kind of ["loadedmetadata", "resize"]) {
      this.#video.addEventListener(kind, () => this.#frame());
    }
    const words = "Fill the frame with what is to be classified; what is around it is left out.";
    const buttons = [keep, this.#switch, this.#closeButton()];
    const size = element("label", {}, "Size of the frame ", this.#size);
    this.#section.replaceChildren(
      this.#title,
      element("p", { className: "note" }, words),
      element("div", { className: "live" },
        element("div", {}, this.#stage, element("div", { className: "row options" }, size)),
        element("div", {}, this.#now, this.#set, this.#told, this.#shares),
      ),
      this.#chart.element,
      element("div", { className: "row" }, ...buttons),
    );
  }

  #closeButton() {
    const button = element("button", { type: "button" }, "Close camera");
    button.addEventListener("click", () => {
      this.close();
      document.getElementById("live").focus();
    });
    return button;
  }

  /** Show a camera by its device, or the one that faces the person. */
  async #start(device = null) {
    this.#stop();
    const turn = this.#turn;
    const which = device ? { deviceId: { exact: device } } : { facingMode: "user" };
    const wish = { audio: false, video: { ...which, width: { ideal: 1280 } } };
    try {
      const stream = await navigator.mediaDevices.getUserMedia(wish);
      if (turn !== this.#turn) return end(stream); // closed or asked anew meanwhile
      this.#stream = stream;
      const devices = await navigator.mediaDevices.enumerateDevices();
      if (turn !== this.#turn) return;
      const cameras = devices.filter(({ kind }) => kind === "videoinput").map((one) => one.deviceId);
      const [track] = stream.getVideoTracks();
      track.addEventListener("ended", () => this.#gone(stream)); // not where we end it ourselves
      const { facingMode: facing, deviceId: shown } = track.getSettings();
      // Together with the picture: the button must never lead to the camera that is shown.
      this.#next = cameras[(cameras.indexOf(shown) + 1) % cameras.length];
      this.#switch.hidden = cameras.length < 2;
      // People expect a mirror of themselves; what is classified is not mirrored.
      this.#stage.classList.toggle("mirror", facing !== "environment");
      this.#video.srcObject = stream;
      await this.#video.play();
      if (turn === this.#turn) this.#go(stream);
    } catch (error) {
      if (turn === this.#turn) this.#now.textContent = refusalWords(error);
    }
  }

  #stop() {
    this.#turn++;
    if (this.#stream) end(this.#stream);
    this.#stream = null;
  }

  /** Unplugged, or taken back: its last picture would be classified for ever. */
  #gone(stream) {
    if (this.#stream !== stream) return;
    this.#stop();
    this.#now.textContent = "The camera is gone. Close it here, and open it anew.";
  }

  /** What of the camera's picture is inside the frame, in its pixels. */
  #inside() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    const high = (Math.min(height, width / this.#shape) * this.#size.value) / 100;
    const wide = high * this.#shape;
    return { left: (width - wide) / 2, top: (height - high) / 2, wide, high, width, height };
  }

  #frame() {
    const { left, top, wide, high, width, height } = this.#inside();
    if (!width) return;
    Object.assign(this.#guide.style, {
      left: `${(100 * left) / width}%`,
      top: `${(100 * top) / height}%`,
      width: `${(100 * wide) / width}%`,
      height: `${(100 * high) / height}%`,
    });
  }

  /** The frame's part as a file; null before there is a picture. */
  #part() {
    if (this.#video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return null;
    const { left, top, wide, high } = this.#inside();
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(wide);
    canvas.height = Math.round(high);
    canvas.getContext("2d").drawImage(this.#video, left, top, wide, high, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  }

  /** Classify as long as this stream is shown. */
  async #go(stream) {
    let told = 0;
    let words = "";
    while (this.#stream === stream) {
      const began = performance.now();
      let wait = LEAST_WAIT;
      const part = document.hidden ? null : await this.#part();
      if (part) {
        try {
          const options = this.#options();
          const answer = await this.#engine.predict(part, { name: "camera", ...options });
          if (this.#stream !== stream) return;
          this.#show(answer, options.sets, began / 1000);
          const said = answer.label ?? "none of these";
          if (said !== words && began - told > TOLD_EVERY) {
            [told, words] = [began, said];
            this.#told.textContent = verdict(answer);
          }
        } catch (error) {
          if (this.#stream === stream) this.#now.textContent = error.message;
          wait = ERROR_WAIT;
        }
      }
      const left = wait - (performance.now() - began);
      await new Promise((resolve) => setTimeout(resolve, Math.max(left, 0)));
    }
  }

  #show(answer, coverage, time) {
    this.#section.classList.toggle("refused", Boolean(answer.refused));
    this.#now.textContent = verdict(answer);
    this.#set.textContent = setWords(answer, coverage);
    // Nothing to unfold: it would be closed again within a moment.
    this.#shares.replaceChildren(bars(answer.probabilities, answer.set, false));
    this.#chart.add(time, answer.probabilities);
  }
}

function end(stream) {
  for (const track of stream.getTracks()) track.stop();
}

function refusalWords(error) {
  const words = {
    NotAllowedError: "This page may not use the camera: allow it beside the address, then try again.",
    NotFoundError: "There is no camera here.",
    NotReadableError: "Another program has the camera.",
  };
  return words[error.name] ?? `The camera can’t be used: ${error.message}`;
}

/** What to do where a browser gives the camera to no page at this address. */
function whySecure() {
  const port = location.port || "80";
  const tunnel = `ssh -L ${port}:localhost:${port} ${location.hostname}`;
  return [
    element("h2", { id: "camera-title", tabIndex: -1 }, "The camera takes a secure address"),
    element("p", {}, "Browsers give the camera only to pages on HTTPS or on this very machine. Two ways:"),
    element("ul", { className: "ways" },
      element("li", {}, "From your own machine, ", element("code", {}, tunnel),
        ", then open ", element("code", {}, `http://localhost:${port}${location.pathname}`), "."),
      element("li", {}, "For everybody: put a proxy that speaks TLS in front of this server, such as Caddy or nginx."),
    ),
    element("p", { className: "note" }, "Dropping, choosing and pasting pictures works here as it is."),
  ];
}
