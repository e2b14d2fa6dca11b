// Colour and matte side by side in one video -> a picture with transparency, on a canvas.
//
// WebRTC carries no alpha. At the left of each frame are the presenter's colours, which go on beyond the
// edge so that no rim of another background comes back; at the right is the matte, in grey, as large, and
// between them a gap, over which the codec may smear.

const VERTEX = `
attribute vec2 corner;
varying vec2 at; // 0..1 over the picture, y down
void main() {
  at = vec2(corner.x * 0.5 + 0.5, 0.5 - corner.y * 0.5);
  gl_Position = vec4(corner, 0.0, 1.0);
}`;

const FRAGMENT = `
precision mediump float;
uniform sampler2D frame;
uniform float halfTexel, share; // of the frame's width: half a pixel, one of the two pictures
varying vec2 at;
void main() {
  float x = clamp(at.x * share, halfTexel, share - halfTexel);
  vec3 colour = texture2D(frame, vec2(x, at.y)).rgb;
  float matte = texture2D(frame, vec2(x + 1.0 - share, at.y)).g;
  float alpha = clamp((matte - 0.04) / 0.92, 0.0, 1.0); // the codec's noise at both ends
  gl_FragColor = vec4(colour * alpha, alpha); // premultiplied, as the page's compositor wants it
}`;

const MOST_PX = 1080; // side of the canvas; the frames have 256

export class Compositor {
  /**
   * @param {HTMLCanvasElement} canvas
   * @throws {Error} when the browser has no WebGL
   */
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext("webgl", { alpha: true, premultipliedAlpha: true, antialias: false, depth: false });
    if (!gl) throw new Error("this browser has no WebGL, which the transparent picture needs");
    this.gl = gl;
    this.#prepare();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault()); // else it never comes back
    canvas.addEventListener("webglcontextrestored", () => this.#prepare());
  }

  /** @param {HTMLVideoElement} video with a picture: two squares beside each other, with or without a gap */
  draw(video) {
    const { gl, canvas } = this;
    if (gl.isContextLost()) return;
    const side = Math.min(MOST_PX, Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio)));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    gl.viewport(0, 0, side, side);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, video);
    gl.uniform1f(this.halfTexel, 0.5 / video.videoWidth);
    gl.uniform1f(this.share, video.videoHeight / video.videoWidth);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  /** Nothing but transparency. */
  clear() {
    this.gl.clearColor(0, 0, 0, 0);
    this.gl.clear(this.gl.COLOR_BUFFER_BIT);
  }

  #prepare() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(`the browser's WebGL refused the page's shaders: ${gl.getProgramInfoLog(program)}`);
    }
    gl.useProgram(program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    const corner = gl.getAttribLocation(program, "corner");
    gl.enableVertexAttribArray(corner);
    gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    for (const way of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, way, gl.LINEAR);
    for (const name of ["halfTexel", "share"]) this[name] = gl.getUniformLocation(program, name);
  }
}
