"use strict";
// Files go to the server of this page one by one, a few at the same time; nothing leaves it for elsewhere.

const AT_A_TIME = 4;
const NAMES = /\.(bmp|dib|png|tiff?|jpe?g)$/i;
const LUNG = [0, 190, 255];

const byId = (id) => document.getElementById(id);
const slices = []; // { name, file, row, result, error }
let chosen = -1;
let decoded = { entry: null, pictures: null }; // of the chosen slice alone: pixels take megabytes
let waiting = [];
let underWay = 0;

const limit = fetch("about").then((answer) => answer.json()).then((about) => {
  const around = [about.flips === "none" ? "no flips" : `flips: ${about.flips}`, about.postprocess ? "cleaned" : "not cleaned"];
  byId("about").textContent = `${about.model_name} at ${about.target} · ${around.join(", ")} · files up to ${about.max_upload_mib} MiB`;
  return about.max_upload_mib;
});

function add(files) {
  const usable = files.filter(({ name }) => NAMES.test(name));
  usable.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
  for (const { name, file } of usable) {
    const row = byId("slices").insertRow();
    row.insertCell().textContent = name;
    const entry = { name, file, row };
    row.addEventListener("click", () => choose(slices.indexOf(entry)));
    slices.push(entry);
    waiting.push(entry);
  }
  if (!usable.length) byId("progress").textContent = "No BMP, PNG, TIFF or JPEG files among these.";
  next();
}

function next() {
  while (underWay < AT_A_TIME && waiting.length) {
    underWay += 1;
    segment(waiting.shift()).finally(() => { underWay -= 1; tellProgress(); next(); });
  }
  tellProgress();
}

async function segment(entry) {
  try {
    // A server that stops reading cannot say why; files may be dropped before it has told its limit.
    const maxMib = await limit;
    if (entry.file.size > maxMib * 2 ** 20) throw new Error(`the file has more than ${maxMib} MiB; see --max-upload-mib`);
    const answer = await fetch(`segment?name=${encodeURIComponent(entry.name)}`, { method: "POST", body: entry.file });
    const result = await answer.json();
    if (result.error) throw new Error(result.error);
    entry.result = result;
    entry.file = null;
    const cells = [result.lung_area_px.toLocaleString("en"), `${(100 * result.lung_fraction).toFixed(1)} %`, result.milliseconds.toFixed(0)];
    for (const text of cells) Object.assign(entry.row.insertCell(), { textContent: text, className: "number" });
  } catch (error) {
    entry.error = error.message;
    Object.assign(entry.row.insertCell(), { textContent: error.message, className: "error", colSpan: 3 });
  }
  const index = slices.indexOf(entry);
  if (chosen === index || chosen < 0) choose(index);
}

function tellProgress() {
  if (!slices.length) return;
  const done = slices.filter(({ result, error }) => result || error).length;
  const failed = slices.filter(({ error }) => error).length;
  byId("progress").textContent = `${done} of ${slices.length} done${failed ? `, ${failed} failed` : ""}`;
}

async function choose(index) {
  if (index < 0 || index >= slices.length) return;
  chosen = index;
  const entry = slices[index];
  slices.forEach(({ row }, number) => row.classList.toggle("chosen", number === index));
  entry.row.scrollIntoView({ block: "nearest" });
  byId("download").hidden = !entry.result;
  if (!entry.result) {
    byId("caption").textContent = entry.error ? `${entry.name}: ${entry.error}` : `${entry.name}: waiting`;
    byId("picture").getContext("2d").clearRect(0, 0, byId("picture").width, byId("picture").height);
    return;
  }
  const { result } = entry;
  const link = byId("download");
  link.href = `data:image/png;base64,${result.mask_png}`;
  link.download = `${entry.name.split("/").pop().replace(NAMES, "")}_mask.png`;
  byId("caption").textContent = `${entry.name}: ${result.width} x ${result.height}, lung ${result.lung_area_px.toLocaleString("en")} px ` +
    `(${(100 * result.lung_fraction).toFixed(1)} %), ${result.milliseconds.toFixed(0)} ms, model version ${result.model_version}`;
  if (decoded.entry !== entry) {
    decoded = { entry, pictures: Promise.all([result.slice_png, result.mask_png].map(pixelsOf)) };
  }
  const [slice, mask] = await decoded.pictures;
  if (chosen === index) draw(slice, mask);
}

async function pixelsOf(png) {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}

function draw(slice, mask) {
  const what = new FormData(byId("controls")).get("what");
  const opacity = byId("opacity").value / 100;
  const canvas = Object.assign(byId("picture"), { width: slice.width, height: slice.height });
  const context = canvas.getContext("2d");
  const shown = new ImageData(new Uint8ClampedArray((what === "mask" ? mask : slice).data), slice.width);
  if (what === "overlay") {
    for (let at = 0; at < shown.data.length; at += 4) {
      if (!mask.data[at]) continue;
      for (let channel = 0; channel < 3; channel += 1) {
        shown.data[at + channel] += opacity * (LUNG[channel] - shown.data[at + channel]);
      }
    }
  }
  context.putImageData(shown, 0, 0);
}

async function filesOf(entry, path = "") {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ name: path + entry.name, file }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a reader gives a hundred entries at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const each of some) found.push(...await filesOf(each, `${path}${entry.name}/`));
  }
}

const drop = byId("drop");
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  add((await Promise.all(entries.map((entry) => filesOf(entry)))).flat());
});
for (const id of ["files", "folder"]) {
  byId(id).addEventListener("change", (event) => {
    add([...event.target.files].map((file) => ({ name: file.webkitRelativePath || file.name, file })));
    event.target.value = "";
  });
}
document.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target.type === "range") return;
  event.preventDefault();
  choose(chosen + step);
});
byId("controls").addEventListener("input", () => {
  byId("opacity-value").textContent = `${byId("opacity").value} %`;
  choose(chosen);
});
byId("controls").addEventListener("submit", (event) => event.preventDefault());
