// Photographs that were dropped, what is asked of the server about each, and what the page says of the chosen one.
import { View } from "./view.js";

const POLL = 400; // milliseconds
const byId = (id) => document.getElementById(id);
const options = byId("options");
const view = new View();
let photos = [];
let current = null;
let about = { models: [], formats: [] };

// --------------------------------------------------------------------------------------------------- the server
async function ask(method, path, values = {}, body = undefined) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== ""));
  const answer = await fetch(`${path}?${query}`, { method, body }).catch(() => {
    throw new Error("the program that serves this page does not answer; is it still running?");
  });
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), { status: answer.status });
  return answer.status === 204 ? null : answer.json();
}

async function send(photo) {
  photo.sending = true;
  render();
  try {
    const { id, width, height } = await ask("POST", "photos", { name: photo.name }, photo.file);
    Object.assign(photo, { id, width, height });
  } finally {
    photo.sending = false;
  }
}

// the server forgets photographs; the browser still has them
async function withPhoto(photo, request) {
  if (!photo.id) await send(photo);
  try {
    return await request();
  } catch (error) {
    if (error.status !== 404) throw error;
    await send(photo);
    return request();
  }
}

async function follow(photo, key, id) {
  photo[key] = { id, state: "waiting", text: "", share: 0 };
  while (photo[key]?.id === id && ["waiting", "working"].includes(photo[key].state)) {
    try {
      photo[key] = { ...photo[key], ...(await ask("GET", `jobs/${id}`)) };
    } catch (error) {
      photo[key] = { id, state: "failed", error: error.message };
    }
    render();
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
  if (photo[key]?.id === id && photo[key].state === "failed") photo.error = photo[key].error;
  render();
  return photo[key]?.id === id && photo[key].state === "done";
}

async function attempt(photo, action) {
  photo.error = "";
  try {
    await action();
  } catch (error) {
    photo.error = error.message;
  }
  render();
}

const preview = (photo, x = photo.place?.x ?? 0.5, y = photo.place?.y ?? 0.5) =>
  attempt(photo, async () => {
    const { model, as } = chosenOptions();
    const { job } = await withPhoto(photo, () => ask("POST", `photos/${photo.id}/preview`, { x, y, model, as }));
    photo.place = { x, y };
    if (await follow(photo, "preview", job)) {
      photo.known = photo.preview;
      photo.shows = "known";
      if (photo === current) showPicture();
    }
  });

const upscale = (photo) =>
  attempt(photo, async () => {
    const { job } = await withPhoto(photo, () => ask("POST", `photos/${photo.id}/upscale`, chosenOptions()));
    if (await follow(photo, "job", job)) {
      photo.done = photo.job;
      photo.shows = "done";
      if (photo === current) showPicture();
    }
  });

function chosenOptions() {
  const { format, quality, size, width, background, strip, model, kind, strength } = options;
  return {
    format: format.value,
    quality: format.value === "png" ? "" : quality.value,
    outscale: Number(size.value) ? size.value : "",
    width: size.value === "width" ? width.value : "",
    background: format.value === "jpg" ? background.value : "",
    strip: strip.value,
    model: model.value,
    as: kind.value in STRENGTHS ? `${kind.value}=${strength.value}` : kind.value,
  };
}

// what visitors take a photograph for: its slider's step, first value and words
const STRENGTHS = {
  blur: { step: 0.2, value: 2, words: (value) => `by ${value} pixels of the result` },
  noise: { step: 1, value: 10, words: (value) => `noise ${value} of 255` },
  jpeg: { step: 1, value: 50, words: (value) => `of quality ${value}` },
};

function showStrength(isNew) {
  const chosen = STRENGTHS[options.kind.value];
  byId("strength-field").hidden = !chosen;
  if (!chosen) return;
  const [min, max] = about.ranges[options.kind.value];
  if (isNew) Object.assign(options.strength, { min, max, step: chosen.step, value: chosen.value });
  byId("strength").textContent = chosen.words(options.strength.value);
}

// ---------------------------------------------------------------------------------------------------- what is shown
function showPicture() {
  const photo = current;
  if (!photo?.id) return view.clear();
  const shown = photo.shows && photo[photo.shows];
  if (shown) {
    const url = (side, part) => `jobs/${shown.id}/view/${side}?${new URLSearchParams(part)}`;
    view.show(shown.width, shown.height, url, { hasParts: photo.shows === "done" });
  } else {
    view.show(photo.width, photo.height, () => `photos/${photo.id}/thumbnail`, { single: true });
  }
}

function bytes(number) {
  return number > 1e6 ? `${(number / 1e6).toFixed(number > 1e7 ? 0 : 1)} MB` : `${Math.ceil(number / 1e3)} kB`;
}

function outputSize(photo) {
  const { outscale, width } = chosenOptions();
  const scale = about.models.find(({ name }) => name === options.model.value)?.scale ?? 1;
  const factor = width ? width / photo.width : Number(outscale) || scale;
  return `${Math.max(1, Math.round(photo.width * factor))} × ${Math.max(1, Math.round(photo.height * factor))}`;
}

function stateOf(photo) {
  if (photo.error) return "error";
  if (photo.sending) return "sending";
  if (["waiting", "working"].includes(photo.job?.state)) return photo.job.text;
  return photo.done ? "done" : photo.job?.state === "cancelled" ? "cancelled" : "";
}

function render() {
  const photo = current;
  const job = photo?.job;
  const isBusy = ["waiting", "working"].includes(job?.state);
  const isPreviewed = ["waiting", "working"].includes(photo?.preview?.state);
  byId("error").hidden = !photo?.error;
  byId("error").textContent = photo?.error ? `Error: ${photo.error}` : "";
  byId("title").textContent = photo?.name ?? "";
  byId("sizes").textContent = photo?.id ? `${photo.width} × ${photo.height} to ${outputSize(photo)} pixels` : "";
  byId("work").hidden = !(isBusy || photo?.sending || isPreviewed);
  byId("cancel").hidden = !isBusy;
  const progress = byId("progress");
  if (isBusy && job.state === "working") progress.value = job.share;
  else progress.removeAttribute("value");
  byId("status").textContent = isBusy ? job.text : photo?.sending ? "sending" : photo?.preview?.text ?? "";
  byId("go").hidden = !photo?.id || isBusy;
  byId("go").className = photo?.done ? "again" : "";
  byId("go").textContent = photo?.done ? "Upscale again" : "Upscale the whole photograph";
  const open = photos.filter((one) => !one.done && !["waiting", "working"].includes(one.job?.state) && !one.error);
  byId("all").hidden = photos.length < 2 || open.length < 2;
  byId("all").textContent = `Upscale all ${open.length}`;
  const save = byId("save");
  save.hidden = !photo?.done;
  if (photo?.done) {
    save.href = `jobs/${photo.done.id}/file`;
    save.textContent = `Save ${photo.done.name} (${bytes(photo.done.bytes)})`;
  }
  const done = photos.filter((one) => one.done);
  byId("zip").hidden = done.length < 2;
  byId("zip").href = `zip?${new URLSearchParams(done.map((one) => ["job", one.done.id]))}`;
  byId("notes").replaceChildren(...(photo?.done?.notes ?? []).map((note) => element("li", note)));
  renderFound(photo);
  renderChooser(photo);
  renderList();
}

function element(kind, text, values = {}) {
  return Object.assign(document.createElement(kind), { textContent: text, ...values });
}

function renderFound(photo) {
  const known = photo?.known;
  byId("found").textContent = known?.found ? `Found: ${known.found}.` : "";
  byId("expert").hidden = !known || !(known.kernels.length || known.map);
  if (!known || byId("expert").dataset.job === known.id) return;
  byId("expert").dataset.job = known.id;
  byId("kernels").replaceChildren(
    ...known.kernels.map(({ name, angle, picture }) => {
      const kernel = element("div", "");
      kernel.append(element("img", "", { src: picture, alt: `kernel, ${name}` }), element("div", name), element("small", `${angle.toFixed(2)}°`));
      return kernel;
    }),
  );
  byId("kernels-part").hidden = !known.kernels.length;
  byId("map-part").hidden = !known.map;
  if (!known.map) return;
  const { picture, low, high } = known.map;
  byId("map").src = picture;
  byId("low").textContent = low.toFixed(2);
  byId("high").textContent = high.toFixed(2);
  byId("used").style.left = `${100 * low}%`;
  byId("used").style.width = `${100 * (high - low)}%`;
  byId("map-note").textContent =
    `How much the convolutions that depend on the degradation add in each place of the preview: mean of their maps, ` +
    `which may lie between 0 and 1. Colours are stretched over what occurs here, ${low.toFixed(2)} to ${high.toFixed(2)}.`;
}

function renderChooser(photo) {
  byId("chooser").hidden = !photo?.id;
  if (!photo?.id) return;
  const image = byId("thumbnail");
  const source = `photos/${photo.id}/thumbnail?most=600`;
  if (image.getAttribute("src") !== source) image.src = source;
  const { region } = photo.known ?? {};
  byId("region").hidden = !region;
  if (!region) return;
  const [left, top, width, height] = region;
  Object.assign(byId("region").style, {
    left: `${(100 * left) / photo.width}%`,
    top: `${(100 * top) / photo.height}%`,
    width: `${(100 * width) / photo.width}%`,
    height: `${(100 * height) / photo.height}%`,
  });
}

function renderList() {
  byId("list").hidden = photos.length < 2;
  const rows = photos.map((photo) => {
    const row = element("li", "");
    const button = element("button", "", { type: "button", onclick: () => select(photo) });
    button.setAttribute("aria-current", photo === current);
    button.append(
      element("span", photo.name, { className: "name" }),
      element("span", stateOf(photo), { className: photo.error ? "failed" : "" }),
    );
    row.append(button);
    return row;
  });
  const text = photos.map((photo) => `${photo.name} ${stateOf(photo)} ${photo === current}`).join("\n");
  if (byId("list").dataset.text !== text) byId("list").replaceChildren(...rows);
  byId("list").dataset.text = text;
}

// ------------------------------------------------------------------------------------------------ what visitors do
function select(photo) {
  current = photo;
  showPicture();
  render();
  if (photo.id && !photo.preview) preview(photo);
}

async function add(files) {
  const added = [...files].map((file) => ({ file, name: file.name }));
  if (!added.length) return;
  // what nobody has begun to upscale makes room for what is new
  const isKept = (photo) => photo.job && !photo.error;
  for (const photo of photos) {
    if (!isKept(photo) && photo.id) ask("DELETE", `photos/${photo.id}`).catch(() => {});
  }
  photos = [...photos.filter(isKept), ...added];
  select(added[0]);
  for (const photo of added) {
    await attempt(photo, async () => {
      await send(photo);
      if (photo === current) select(photo);
    });
  }
}

byId("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  add(event.dataTransfer.files);
});
addEventListener("paste", (event) => add(event.clipboardData.files));
byId("go").addEventListener("click", () => upscale(current));
byId("all").addEventListener("click", async () => {
  for (const photo of photos) {
    if (!photo.done && !photo.error && !["waiting", "working"].includes(photo.job?.state)) upscale(photo);
  }
});
byId("save").addEventListener("click", async (event) => {
  event.preventDefault();
  const photo = current;
  try {
    await ask("GET", `jobs/${photo.done.id}`);
    location.assign(byId("save").href);
  } catch (error) {
    Object.assign(photo, { done: null, shows: photo.known && "known", error: error.message });
    render();
  }
});
byId("cancel").addEventListener("click", () => ask("DELETE", `jobs/${current.job.id}`).catch(() => {}));
byId("map-of-photo").addEventListener("click", (event) => {
  const frame = byId("thumbnail").getBoundingClientRect();
  preview(current, (event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height);
});
options.addEventListener("submit", (event) => event.preventDefault());
for (const kind of ["input", "change"]) options.addEventListener(kind, chosen); // not every browser sends both

function chosen({ type, target }) {
  byId("width-field").hidden = options.size.value !== "width";
  options.quality.closest("label").hidden = options.format.value === "png";
  byId("background-field").hidden = options.format.value !== "jpg";
  options.quality.placeholder = options.format.value === "webp" ? "lossless" : "95";
  if (target === options.model) fillSizes();
  showStrength(target === options.kind);
  render();
  const isShown = [options.model, options.kind, options.strength].includes(target);
  if (type === "change" && isShown && current?.id) preview(current);
}

function fillSizes() {
  const { scale, purpose } = about.models.find(({ name }) => name === options.model.value);
  byId("purpose").textContent = purpose && `${options.model.value}: ${purpose}`;
  const factors = [1, 2, 3, 4].filter((factor) => factor !== scale);
  const size = options.size.value;
  options.size.replaceChildren(
    new Option(`${scale} times`, ""),
    ...factors.map((factor) => new Option(factor === 1 ? "as the photograph" : `${factor} times`, factor)),
    new Option("a width", "width"),
  );
  options.size.value = size === `${scale}` ? "" : size; // the model's own scale is called ""
}

about = await ask("GET", "about");
options.format.replaceChildren(...about.formats.map((name) => new Option(name, name)));
options.model.replaceChildren(...about.models.map(({ name }) => new Option(name, name)));
byId("model-field").hidden = about.models.length < 2;
byId("about").textContent = `mrda-web ${about.version}`;
fillSizes();
options.quality.closest("label").hidden = true;
render();
