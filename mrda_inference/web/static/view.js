// The stage: one picture before and after, under a line, at any zoom. Whatever its size, the server sends what is seen.

const OVERVIEW = 2048; // pixels of the longer side of what is loaded at first
const CLOSEST = 8; // pixels of the screen for one of the picture

const SIDES = ["before", "after"];

const byId = (id) => document.getElementById(id);

// [side, image] of each side, all of them loaded; null if one cannot be
async function loaded(sides, url, className) {
  const alt = (side) => (className === "overview" ? side : "");
  const images = sides.map((side) =>
    Object.assign(new Image(), { src: url(side), className, alt: alt(side), draggable: false }),
  );
  try {
    await Promise.all(images.map((image) => image.decode()));
  } catch {
    return null;
  }
  return sides.map((side, i) => [side, images[i]]);
}

export class View {
  constructor() {
    this.box = byId("view");
    this.layers = { before: byId("before"), after: byId("after") };
    this.split = 0.5;
    this.pointers = new Map();
    this.clear();
    this.listen();
    new ResizeObserver(() => this.picture && (this.isFitted ? this.fit() : this.draw())).observe(this.box);
  }

  clear() {
    this.wanted = this.picture = null;
    this.box.className = "empty";
    this.forgetDetail();
  }

  // What was shown stays until the new pictures are there. `url(side, values)` is where they are; where `hasParts`, the
  // values may name a rectangle.
  async show(width, height, url, { single = false, hasParts = false } = {}) {
    const picture = (this.wanted = { width, height, url, hasParts });
    const images = await loaded(single ? ["before"] : SIDES, (side) => url(side, { most: OVERVIEW }), "overview");
    if (!images || this.wanted !== picture) return;
    const isSame = this.picture?.width === width && this.picture?.height === height;
    this.picture = picture;
    this.box.className = single ? "single" : "";
    this.forgetDetail();
    for (const [side, image] of images) this.layers[side].querySelector(".overview").replaceWith(image);
    if (isSame) this.draw();
    else this.fit();
  }

  get fitting() {
    const { width, height } = this.picture;
    return Math.min(this.box.clientWidth / width, this.box.clientHeight / height);
  }

  fit() {
    if (!this.picture) return;
    this.isFitted = true;
    this.scale = this.fitting;
    this.x = (this.box.clientWidth - this.scale * this.picture.width) / 2;
    this.y = (this.box.clientHeight - this.scale * this.picture.height) / 2;
    this.draw();
  }

  // one pixel of the picture is one of the screen, whatever the browser's zoom
  full() {
    this.zoomTo(1 / devicePixelRatio, this.box.clientWidth / 2, this.box.clientHeight / 2);
  }

  zoomTo(scale, x, y) {
    if (!this.picture) return;
    const least = Math.min(this.fitting, 1 / devicePixelRatio);
    const wanted = Math.min(Math.max(scale, least), CLOSEST / devicePixelRatio);
    this.x = x - ((x - this.x) * wanted) / this.scale;
    this.y = y - ((y - this.y) * wanted) / this.scale;
    this.scale = wanted;
    this.isFitted = false;
    this.draw();
  }

  keepInside() {
    const { width, height } = this.picture;
    const along = (place, length, room) =>
      length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, place));
    this.x = along(this.x, width * this.scale, this.box.clientWidth);
    this.y = along(this.y, height * this.scale, this.box.clientHeight);
  }

  draw() {
    this.keepInside();
    const { width, height } = this.picture;
    const line = this.split * this.box.clientWidth;
    for (const layer of Object.values(this.layers)) {
      this.place(layer.querySelector(".overview"), { x: 0, y: 0, w: width, h: height });
      if (this.detail) this.place(layer.querySelector(".detail"), this.detail);
      layer.classList.toggle("sharp", this.scale * devicePixelRatio >= 2);
    }
    this.layers.after.style.clipPath = `inset(0 0 0 ${line}px)`;
    byId("divider").style.left = `${line}px`;
    byId("divider").setAttribute("aria-valuenow", Math.round(100 * this.split));
    byId("zoom").textContent = `${Math.round(100 * this.scale * devicePixelRatio)} %`;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.loadDetail(), 150);
  }

  place(image, { x, y, w, h }) {
    Object.assign(image.style, {
      left: `${this.x + x * this.scale}px`,
      top: `${this.y + y * this.scale}px`,
      width: `${w * this.scale}px`,
      height: `${h * this.scale}px`,
    });
  }

  forgetDetail() {
    this.detail = null;
    clearTimeout(this.timer);
    for (const layer of Object.values(this.layers)) layer.querySelector(".detail").removeAttribute("src");
  }

  async loadDetail() {
    const picture = this.picture;
    if (!picture?.hasParts) return;
    const { width, height } = picture;
    if (this.scale * devicePixelRatio * 0.95 <= Math.min(1, OVERVIEW / Math.max(width, height))) return this.forgetDetail();
    const x = Math.max(0, Math.floor(-this.x / this.scale));
    const y = Math.max(0, Math.floor(-this.y / this.scale));
    const w = Math.min(width - x, Math.ceil(this.box.clientWidth / this.scale) + 1);
    const h = Math.min(height - y, Math.ceil(this.box.clientHeight / this.scale) + 1);
    const part = { x, y, w, h };
    if (this.detail && ["x", "y", "w", "h"].every((key) => this.detail[key] === part[key])) return;
    const most = Math.ceil(devicePixelRatio * Math.max(this.box.clientWidth, this.box.clientHeight));
    const images = await loaded(SIDES, (side) => picture.url(side, { ...part, most }), "detail");
    if (!images || this.picture !== picture) return;
    this.detail = part;
    for (const [side, image] of images) {
      this.layers[side].querySelector(".detail").replaceWith(image);
      this.place(image, part);
    }
  }

  listen() {
    const at = (event) => {
      const frame = this.box.getBoundingClientRect();
      return { x: event.clientX - frame.left, y: event.clientY - frame.top };
    };
    const moveLine = (x) => {
      this.split = Math.min(1, Math.max(0, x / this.box.clientWidth));
      this.draw();
    };
    this.box.addEventListener("pointerdown", (event) => {
      if (!this.picture) return;
      this.pointers.set(event.pointerId, at(event));
      this.isLine = event.target.id === "divider";
      this.box.setPointerCapture(event.pointerId);
    });
    this.box.addEventListener("pointermove", (event) => {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      const now = at(event);
      this.pointers.set(event.pointerId, now);
      if (this.pointers.size === 2) {
        const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
        const distance = (place) => Math.hypot(place.x - other.x, place.y - other.y);
        this.zoomTo((this.scale * distance(now)) / Math.max(distance(before), 1), (now.x + other.x) / 2, (now.y + other.y) / 2);
      } else if (this.isLine) {
        moveLine(now.x);
      } else {
        this.x += now.x - before.x;
        this.y += now.y - before.y;
        this.isFitted = false;
        this.draw();
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      this.box.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    this.box.addEventListener(
      "wheel",
      (event) => {
        if (!this.picture) return;
        event.preventDefault();
        const { x, y } = at(event);
        const notches = event.deltaMode === 1 ? event.deltaY / 3 : event.deltaY / 100;
        this.zoomTo(this.scale * 1.25 ** -notches, x, y);
      },
      { passive: false },
    );
    this.box.addEventListener("dblclick", (event) => {
      const { x, y } = at(event);
      if (this.isFitted) this.zoomTo(1 / devicePixelRatio, x, y);
      else this.fit();
    });
    byId("divider").addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (step) moveLine((this.split + step) * this.box.clientWidth);
    });
    byId("fit").addEventListener("click", () => this.fit());
    byId("full").addEventListener("click", () => this.full());
  }
}
