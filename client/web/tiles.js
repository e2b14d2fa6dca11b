// The people of a room on the page: one tile each, the picture or, where there is none, their initials.

/** Tiles in a list; keeps to the order in which people came. */
export class Tiles {
  #tiles = new Map(); // id -> {item, video, note, who}

  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
  }

  /** Show exactly these people; `ownId` is the reader's own. */
  show(people, ownId) {
    const present = new Set(people.map((person) => person.id));
    for (const [id, { item }] of this.#tiles) {
      if (!present.has(id)) this.#tiles.delete(id) && item.remove();
    }
    for (const person of people) this.#describe(person, person.id === ownId);
    const columns = columnsFor(people.length);
    this.list.style.setProperty("--columns", columns);
    this.list.style.setProperty("--rows", Math.ceil(people.length / columns) || 1);
  }

  setStream(id, stream) {
    const tile = this.#tiles.get(id);
    if (!tile) return;
    if (tile.video.srcObject !== stream) tile.video.srcObject = stream;
    tile.video.play().catch(() => {}); // the browser will ask for a click; joining was one
  }

  clearStream(id) {
    const tile = this.#tiles.get(id);
    if (!tile) return;
    tile.video.srcObject = null;
    tile.item.dataset.picture = "false";
  }

  showSpeaking(ids) {
    for (const [id, { item }] of this.#tiles) item.dataset.speaking = String(ids.includes(id));
  }

  clear() {
    this.#tiles.clear();
    this.list.replaceChildren();
  }

  #describe(person, own) {
    if (!this.#tiles.has(person.id)) this.#tiles.set(person.id, this.#make(person));
    const { item, video, who, note } = this.#tiles.get(person.id);
    item.dataset.own = String(own);
    video.muted = own;
    who.textContent = own ? `${person.name} (you)` : person.name;
    note.textContent = [person.muted && "muted", !person.live && "connecting…", !person.seen && "sound only"]
      .filter(Boolean)
      .join(" · ");
  }

  #make(person) {
    const item = element("li", "tile");
    item.dataset.id = person.id;
    const initials = element("span", "initials", initialsOf(person.name));
    initials.ariaHidden = "true";
    const video = Object.assign(document.createElement("video"), { autoplay: true, playsInline: true });
    video.ariaLabel = `Synthetic picture of ${person.name}`;
    video.onresize = () => void (item.dataset.picture = String(video.videoWidth > 2));
    const [who, note] = [element("span", "who"), element("span", "note")];
    const caption = element("p", "caption");
    caption.append(who, note);
    item.append(initials, video, caption);
    this.list.append(item);
    return { item, video, who, note };
  }
}

const columnsFor = (count) => (count <= 1 ? 1 : count <= 4 ? 2 : count <= 6 ? 3 : 4);

function initialsOf(name) {
  const words = name.split(/\s+/).filter(Boolean);
  return words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join("");
}

function element(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}
