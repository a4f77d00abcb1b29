"use strict";
// The closed form of one neuron in the browser: elementary, or from the tables of curves.py.
const gradstarveClock = (() => {
  const data = JSON.parse(document.getElementById("curve-tables").textContent);
  const CONSTANT = { "cross-entropy": 1, exponential: 0 }; // c in 1/g = c + e^u
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  // --- the tables ------------------------------------------------------------------------------------------------------

  // The Chebyshev points of [0, 1] and their weights in the barycentric formula.
  const points = (count) => Array.from({ length: count }, (_, k) => [
    (1 - Math.cos((Math.PI * k) / (count - 1))) / 2,
    (k % 2 ? -1 : 1) * (k % (count - 1) ? 1 : 0.5),
  ]);
  const KAPPAS = points(data.tables.above.length), LOGITS = points(data.tables.above[0].length);

  // The polynomial through the values at the points.
  function through(at, values, x) {
    let above = 0, below = 0;
    for (let k = 0; k < at.length; k++) {
      const gap = x - at[k][0];
      if (gap === 0) return values[k];
      const weight = at[k][1] / gap;
      above += weight * values[k];
      below += weight;
    }
    return above / below;
  }

  // The tables at one kappa: R and, below u = -1, the integral of e^v/S from -infinity.
  function integrals(kappa) {
    const y = Math.sqrt(kappa / data.kappa_top);
    const rows = {};
    const row = (name) => {
      const table = data.tables[name];
      return (rows[name] ??= LOGITS.map((_, k) => through(KAPPAS, table.map((line) => line[k]), y)));
    };
    const whole = data.u_top / (data.u_top + data.scale);
    return {
      remainder(u) {
        if (u === 0) return 0;
        if (u > data.u_top) return Infinity;
        const [name, x] = u > 0 ? ["above", Math.sqrt(u / (u + data.scale) / whole)] : ["middle", -u];
        const scaled = through(LOGITS, row(name), x);
        const rest = Math.abs(u) < 1e-4 ? (u * u * (3 + u)) / 6 : Math.expm1(u) - u;
        return (2 * scaled * rest) / (Math.hypot(kappa, u) + kappa);
      },
      tail(u) {
        return (Math.exp(u) * through(LOGITS, row("below"), Math.log(-u) / Math.log(-data.u_low))) / Math.hypot(kappa, u);
      },
    };
  }

  // --- the clock: u = rise e^s - fall e^-s, and the time T = 2 p r t that it takes to the angle s ------------------------

  function makeClock(settings) {
    const { frequency, norm, a, z, loss } = settings;
    const rise = (norm * (a + z) ** 2) / 4, fall = (norm * (a - z) ** 2) / 4;
    const kappa = 2 * Math.sqrt(rise * fall), start = rise - fall;
    const logitAt = (s) => (rise === 0 ? 0 : rise * Math.exp(s)) - fall * Math.exp(-s);
    const angleAt = (u) => {
      const larger = (Math.abs(u) + Math.hypot(kappa, u)) / 2;
      return u >= 0 ? Math.log(larger) - Math.log(rise) : Math.log(fall) - Math.log(larger);
    };
    const clock = { settings, rise, fall, kappa, start, rate: 2 * frequency * norm, logitAt, angleAt };
    Object.assign(clock, loss === "hinge" ? hinge(clock) : loss === "squared" ? squared(clock) : grown(clock));
    // A neuron with z < -a has left, and is dead, at the angle at which a = 0, and u with it (3.10).
    clock.leaving = a + z < 0 ? Math.log((a - z) / -(a + z)) : Infinity;
    clock.death = clock.leaving < Infinity ? clock.timeAt(clock.leaving) : Infinity;
    // The margin at the time t, which is that of step size x step.
    clock.logit = (t) => {
      const time = clock.rate * t;
      return time === 0 ? start : time >= clock.death ? 0 : clock.stateAt(time);
    };
    return clock;
  }

  function hinge({ start, angleAt, logitAt }) {
    const stop = start >= 1 ? 0 : angleAt(1);
    return { stop, timeAt: (s) => s, stateAt: (time) => (start >= 1 ? start : time >= stop ? 1 : logitAt(time)) };
  }

  // dx/dT = fall + x - rise x^2 for x = e^s: x = N/D, both linear in e^(-w T).
  function squared({ rise, fall }) {
    const w = Math.sqrt(1 + 4 * rise * fall);
    const level = (4 * rise * fall) / (w + 1); // w - 1
    const stateAt = (time) => {
      const decay = Math.exp(-w * time);
      const top = w + 1 + 2 * fall + decay * (level - 2 * fall);
      const bottom = level + 2 * rise + decay * (w + 1 - 2 * rise);
      return (rise === 0 ? 0 : (rise * top) / bottom) - (fall * bottom) / top;
    };
    const timeAt = (s) => {
      const x = Math.exp(s);
      const decay = (w + 1 + 2 * fall - x * (level + 2 * rise)) / (x * (w + 1 - 2 * rise) + 2 * fall - level);
      return -Math.log(decay) / w;
    };
    return { stateAt, timeAt };
  }

  function grown({ settings, rise, kappa, start, logitAt, angleAt }) {
    const constant = CONSTANT[settings.loss];
    const { remainder, tail } = integrals(kappa);
    const join = start < -1 ? tail(-1) - angleAt(-1) - remainder(-1) : 0;
    // integral of e^u over the angle, but for a constant; the tail alone while u < -1, where nothing else has its digits.
    const mass = (u, s) => (u < -1 ? tail(u) : join + s + remainder(u));
    const before = mass(start, 0);
    const timeOf = (u, s) => constant * s + mass(u, s) - before;
    // Newton's method for log T, held in a bracket.
    const stateAt = (time) => {
      let low = 0, high = 1;
      while (timeOf(logitAt(high), high) < time && high < 1e300) [low, high] = [high, 2 * high];
      let s = (low + high) / 2;
      for (let turn = 0; turn < 200; turn++) {
        const u = logitAt(s), spent = timeOf(u, s);
        if (spent < time) low = s;
        else high = s;
        const next = s + (Math.log(time / spent) * spent) / (constant + Math.exp(u));
        if (Math.abs(next - s) * (kappa + Math.abs(u)) < 1e-10 || high - low <= 1e-15 * high) break;
        // Now and then the middle, should Newton creep.
        s = next > low && next < high && turn % 4 < 3 ? next : (low + high) / 2;
      }
      return logitAt(s);
    };
    return { stateAt, timeAt: (s) => timeOf(s === 0 ? start : logitAt(s), s), timeOf };
  }

  // The logits at which the error bends: the zeros of (5.1) between the start and the end of the curve.
  function inflections(clock) {
    const { kappa, start, rise, angleAt, logitAt, leaving } = clock;
    const kind = clock.settings.loss;
    if (start >= 2 || (start >= 1 && (kind === "hinge" || kind === "squared"))) return [];
    const bend = (s) => bending(clock, logitAt(s));
    const top = kind === "hinge" || kind === "squared" ? 1 : 2; // no curve bends above
    const end = Math.min(leaving, rise === 0 ? 50 : angleAt(top)) * (1 - 1e-9);
    const found = [];
    const count = 2000;
    let before = bend(0);
    for (let k = 1; k <= count; k++) {
      let low = (end * (k - 1)) / count, high = (end * k) / count;
      const after = bend(high);
      if ((before < 0) !== (after < 0)) {
        for (let turn = 0; turn < 50; turn++) {
          const middle = (low + high) / 2;
          if ((bend(middle) < 0) === (before < 0)) low = middle;
          else high = middle;
        }
        const s = (low + high) / 2;
        if (s > 1e-12 * end) found.push({ t: clock.timeAt(s) / clock.rate, u: logitAt(s) }); // and not the start itself
      }
      before = after;
    }
    return found;
  }

  // The sign of (5.1): above 0 the error falls ever faster, and its curve is concave.
  function bending({ settings, kappa }, u) {
    const slope = { "cross-entropy": -sigmoid(u), hinge: 0, exponential: -1, squared: -1 / (1 - u) }[settings.loss];
    return 1 - 2 * sigmoid(u) + slope + u / (kappa * kappa + u * u);
  }

  // Descent of one neuron, exactly (8.1): a + z and a - z are multiplied by 1 + c and 1 - c, c = eta p r g(u). The margins after
  // 0, 1, ..., `steps` steps; 0 from the step on at which the neuron has left.
  const residual = (loss, u) => (loss === "hinge" ? Number(u < 1) : loss === "squared" ? 1 - u : loss === "exponential" ? Math.exp(-u) : sigmoid(-u));
  function descent({ frequency, norm, a, z, loss }, step, steps) {
    let sum = a + z, difference = a - z;
    const found = [];
    for (let k = 0; k <= steps; k++) {
      const on = sum + difference > 0;
      const u = on ? (norm * (sum * sum - difference * difference)) / 4 : 0;
      found.push(u);
      const c = on ? step * frequency * norm * residual(loss, u) : 0;
      sum *= 1 + c;
      difference *= 1 - c;
    }
    return found;
  }

  // A frequent feature, in all samples, and a rare one, in the part `rare` of them, each seen by a neuron as that of `clock`
  // (10.1): the angle of feature k moves at 2 r sum p_S g(m_S) over the samples S that have it. [frequent, rare] at the times.
  function pair(clock, rare, times) {
    const { settings, logitAt, leaving } = clock;
    const g = (u) => residual(settings.loss, u), often = 1 - rare, rate = 2 * settings.norm;
    const at = (s) => (s >= leaving ? 0 : s === 0 ? clock.start : logitAt(s));
    const speeds = (one, two) => {
      const v = at(one), w = at(two), shared = rare * g(v + w);
      return [one >= leaving ? 0 : rate * (often * g(v) + shared), two >= leaving ? 0 : rate * shared];
    };
    let angles = [0, 0], now = 0;
    return times.map((t) => {
      for (let turn = 0; now < t && turn < 100000; turn++) {
        const first = speeds(...angles), fastest = Math.max(Math.abs(first[0]), Math.abs(first[1]));
        // Angles move by at most 0.02, and with the hinge loss, whose speeds jump, straight to the jump.
        let dt = Math.min(t - now, fastest > 0 ? (settings.loss === "hinge" ? 1 : 0.02) / fastest : t - now);
        const moved = (speed, time) => angles.map((s, k) => s + speed[k] * time);
        if (settings.loss === "hinge") {
          const same = (time) => speeds(...moved(first, time)).every((v, k) => v === first[k]);
          if (!same(dt)) {
            let low = 0, high = dt;
            for (let k = 0; k < 60; k++) same((low + high) / 2) ? (low = (low + high) / 2) : (high = (low + high) / 2);
            dt = high;
          }
          angles = moved(first, dt);
        } else {
          const second = speeds(...moved(first, dt / 2)), third = speeds(...moved(second, dt / 2)), fourth = speeds(...moved(third, dt));
          angles = angles.map((s, k) => s + (dt * (first[k] + 2 * second[k] + 2 * third[k] + fourth[k])) / 6);
        }
        now = dt >= t - now ? t : now + dt;
      }
      return angles.map(at);
    });
  }

  // How long the axis of time has to be to show the whole curve.
  function span(clock) {
    const { settings, start, rise, death, rate, timeAt, angleAt } = clock;
    let time;
    if (death < Infinity) time = 1.3 * death;
    else if (settings.loss === "hinge") time = start >= 1 ? 1 : rise === 0 ? 5 : 1.3 * clock.stop;
    else if (rise === 0) time = timeAt(5);
    else if (settings.loss === "squared") time = start === 1 ? 1 : timeAt(angleAt(1 - 0.01 * (1 - start)));
    else time = timeAt(angleAt(Math.max(Math.log(99) + 0.5, start + 1)));
    return time / rate;
  }

  return { data, sigmoid, makeClock, inflections, bending, span, descent, pair };
})();
