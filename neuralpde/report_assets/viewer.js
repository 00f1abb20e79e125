"use strict";
/* Draws every figure.movie of the page. One WebGL context, never on screen, draws one panel at a time and is copied into the
   panel's own canvas: so any number of movies works (browsers allow about 16 contexts) and panels resize and print as
   ordinary pictures do. No request is made; everything comes from the JSON inside the figure. */
(() => {
  const EYE = 4; // distance of the eye from the centre of the unit sphere that holds the surface
  const VERTEX = `
    attribute vec3 position; attribute vec3 normal; attribute float value;
    uniform mat3 turn; uniform vec2 scale;
    varying vec3 place; varying vec3 facing; varying float level;
    void main() {
      place = turn * position; facing = turn * normal; level = (value * 255.0 + 0.5) / 256.0;
      float depth = ${EYE}.0 - place.z, near = ${EYE}.0 - 1.1, far = ${EYE}.0 + 1.1;
      gl_Position = vec4(place.xy * scale, (depth * (far + near) - 2.0 * far * near) / (far - near), depth);
    }`;
  const FRAGMENT = `
    #ifdef GL_FRAGMENT_PRECISION_HIGH
    precision highp float;
    #else
    precision mediump float;
    #endif
    uniform sampler2D colours; uniform float broken;
    varying vec3 place; varying vec3 facing; varying float level;
    void main() {
      vec3 eye = normalize(vec3(0.0, 0.0, ${EYE}.0) - place), n = normalize(facing);
      n *= dot(n, eye) < 0.0 ? -1.0 : 1.0;
      float lit = max(0.0, dot(n, normalize(eye + vec3(-0.25, 0.35, 0.0))));
      vec3 colour = mix(texture2D(colours, vec2(level, 0.5)).rgb, vec3(0.62), broken);
      gl_FragColor = vec4(colour * mix(0.68, 1.0, lit) + 0.09 * pow(lit, 6.0), 1.0);
    }`;

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  /* positions centred and scaled to the unit sphere, area-weighted vertex normals, codes and colours */
  function decode(data) {
    const n = data.count, position = Float32Array.from(new Uint16Array(bytes(data.positions).buffer));
    const wide = n > 65536, raw = bytes(data.faces).buffer;
    const faces = wide ? new Uint32Array(raw) : new Uint16Array(raw);
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (let i = 0; i < 3 * n; i++) {
      low[i % 3] = Math.min(low[i % 3], position[i]);
      high[i % 3] = Math.max(high[i % 3], position[i]);
    }
    let radius = 0;
    for (let i = 0; i < 3 * n; i++) position[i] -= (low[i % 3] + high[i % 3]) / 2;
    for (let i = 0; i < 3 * n; i += 3) radius = Math.max(radius, Math.hypot(position[i], position[i + 1], position[i + 2]));
    for (let i = 0; i < 3 * n; i++) position[i] /= radius || 1;
    const normal = new Float32Array(3 * n), u = [0, 0, 0], v = [0, 0, 0];
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
      for (let k = 0; k < 3; k++) {
        u[k] = position[b + k] - position[a + k];
        v[k] = position[c + k] - position[a + k];
      }
      for (let k = 0; k < 3; k++) {
        const area = u[(k + 1) % 3] * v[(k + 2) % 3] - u[(k + 2) % 3] * v[(k + 1) % 3];
        normal[a + k] += area;
        normal[b + k] += area;
        normal[c + k] += area;
      }
    }
    const values = data.panels.map((panel) => bytes(panel.values));
    return { n, wide, position, normal, faces, values, colours: bytes(data.colours) };
  }

  function createRenderer() {
    const canvas = document.createElement("canvas");
    const gl = canvas.getContext("webgl", { antialias: true, alpha: true });
    if (!gl) return null;
    const attributes = ["position", "normal", "value"];
    let program, uniform, index32, lost = false;
    const known = new Map(); // mesh -> its buffers in this context

    function start() {
      program = gl.createProgram();
      for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
        const shader = gl.createShader(kind);
        gl.shaderSource(shader, source);
        gl.compileShader(shader);
        gl.attachShader(program, shader);
      }
      attributes.forEach((name, i) => gl.bindAttribLocation(program, i, name));
      gl.linkProgram(program);
      if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return false;
      gl.useProgram(program);
      uniform = (name) => gl.getUniformLocation(program, name);
      index32 = gl.getExtension("OES_element_index_uint");
      gl.enable(gl.DEPTH_TEST);
      gl.clearColor(0, 0, 0, 0);
      attributes.forEach((_, i) => gl.enableVertexAttribArray(i));
      known.clear();
      return true;
    }

    function upload(mesh) {
      const buffer = (target, data) => {
        const made = gl.createBuffer();
        gl.bindBuffer(target, made);
        gl.bufferData(target, data, gl.STATIC_DRAW);
        return made;
      };
      const texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, mesh.colours);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
      return {
        texture,
        position: buffer(gl.ARRAY_BUFFER, mesh.position),
        normal: buffer(gl.ARRAY_BUFFER, mesh.normal),
        values: mesh.values.map((codes) => buffer(gl.ARRAY_BUFFER, codes)),
        faces: buffer(gl.ELEMENT_ARRAY_BUFFER, mesh.faces),
      };
    }

    /* draw one panel of one frame into `target`, a canvas that already has its size */
    function draw(target, mesh, { panel, frame, turn, zoom, broken }) {
      if (lost) return;
      const { width, height } = target;
      if (canvas.width < width) canvas.width = width;
      if (canvas.height < height) canvas.height = height;
      if (!known.has(mesh)) known.set(mesh, upload(mesh));
      const buffers = known.get(mesh);
      gl.viewport(0, 0, width, height);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.bindTexture(gl.TEXTURE_2D, buffers.texture);
      const attribute = (i, buffer, size, type, offset) => {
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        gl.vertexAttribPointer(i, size, type, true, 0, offset);
      };
      attribute(0, buffers.position, 3, gl.FLOAT, 0);
      attribute(1, buffers.normal, 3, gl.FLOAT, 0);
      attribute(2, buffers.values[panel], 1, gl.UNSIGNED_BYTE, frame * mesh.n);
      const [a, b, c, d, e, f, g, h, i] = turn; // rows; WebGL wants columns
      gl.uniformMatrix3fv(uniform("turn"), false, [a, d, g, b, e, h, c, f, i]);
      const focal = 0.96 * zoom * Math.sqrt(EYE * EYE - 1), side = Math.min(width, height);
      gl.uniform2f(uniform("scale"), (focal * side) / width, (focal * side) / height);
      gl.uniform1f(uniform("broken"), broken ? 1 : 0);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers.faces);
      gl.drawElements(gl.TRIANGLES, mesh.faces.length, mesh.wide ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT, 0);
      const flat = target.getContext("2d");
      flat.clearRect(0, 0, width, height);
      flat.drawImage(canvas, 0, canvas.height - height, width, height, 0, 0, width, height);
    }

    const watchers = [];
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      lost = true;
    });
    canvas.addEventListener("webglcontextrestored", () => {
      lost = !start();
      watchers.forEach((redraw) => redraw());
    });
    if (!start()) return null;
    return { draw, can: (mesh) => !mesh.wide || index32, onRestored: (redraw) => watchers.push(redraw) };
  }

  /* rotate by `across` about the screen's vertical axis and by `along` about its horizontal one */
  function turned(turn, across, along) {
    const [c, s, k, z] = [Math.cos(across), Math.sin(across), Math.cos(along), Math.sin(along)];
    const by = [c, 0, s, z * s, k, -z * c, -k * s, z, k * c];
    return by.map((_, i) => [0, 1, 2].reduce((sum, j) => sum + by[i - (i % 3) + j] * turn[3 * j + (i % 3)], 0));
  }

  function show(figure, renderer) {
    const find = (selector) => figure.querySelector(selector);
    const data = JSON.parse(find("script").textContent);
    const mesh = renderer && decode(data);
    if (!renderer || !renderer.can(mesh)) {
      for (const part of [".stage", ".controls", ".hint"]) find(part).hidden = true;
      find(".missing").hidden = false;
      return;
    }
    const stage = find(".stage"), button = find(".play"), slider = find(".frame"), output = find(".time");
    const panels = data.panels.map(({ name, broken }) => {
      const mark = make("span", { className: "broken", textContent: "not finite", hidden: true });
      const label = make("p", { className: "label" }, `${name} `, mark), canvas = make("canvas");
      stage.append(make("div", { className: "panel" }, label, canvas));
      return { mark, canvas, broken: new Set(broken) };
    });
    const frames = data.labels.length, pace = clamp(7000 / frames, 100, 700);
    const state = { frame: 0, turn: data.view, zoom: 1 };
    let playing = false, touched = false, visible = false, waiting = false, due = 0;

    const paint = (canvas, panel, frame) =>
      renderer.draw(canvas, mesh, { ...state, panel, frame, broken: panels[panel].broken.has(frame) });
    function draw() {
      const ratio = Math.min(window.devicePixelRatio || 1, 3);
      panels.forEach(({ canvas, mark, broken }, panel) => {
        const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
        const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
        if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
        paint(canvas, panel, state.frame);
        mark.hidden = !broken.has(state.frame);
      });
    }
    function request() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame((now) => {
        waiting = false;
        if (playing && visible && now >= due) {
          go((state.frame + 1) % frames);
          due = now + (state.frame === frames - 1 ? 1500 : state.frame === 0 ? 800 : pace);
        }
        draw();
        if (playing && visible) request();
      });
    }
    function go(frame) {
      state.frame = clamp(frame, 0, frames - 1);
      slider.value = String(state.frame);
      const text = `t = ${data.labels[state.frame]}`;
      slider.setAttribute("aria-valuetext", text);
      slider.style.setProperty("--done", `${frames > 1 ? (100 * state.frame) / (frames - 1) : 0}%`);
      output.textContent = text;
      request();
    }
    function play(on) {
      playing = on && frames > 1;
      due = 0;
      button.setAttribute("aria-label", playing ? "Pause" : "Play");
      button.querySelector("path").setAttribute("d", playing ? "M3 2h4v12H3zM9 2h4v12H9z" : "M4 1.5v13l10-6.5z");
      request();
    }
    const byHand = (act) => { touched = true; act(); request(); };
    const step = (by) => byHand(() => { play(false); go(state.frame + by); });
    const zoom = (factor) => byHand(() => { state.zoom = clamp(state.zoom * factor, 0.5, 12); });
    const rotate = (across, along) => byHand(() => { state.turn = turned(state.turn, across, along); });
    const reset = () => byHand(() => Object.assign(state, { turn: data.view, zoom: 1 }));
    const toggle = () => byHand(() => play(!playing));

    button.addEventListener("click", toggle);
    slider.addEventListener("input", () => step(Number(slider.value) - state.frame));
    figure.addEventListener("keydown", (event) => {
      if (event.key !== " " || event.target === button) return;
      event.preventDefault();
      toggle();
    });
    stage.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const move = moves[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (move && event.shiftKey) rotate(0.12 * move[0], 0.12 * move[1]);
      else if (move) step(move[0] - move[1]);
      else if (event.key === "Home") step(-frames);
      else if (event.key === "End") step(frames);
      else if (event.key === "+" || event.key === "=") zoom(1.15);
      else if (event.key === "-") zoom(1 / 1.15);
      else if (event.key === "r") reset();
      else return;
      event.preventDefault();
    });

    const held = new Map(); // pointer -> where it was
    const spread = () => { const [p, q] = [...held.values()]; return Math.hypot(p.x - q.x, p.y - q.y) || 1; };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.tagName !== "CANVAS") return;
      stage.setPointerCapture(event.pointerId);
      held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    stage.addEventListener("pointermove", (event) => {
      const was = held.get(event.pointerId);
      if (!was) return;
      const before = held.size === 2 ? spread() : 0, size = Math.max(panels[0].canvas.clientWidth, 1);
      const [dx, dy] = [event.clientX - was.x, event.clientY - was.y];
      held.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (before) zoom(spread() / before);
      else rotate((4 * dx) / size, (4 * dy) / size);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      stage.addEventListener(end, (event) => held.delete(event.pointerId));
    }
    stage.addEventListener("dblclick", (event) => { if (event.target.tagName === "CANVAS") reset(); });
    stage.addEventListener("wheel", (event) => { // the page scrolls, unless ctrl is down or the stage has the focus
      if (event.target.tagName !== "CANVAS") return;
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== stage) return;
      event.preventDefault();
      zoom(Math.exp(-clamp(event.deltaY * (event.deltaMode ? 30 : 1), -120, 120) / 500));
    }, { passive: false });

    const bar = find(".scale canvas").getContext("2d"), image = bar.createImageData(256, 1);
    for (let i = 0; i < 256; i++) image.data.set([...mesh.colours.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    bar.putImageData(image, 0, 0);
    for (const [place, textContent] of data.ticks) {
      const tick = make("span", { textContent });
      tick.style.left = `${100 * place}%`;
      find(".ticks").append(tick);
    }

    /* on paper: a row a panel, a column a time */
    addEventListener("beforeprint", () => {
      const strip = find(".strip"), count = Math.min(frames, 5);
      const picks = Array.from({ length: count }, (_, k) => (count > 1 ? Math.round((k * (frames - 1)) / (count - 1)) : 0));
      const cell = (textContent) => make("span", { textContent });
      strip.style.setProperty("--times", count);
      strip.replaceChildren(cell(""), ...picks.map((frame) => cell(`t = ${data.labels[frame]}`)));
      data.panels.forEach((panel, p) => {
        const row = picks.map((frame) => {
          const canvas = make("canvas", { width: 320, height: 320 });
          paint(canvas, p, frame);
          return canvas;
        });
        strip.append(cell(panel.name), ...row);
      });
    });

    new ResizeObserver(request).observe(stage);
    addEventListener("resize", request);
    renderer.onRestored(request);
    new IntersectionObserver(([entry]) => {
      visible = entry.isIntersecting;
      if (visible && !touched && !still.matches && !playing) play(true);
      if (visible) request();
    }, { threshold: 0.25 }).observe(stage);
    still.addEventListener("change", () => { if (still.matches) play(false); });
    play(false);
    go(0);
    draw();
  }

  const figures = [...document.querySelectorAll("figure.movie")];
  const renderer = figures.length ? createRenderer() : null;
  figures.forEach((figure) => show(figure, renderer));
  Object.assign(document.documentElement.dataset, { ready: "true", webgl: renderer ? "yes" : "no" });
})();
