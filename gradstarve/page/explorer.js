"use strict";
// The explorer: sliders, plots and words around the closed form of clock.js.
(() => {
  const { data, sigmoid, makeClock, inflections, bending, span, descent, pair } = gradstarveClock;
  const LOSSES = ["cross-entropy", "hinge", "exponential", "squared"];

  // --- settings --------------------------------------------------------------------------------------------------------

  const NAMES = ["frequency", "norm", "a", "z"];
  const SYMBOLS = { frequency: "p", norm: "r", a: "a", z: "z" };
  const STEPS = 200;
  const BEND = 6; // of the slider for z: steps near 0 are sinh(6)/6 times as fine as they would be

  function checked(settings) {
    for (const name of NAMES) {
      const [low, high] = data.ranges[name];
      if (!(settings[name] >= low && settings[name] <= high)) {
        throw new RangeError(`${SYMBOLS[name]} must be between ${low} and ${high}, got ${settings[name]}`);
      }
    }
    if (!LOSSES.includes(settings.loss)) throw new RangeError(`loss must be one of ${LOSSES.join(", ")}, got ${settings.loss}`);
    const { frequency, norm, a, z, loss } = settings;
    return { frequency, norm, a, z, loss };
  }

  // Sliders have 0..STEPS: logarithmic, but z, which goes through 0.
  function fromSlider(name, step) {
    const [low, high] = data.ranges[name];
    const x = step / STEPS;
    const value = name === "z" ? (high * Math.sinh(BEND * (2 * x - 1))) / Math.sinh(BEND) : low * (high / low) ** x;
    return Math.min(high, Math.max(low, Number(value.toPrecision(3))));
  }

  function toSlider(name, value) {
    const [low, high] = data.ranges[name];
    const x = name === "z" ? (Math.asinh((value / high) * Math.sinh(BEND)) / BEND + 1) / 2 : Math.log(value / low) / Math.log(high / low);
    return Math.round(STEPS * x);
  }

  // --- words -----------------------------------------------------------------------------------------------------------

  const power = (n) => `10${String(n).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻")}`;
  function number(x, digits = 3) {
    if (x === 0 || !Number.isFinite(x)) return x === 0 ? "0" : "∞";
    const size = Math.abs(x);
    if (size >= 1e-3 && size < 1e5) return String(Number(x.toPrecision(size >= 1000 ? Math.max(digits, 5) : digits))).replace("-", "−");
    const [mantissa, exponent] = x.toExponential(digits - 1).split("e");
    const factor = String(Number(mantissa)).replace("-", "−");
    return factor === "1" ? power(Number(exponent)) : `${factor}·${power(Number(exponent))}`;
  }
  const percent = (e) => (e >= 0.001 ? `${number(100 * e)}\u00a0%` : number(e));
  const python = (x) => (Number.isInteger(x) ? `${x}.0` : String(x));
  // The settings in one line; only those in which they differ from others, if there are others.
  const inShort = (s, others = {}) => [...NAMES, "loss"].filter((name) => s[name] !== others[name])
    .map((name) => (name === "loss" ? s.loss : `${SYMBOLS[name]} = ${number(s[name], 4)}`)).join(", ");

  function fate({ settings, death, rate, rise, start, stop }) {
    if (death < Infinity) return ["ex-bad", "leaves", ` at t = ${number(death / rate)} and is dead from then on: z < −a`];
    if (rise === 0) return ["ex-bad", "never leaves", ", and never learns: with z = −a it comes to rest in the saddle, error 1/2"];
    if (settings.loss === "hinge") {
      if (start >= 1) return ["ex-good", "at rest", ": the margin is at least 1, and the hinge loss asks for no more"];
      return ["ex-good", "learns", `: margin 1 at t = ${number(stop / rate)}, where the hinge loss stops`];
    }
    if (settings.loss === "squared") return ["ex-good", "learns", start > 1 ? ": the margin comes down to 1" : ": the margin tends to 1"];
    return ["ex-good", "learns", ": z > −a, the margin grows for ever"];
  }

  function toOnePercent({ settings, death, rise, start, timeAt, angleAt, rate }) {
    const goal = Math.log(99);
    if (start >= goal) return settings.loss === "squared" ? "at the start, and not for long" : "from the start";
    if (death < Infinity || rise === 0) return "never: error 1/2 is the best it comes to";
    if (settings.loss === "hinge" || settings.loss === "squared") {
      return `never: at margin ${number(Math.max(start, 1))}, where this loss rests, it is ${percent(sigmoid(-(settings.loss === "hinge" ? Math.max(start, 1) : 1)))}`;
    }
    return `t = ${number(timeAt(angleAt(goal)) / rate, 4)}`;
  }

  function unbent(clock) {
    const { start, settings } = clock;
    if (start >= 1 && settings.loss === "hinge") return "none: the error stays as it is";
    if (start >= 1 && settings.loss === "squared") return start > 1 ? "not counted on the way down" : "none: the error stays as it is";
    return `none: the error is ${bending(clock, start) > 0 ? "concave" : "convex"} all along`;
  }

  function regime({ kappa, settings }) {
    const critical = data.kappa_critical[settings.loss];
    const value = kappa === 0 ? "0, balanced" : number(kappa);
    if (critical === null) return [`${value}; hinge has no passage from rich to lazy`];
    const sub = Object.assign(document.createElement("sub"), { textContent: "c" });
    return kappa < critical ? [`${value}: rich, below κ`, sub, ` = ${number(critical)}`] : [`${value}: lazy, not below κ`, sub, ` = ${number(critical)}`];
  }

  // --- plots -----------------------------------------------------------------------------------------------------------

  const $ = (id) => document.getElementById(id);
  const draw = (parent, tag, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  };

  function ticks(low, high, most) {
    const rough = (high - low) / most, size = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * size).find((m) => m >= rough * (1 - 1e-9));
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
    return found;
  }

  const tickLabel = (value, step) => (step >= 1e-5 && step < 1e5 ? value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9))).replace("-", "−") : number(value));

  const LOG_SPAN = 1e-4; // where a logarithmic axis begins, of its end
  const axis = { end: 1, log: false };
  const place = (t) => (axis.log ? Math.log(Math.max(t / axis.end, LOG_SPAN) / LOG_SPAN) / -Math.log(LOG_SPAN) : t / axis.end);
  const timeAtShare = (x) => (axis.log ? axis.end * LOG_SPAN ** (1 - x) : axis.end * x);

  // Times that show a curve whole: even on the axis, closer together at its start, and the kinks.
  function samples(clock) {
    const times = [];
    for (let k = 0; k <= 300; k++) times.push(timeAtShare(k / 300));
    if (!axis.log) for (let k = 0; k < 80; k++) times.push(axis.end * 10 ** (-10 + k / 10));
    for (const kink of [clock.death, clock.stop]) if (kink / clock.rate < axis.end) times.push(kink / clock.rate);
    if (axis.log) return times.sort((x, y) => x - y).filter((t) => t >= axis.end * LOG_SPAN);
    return times.sort((x, y) => x - y);
  }

  function plot(svg, title, curves, marks, low, high, levels) {
    const width = svg.clientWidth || 480, height = svg.clientHeight || 270;
    const values = ticks(low, high, 5), labels = values.map((value) => tickLabel(value, values[1] - values[0]));
    const box = { left: Math.max(46, 12 + 6.5 * Math.max(...labels.map((text) => text.length))), right: width - 12, top: 10, bottom: height - 38 };
    const x = (t) => box.left + (box.right - box.left) * place(t);
    const y = (value) => box.bottom - ((box.bottom - box.top) * (value - low)) / (high - low);
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    // What a reader of the drawing needs to turn its coordinates back into numbers.
    Object.assign(svg.dataset, { ...box, low, high, end: axis.end });
    draw(svg, "title", {}, title);
    for (const [k, value] of values.entries()) {
      draw(svg, "line", { class: "ex-grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) });
      draw(svg, "text", { x: box.left - 7, y: y(value) + 4, "text-anchor": "end" }, labels[k]);
    }
    const some = Math.max(3, Math.floor(width / 65));
    const whens = axis.log ? [...Array(9).keys()].map((k) => 10 ** (Math.floor(Math.log10(axis.end)) - k)).filter((t) => t >= axis.end * LOG_SPAN) : ticks(0, axis.end, some);
    for (const t of whens) {
      draw(svg, "line", { class: "ex-grid", x1: x(t), x2: x(t), y1: box.top, y2: box.bottom });
      draw(svg, "text", { x: x(t), y: box.bottom + 16, "text-anchor": "middle" }, number(t));
    }
    draw(svg, "text", { x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle" }, "time t (step size × step)");
    for (const value of levels.filter((v) => v > low && v < high)) {
      draw(svg, "line", { class: "ex-level", x1: box.left, x2: box.right, y1: y(value), y2: y(value) });
    }
    for (const { name, points } of curves) {
      const path = points.map(([t, value], k) => `${k ? "L" : "M"}${x(t).toFixed(2)} ${y(value).toFixed(2)}`).join("");
      draw(svg, "path", { class: name, d: path });
    }
    for (const { name, t, value } of marks) {
      if (name === "ex-gone") {
        draw(svg, "path", { class: name, d: `M${x(t) - 5} ${y(value) - 5}l10 10m0 -10l-10 10` });
      } else draw(svg, "circle", { class: name, cx: x(t), cy: y(value), r: 4.5 });
    }
    draw(svg, "g", { class: "ex-reading" });
    svg.reading = (t, dots) => {
      const group = svg.querySelector(".ex-reading");
      group.replaceChildren();
      draw(group, "line", { class: "ex-line", x1: x(t), x2: x(t), y1: box.top, y2: box.bottom });
      for (const { name, value } of dots) draw(group, "circle", { class: name, cx: x(t), cy: y(value), r: 4 });
    };
  }

  // --- the page --------------------------------------------------------------------------------------------------------

  let state = checked({ frequency: 0.5, norm: 1, a: 0.1, z: 0.1, loss: "cross-entropy" });
  let pinned = null; // settings
  let now = makeClock(state), then = null;
  // What is drawn beside the curve: another class or a rare feature, and descent with a step size.
  const beside = { kind: "nothing", norm: 1, step: 0 };
  const rarity = () => 1 - state.frequency;

  // The other curves: their class, what they are called, and their margins at times.
  function others() {
    const rare = rarity();
    if (beside.kind === "nothing" || rare < data.ranges.frequency[0]) return [];
    if (beside.kind === "class") {
      const clock = makeClock({ ...state, frequency: rare, norm: beside.norm });
      return [{ name: "ex-curve-1", words: `other class: p = ${number(rare, 4)}, r = ${number(beside.norm, 4)}`, span: span(clock), at: (times) => times.map(clock.logit) }];
    }
    const alone = makeClock({ ...state, frequency: rare });
    const both = (k) => (times) => pair(now, rare, times).map((values) => values[k]);
    return [
      { name: "ex-curve-0", words: "frequent feature, in all samples", span: 0, at: both(0) },
      { name: "ex-curve-1", words: `rare feature beside it, in ${number(100 * rare, 3)} %`, span: 0, at: both(1) },
      { name: "ex-curve-2", words: "rare feature, if alone", span: span(alone), at: (times) => times.map(alone.logit) },
    ];
  }
  const BESIDE_WORDS = {
    class: "A second class has the rest of the data, 1 − p, and a neuron with the same a and z. It learns as if alone (2.1).",
    feature: "All samples have the frequent feature, the part 1 − p of them the rare one too; a neuron each, with the same a and z (10.1).",
  };

  const round = (low, high) => {
    if (low === high) return [low, low + 1];
    const all = ticks(low, high, 5), step = all.length > 1 ? all[1] - all[0] : 1;
    return [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
  };

  function show() {
    const clocks = then ? [then, now] : [now];
    const extra = others();
    axis.end = Math.max(...clocks.map(span), ...extra.map((one) => Math.min(one.span, 20 * span(now))));
    const drawn = clocks.map((clock) => samples(clock).map((t) => [t, clock.logit(t)]));
    const names = clocks.map((clock) => (clock === now ? "ex-curve" : "ex-curve-pin"));
    const bends = inflections(now);
    const marks = bends.filter(({ t }) => t <= axis.end).map(({ t, u }) => ({ name: "ex-bend", t, u }));
    for (const { death, rate } of clocks) if (death < Infinity) marks.push({ name: "ex-gone", t: death / rate, u: 0 });
    for (const one of extra) {
      const times = samples(now);
      const values = one.at(times);
      drawn.push(times.map((t, k) => [t, values[k]]));
      names.push(one.name);
    }
    for (const [t, u] of steps()) marks.push({ name: "ex-step", t, u });
    $("ex-key-others").replaceChildren(...extra.flatMap(({ name, words }) => [
      Object.assign(document.createElement("span"), { className: `ex-key ex-key-${name.slice(-1)}` }),
      Object.assign(document.createElement("span"), { textContent: words }),
    ]));
    $("ex-beside-words").textContent = extra.length || beside.kind === "nothing" ? BESIDE_WORDS[beside.kind] ?? "" : "There is nothing beside it while p is 1.";
    $("ex-beside-words").hidden = beside.kind === "nothing";
    $("ex-other-row").hidden = beside.kind !== "class";
    const us = [...drawn.flat(), ...steps()].map(([, u]) => u).filter(Number.isFinite);
    const [low, high] = round(Math.min(0, ...us), Math.max(0, ...us));
    const margins = drawn.map((points, k) => ({ name: names[k], points }));
    const errors = margins.map(({ name, points }) => ({ name, points: points.map(([t, u]) => [t, sigmoid(-u)]) }));
    // From 0, but for curves that never get below 1/2.
    const most = sigmoid(-Math.min(...us));
    const [least, top] = Math.max(...us) > 0 ? round(0, Math.max(most, 0.5)) : round(0.5, Math.max(most, 0.51));
    const [first, last] = [now.start, now.logit(axis.end)];
    plot($("ex-margin"), `Margin against time, from ${number(first)} to ${number(last)} at t = ${number(axis.end)}`,
      margins, marks.map((m) => ({ ...m, value: m.u })), low, high, [0, 1]);
    plot($("ex-error"), `Error against time, from ${percent(sigmoid(-first))} to ${percent(sigmoid(-last))} at t = ${number(axis.end)}`,
      errors, marks.map((m) => ({ ...m, value: sigmoid(-m.u) })), least, top, [0.5]);
    words(bends);
    read();
  }

  // Descent by steps, at most 60 of them spread over the axis.
  function steps() {
    if (!(beside.step > 0)) return [];
    const count = Math.min(5000, Math.floor(axis.end / beside.step));
    const margins = descent(state, beside.step, count), every = Math.max(1, Math.ceil(count / 60));
    return margins.map((u, k) => [k * beside.step, u]).filter(([, u], k) => k % every === 0 && Math.abs(u) < 1e6);
  }

  // What is drawn, as a table: a row a time, a column a curve.
  function table() {
    const times = samples(now), extra = others();
    const columns = [["margin", times.map(now.logit)], ...(then ? [["margin, pinned", times.map(then.logit)]] : [])];
    for (const one of extra) columns.push([`margin, ${one.words.replaceAll(",", ";")}`, one.at(times)]);
    const head = ["t", ...columns.flatMap(([name]) => [name, name.replace("margin", "error")]).map((name) => `"${name}"`)].join(",");
    const rows = times.map((t, k) => [t, ...columns.flatMap(([, values]) => [values[k], sigmoid(-values[k])])].join(","));
    return `${[head, ...rows].join("\n")}\n`;
  }

  function words(bends) {
    const [kind, word, rest] = fate(now);
    $("ex-fate").replaceChildren(Object.assign(document.createElement("span"), { className: kind, textContent: word }), rest);
    $("ex-percent").textContent = toOnePercent(now);
    $("ex-start").textContent = `u(0) = r a z = ${number(now.start)}, error ${percent(sigmoid(-now.start))}`;
    $("ex-kappa").replaceChildren(...regime(now));
    $("ex-bends").textContent = bends.length ? `the error bends at t = ${bends.map(({ t }) => number(t)).join(", ")} (circles)` : unbent(now);
    $("ex-key-now").textContent = inShort(state);
    $("ex-key-pin").textContent = pinned ? `pinned: ${inShort(pinned, state) || "the same"}` : "";
    document.querySelector("#explorer .ex-pinned").hidden = !pinned;
    $("ex-unpin").hidden = !pinned;
  }

  // What the curves say at the time under the cursor.
  function read() {
    const share = Number($("ex-time").value) / Number($("ex-time").max);
    const t = Number(timeAtShare(share).toPrecision(4));
    const at = (clock) => clock.logit(t);
    const said = (clock) => `margin ${number(at(clock), 4)}, error ${percent(sigmoid(-at(clock)))}`;
    const dots = [...(then ? [{ name: "ex-dot-pin", u: at(then) }] : []), { name: "ex-dot", u: at(now) }];
    $("ex-margin").reading(t, dots.map(({ name, u }) => ({ name, value: u })));
    $("ex-error").reading(t, dots.map(({ name, u }) => ({ name, value: sigmoid(-u) })));
    const told = (className, textContent) => Object.assign(document.createElement("span"), { className, textContent });
    $("ex-values").replaceChildren(`t = ${number(t, 4)}: `, told("ex-now", said(now)), ...(then ? [" · pinned: ", told("ex-then", said(then))] : []));
    $("ex-time").setAttribute("aria-valuetext", `t = ${number(t, 4)}, ${said(now)}`);
    const { frequency, norm, a, z, loss } = state;
    const mode = `frequency=${python(frequency)}, norm=${python(norm)}, a=[${python(a)}], z=[${python(z)}]`;
    $("ex-python").textContent = `import gradstarve as gs\nmode = gs.Mode(${mode})\ngs.solve_mode(mode, "${loss}").logit(${python(t)})`;
  }

  function fillIn() {
    for (const name of NAMES) {
      const slider = $(`ex-${name}`), field = $(`ex-${name}-number`);
      slider.value = toSlider(name, state[name]);
      slider.setAttribute("aria-valuetext", String(state[name]));
      if (field !== document.activeElement || Number(field.value) !== state[name]) field.value = String(state[name]);
      field.removeAttribute("aria-invalid");
    }
    $("ex-trouble").hidden = true;
    for (const radio of document.getElementsByName("ex-loss")) radio.checked = radio.value === state.loss;
  }

  function set(settings) {
    state = checked({ ...state, ...settings });
    now = makeClock(state);
    fillIn();
    show();
  }

  function pin(settings) {
    pinned = settings && checked(settings);
    then = pinned && makeClock(pinned);
    show();
  }

  // --- the address: #explorer?frequency=..&norm=..&a=..&z=..&loss=..&pin=p,r,a,z,loss -------------------------------------

  let waiting = 0;
  function remember() {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const query = new URLSearchParams(state);
      if (pinned) query.set("pin", [...NAMES.map((name) => pinned[name]), pinned.loss].join(","));
      if (axis.log) query.set("axis", "log");
      if (beside.kind !== "nothing") query.set("beside", `${beside.kind},${beside.norm}`);
      if (beside.step > 0) query.set("step", beside.step);
      history.replaceState(null, "", `#explorer?${query}`);
    }, 200);
  }

  function recall() {
    if (!location.hash.startsWith("#explorer?")) return false;
    const query = new URLSearchParams(location.hash.slice("#explorer?".length));
    const wanted = { ...state };
    for (const name of NAMES) if (query.has(name)) wanted[name] = Number(query.get(name));
    if (query.has("loss")) wanted.loss = query.get("loss");
    const [loss, ...rest] = (query.get("pin") ?? "").split(",").reverse();
    const numbers = Object.fromEntries(NAMES.map((name, k) => [name, Number(rest[NAMES.length - 1 - k])]));
    axis.log = query.get("axis") === "log";
    for (const radio of document.getElementsByName("ex-axis")) radio.checked = (radio.value === "log") === axis.log;
    const [kind, otherNorm] = (query.get("beside") ?? "nothing,1").split(",");
    beside.kind = ["class", "feature"].includes(kind) ? kind : "nothing";
    beside.norm = within("norm", Number(otherNorm)) ? Number(otherNorm) : 1;
    beside.step = Number(query.get("step")) > 0 && Number(query.get("step")) <= 100 ? Number(query.get("step")) : 0;
    fillBeside();
    try {
      pinned = loss ? checked({ ...numbers, loss }) : null;
      then = pinned && makeClock(pinned);
      set(wanted);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      set({});
      complain(`The address asks for what there is not: ${error.message}`);
    }
    $("explorer").scrollIntoView();
    return true;
  }

  const within = (name, value) => value >= data.ranges[name][0] && value <= data.ranges[name][1];

  function fillBeside() {
    for (const radio of document.getElementsByName("ex-beside")) radio.checked = radio.value === beside.kind;
    $("ex-other-number").value = String(beside.norm);
    $("ex-step-number").value = String(beside.step);
  }

  function complain(text) {
    $("ex-trouble").textContent = text;
    $("ex-trouble").hidden = false;
  }

  // --- what a reader does ------------------------------------------------------------------------------------------------

  const change = (settings) => {
    set(settings);
    remember();
  };
  for (const name of NAMES) {
    const [low, high] = data.ranges[name];
    const slider = $(`ex-${name}`), field = $(`ex-${name}-number`);
    Object.assign(slider, { min: 0, max: STEPS, step: 1 });
    Object.assign(field, { min: low, max: high });
    slider.addEventListener("input", () => change({ [name]: fromSlider(name, Number(slider.value)) }));
    field.addEventListener("input", () => {
      try {
        change({ [name]: field.value.trim() === "" ? NaN : Number(field.value) });
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        field.setAttribute("aria-invalid", "true");
        complain(`${SYMBOLS[name]} must be a number between ${low} and ${high}.`);
      }
    });
    field.addEventListener("blur", fillIn);
  }
  for (const radio of document.getElementsByName("ex-loss")) radio.addEventListener("change", () => change({ loss: radio.value }));
  for (const button of document.querySelectorAll("#explorer button[data-a]")) {
    button.addEventListener("click", () => change({ a: Number(button.dataset.a), z: Number(button.dataset.z) }));
  }
  for (const radio of document.getElementsByName("ex-axis")) {
    radio.addEventListener("change", () => {
      axis.log = radio.value === "log";
      show();
      remember();
    });
  }
  for (const radio of document.getElementsByName("ex-beside")) {
    radio.addEventListener("change", () => {
      beside.kind = radio.value;
      show();
      remember();
    });
  }
  const numberOf = (id, good, take, message) => {
    const field = $(id);
    field.addEventListener("input", () => {
      const value = field.value.trim() === "" ? NaN : Number(field.value);
      if (good(value)) field.removeAttribute("aria-invalid"); else field.setAttribute("aria-invalid", "true");
      if (!good(value)) return complain(message);
      take(value);
      $("ex-trouble").hidden = true;
      show();
      remember();
    });
    field.addEventListener("blur", () => {
      field.removeAttribute("aria-invalid");
      fillBeside();
    });
  };
  numberOf("ex-other-number", (v) => within("norm", v), (v) => (beside.norm = v), `The norm must be a number between ${data.ranges.norm.join(" and ")}.`);
  numberOf("ex-step-number", (v) => v >= 0 && v <= 100, (v) => (beside.step = v), "The step size must be a number between 0 and 100.");
  $("ex-download").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    Object.assign(document.createElement("a"), { href: address, download: "learning-curve.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  });
  for (const radio of document.getElementsByName("ex-which")) {
    radio.addEventListener("change", () => ($("ex-plots").dataset.shown = radio.value));
  }
  $("ex-pin").addEventListener("click", () => (pin(state), remember()));
  $("ex-unpin").addEventListener("click", () => (pin(null), $("ex-pin").focus(), remember()));
  $("ex-time").addEventListener("input", read);
  for (const id of ["ex-margin", "ex-error"]) {
    const follow = (event) => {
      const { left, right } = $(id).dataset;
      const share = (event.clientX - $(id).getBoundingClientRect().left - left) / (right - left);
      $("ex-time").value = Math.round(Math.min(1, Math.max(0, share)) * Number($("ex-time").max));
      read();
    };
    $(id).addEventListener("pointermove", follow);
    $(id).addEventListener("pointerdown", follow);
  }
  $("ex-copy").addEventListener("click", async () => {
    const text = $("ex-python").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Pages opened from disk may not use the clipboard; what is selected can be copied by hand.
      getSelection().selectAllChildren($("ex-python"));
      if (!document.execCommand("copy")) return;
    }
    $("ex-copy").textContent = "Copied";
    setTimeout(() => ($("ex-copy").textContent = "Copy"), 1500);
  });
  $("explorer").querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", recall);
  const resized = new ResizeObserver(show);
  for (const id of ["ex-margin", "ex-error"]) resized.observe($(id));

  const forTimes = (value) => (settings, t) => {
    const clock = makeClock(checked(settings));
    return Array.isArray(t) ? t.map((one) => value(clock, one)) : value(clock, t);
  };
  window.gradstarveExplorer = {
    logit: forTimes((clock, t) => clock.logit(t)),
    inflections: (settings) => inflections(makeClock(checked(settings))).map(({ t }) => t),
    pair: (settings, rare, times) => pair(makeClock(checked(settings)), rare, times),
    descent: (settings, step, count) => descent(checked(settings), step, count),
    leaves: (settings) => { const clock = makeClock(checked(settings)); return clock.death / clock.rate; },
    set,
  };
  fillBeside();
  if (!recall()) set({});
})();
