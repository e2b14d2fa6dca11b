// Free view: the avatar's head turns as it is dragged, by arrow keys, or after the pointer.

const DEG_PER_PX = 0.12; // across a picture of 500 px: more than the server allows either way
const KEY_STEP_DEG = 3;
const SEND_EVERY_MS = 40; // one video frame
const REST = { yaw: 0, pitch: 0, roll: 0 };

const KEYS = {
  ArrowLeft: { yaw: -KEY_STEP_DEG },
  ArrowRight: { yaw: KEY_STEP_DEG },
  ArrowUp: { pitch: KEY_STEP_DEG },
  ArrowDown: { pitch: -KEY_STEP_DEG },
};

export class FreeView {
  limits = { yaw: 0, pitch: 0, roll: 0 }; // degrees, of the server
  #at = REST;
  #from = null; // {x, y, turn} while dragging
  #timer = 0;

  /**
   * @param {HTMLElement} frame what is dragged
   * @param {(turn: {yaw: number, pitch: number, roll: number}) => void} look degrees: right, up, clockwise
   */
  constructor(frame, look) {
    this.frame = frame;
    this.look = look;
    this.following = false;
    frame.addEventListener("pointerdown", (event) => this.#grab(event));
    frame.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => (this.#from = null));
    frame.addEventListener("dblclick", () => this.rest());
    frame.addEventListener("keydown", (event) => this.#press(event));
    addEventListener("pointermove", (event) => this.following && this.#follow(event));
  }

  /** Look ahead again. */
  rest() {
    this.#turn(REST);
  }

  /** Tell a session that has just begun where to look. */
  repeat() {
    if (Object.values(this.#at).some((angle) => angle !== 0)) this.look(this.#at);
  }

  #grab(event) {
    if (event.button !== 0 || this.following) return;
    this.#from = { x: event.clientX, y: event.clientY, turn: this.#at };
    this.frame.setPointerCapture(event.pointerId);
  }

  #drag(event) {
    if (!this.#from) return;
    const { x, y, turn } = this.#from;
    const right = (event.clientX - x) * DEG_PER_PX;
    const up = (y - event.clientY) * DEG_PER_PX;
    // With Shift the head leans instead.
    if (event.shiftKey) this.#turn({ ...turn, roll: turn.roll + right });
    else this.#turn({ ...turn, yaw: turn.yaw + right, pitch: turn.pitch + up });
  }

  #press(event) {
    if (event.key === "Home") this.rest();
    else if (event.key in KEYS) {
      const turn = { ...this.#at };
      for (const [axis, step] of Object.entries(KEYS[event.key])) turn[axis] += step;
      this.#turn(turn);
    } else return;
    event.preventDefault(); // the page must not scroll under it
  }

  /** The pointer at the window's edge is as far as the head turns. */
  #follow(event) {
    const box = this.frame.getBoundingClientRect();
    const right = (event.clientX - box.x - box.width / 2) / (innerWidth / 2);
    const down = (event.clientY - box.y - box.height / 2) / (innerHeight / 2);
    this.#turn({ yaw: right * this.limits.yaw, pitch: -down * this.limits.pitch, roll: 0 });
  }

  #turn(turn) {
    this.#at = Object.fromEntries(
      Object.entries(turn).map(([axis, angle]) => [axis, within(angle, this.limits[axis])]),
    );
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.look(this.#at);
    }, SEND_EVERY_MS);
  }
}

const within = (value, limit) => Math.min(limit, Math.max(-limit, value));
