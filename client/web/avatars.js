// Portraits on the server: the thumbnails to choose from, adding one, deleting one.

import { deleteAvatar, fetchAvatars, postAvatar } from "./api.js";
import { Problem } from "./problems.js";

const DEFAULT_ID = "default"; // ships with the server; cannot be deleted

/** A radio group of thumbnails. Event "choose" (detail: avatar id) when another one is chosen. */
export class AvatarPicker extends EventTarget {
  avatars = [];

  /** @param {{group: HTMLElement, kept: HTMLElement, deleteButton: HTMLElement}} parts */
  constructor(parts) {
    super();
    this.parts = parts;
    parts.group.addEventListener("change", () => {
      this.#describeChosen();
      this.dispatchEvent(new CustomEvent("choose", { detail: this.chosenId }));
    });
  }

  /** Id of the chosen avatar, "" while there is none. */
  get chosenId() {
    return this.parts.group.querySelector("input:checked")?.value ?? "";
  }

  get chosen() {
    return this.avatars.find((avatar) => avatar.id === this.chosenId);
  }

  /** Fetch the list again and choose `id`, or what was chosen, or the first. */
  async refresh(id = this.chosenId) {
    this.avatars = await fetchAvatars();
    this.avatars.sort((a, b) => (b.id === DEFAULT_ID) - (a.id === DEFAULT_ID));
    const chosen = this.avatars.find((avatar) => avatar.id === id) ?? this.avatars[0];
    this.parts.group.replaceChildren(...this.avatars.map((a, i) => makeChoice(a, i, a === chosen)));
    this.#describeChosen();
    this.dispatchEvent(new CustomEvent("choose", { detail: this.chosenId }));
  }

  /** Enrol a picture and choose it. */
  async add(form) {
    const { id } = await postAvatar(form);
    await this.refresh(id);
  }

  async deleteChosen() {
    await deleteAvatar(this.chosenId).catch((error) => {
      if (error.code !== "avatar_not_found") throw error; // somebody else was quicker
    });
    await this.refresh(DEFAULT_ID);
    this.parts.group.querySelector("input:checked")?.focus(); // the delete button has gone
  }

  #describeChosen() {
    const { kept, deleteButton } = this.parts;
    const avatar = this.chosen;
    deleteButton.hidden = !avatar || avatar.id === DEFAULT_ID;
    kept.textContent = avatar ? describeKeeping(avatar) : "No portrait is there yet: add one.";
  }
}

/**
 * What the upload form holds.
 *
 * @returns {{portrait: File, consent: true, keepS: number}}
 * @throws {Problem} with `field`, the control to put right.
 */
export function readUploadForm({ file, consent, keep }) {
  const missing = (code, field) => Object.assign(new Problem(code), { field });
  if (!file.files.length) throw missing("picture_missing", file);
  if (!consent.checked) throw missing("consent_required", consent);
  return { portrait: file.files[0], consent: true, keepS: Number(keep.value) };
}

/** Where an avatar's thumbnail is. */
export const thumbnailUrl = (avatar) => avatar.thumbnail ?? `/v1/avatars/${encodeURIComponent(avatar.id)}/thumbnail`;

function nameOf(avatar, index) {
  return avatar.id === DEFAULT_ID ? "Default portrait" : `Portrait ${index}`;
}

function makeChoice(avatar, index, checked) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), {
    type: "radio",
    name: "portrait",
    value: avatar.id,
    checked,
  });
  const image = Object.assign(document.createElement("img"), {
    src: thumbnailUrl(avatar),
    alt: nameOf(avatar, index),
    width: 72,
    height: 72,
  });
  label.append(input, image);
  label.title = image.alt;
  return label;
}

function describeKeeping(avatar) {
  if (avatar.id === DEFAULT_ID) return "Comes with the server; shows nobody real.";
  const expires = readTime(avatar.expires_at);
  if (!expires) return "Kept until you delete it.";
  const when = expires.toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" });
  return `Kept until ${when}.`;
}

/** Seconds since 1970 or an ISO string -> Date; null for none. */
function readTime(value) {
  if (value === null || value === undefined) return null;
  return new Date(typeof value === "number" ? value * 1000 : value);
}
