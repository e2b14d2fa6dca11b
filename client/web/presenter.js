// "Use in OBS": the presenter's name, and the address that a browser source wants.

const NAME_KEY = "visavis-presenter-name";
const NAME = /^[A-Za-z0-9_-]{1,64}$/; // as the server takes it

export class PresenterPanel {
  #sessionId = null;

  /** @param {{name: HTMLInputElement, address: HTMLInputElement, copy: HTMLButtonElement, note: HTMLElement}} parts */
  constructor(parts) {
    Object.assign(this, parts);
    this.name.value = localStorage.getItem(NAME_KEY) ?? "";
    this.name.addEventListener("input", () => this.#changed());
    this.copy.addEventListener("click", () => this.#copy());
    this.#show();
  }

  /** The name to open a session under, null for none. */
  get chosenName() {
    return NAME.test(this.name.value) ? this.name.value : null;
  }

  /** @param {string|null} id of the running session; its name cannot change while it runs */
  setSession(id) {
    this.#sessionId = id;
    this.name.disabled = id !== null;
    this.#show();
  }

  #changed() {
    this.name.setCustomValidity(this.name.value && !this.chosenName ? "Letters, digits, - and _ only, 64 at most" : "");
    this.name.reportValidity();
    if (this.chosenName) localStorage.setItem(NAME_KEY, this.chosenName);
    else if (!this.name.value) localStorage.removeItem(NAME_KEY);
    this.#show();
  }

  #show() {
    const called = this.chosenName ?? this.#sessionId;
    this.address.value = called ? new URL(`/obs/${called}`, location.href).href : "";
    this.copy.disabled = !called;
    if (this.chosenName) this.note.textContent = "This address stays the same: OBS shows you whenever you are talking here.";
    else if (called) this.note.textContent = "This address ends with this call. Choose a name for one that stays.";
    else this.note.textContent = "Choose a name, or start talking, to get an address.";
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.address.value);
      this.note.textContent = "Copied. In OBS: Sources, +, Browser, and paste it under URL.";
    } catch {
      this.address.select(); // clipboards want a secure page
      this.note.textContent = "Press Ctrl+C to copy the address.";
    }
  }
}
