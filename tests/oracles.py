"""Slow, obvious references in mpmath, written from THEORY's formulas and nothing of the library."""

from __future__ import annotations

from functools import lru_cache

import mpmath as mp

_NODES = None


def _gauss(count=16):
    """Gauss-Legendre nodes and weights on [0, 1] to the working precision."""
    global _NODES
    if _NODES is None or _NODES[0] != mp.mp.prec:
        nodes = []
        for i in range(count):
            x = mp.cos(mp.pi * (i + mp.mpf(3) / 4) / (count + mp.mpf(1) / 2))
            for _ in range(60):
                p0, p1 = mp.mpf(1), x
                for n in range(2, count + 1):
                    p0, p1 = p1, ((2 * n - 1) * x * p1 - (n - 1) * p0) / n
                slope = count * (x * p1 - p0) / (x * x - 1)
                step = p1 / slope
                x -= step
                if abs(step) < mp.eps * 8:
                    break
            nodes.append(((1 + x) / 2, 1 / ((1 - x * x) * slope * slope)))
        _NODES = (mp.mp.prec, nodes)
    return _NODES[1]


@lru_cache(maxsize=64)
def _growth(width, precision):
    """(e^(width node), weight) for the nodes of one panel; most panels have one of a few widths.

    `precision` is the working one, here so that another one is another entry of the cache.
    """
    assert precision == mp.mp.prec
    return [(mp.exp(width * node), weight) for node, weight in _gauss()]


_NOTHING = mp.mpf(10) ** -20


class ModeOracle:
    """One mode under gradient flow: (3.1)-(3.10) piece by piece, each integral by fine Gauss panels in the angle."""

    def __init__(self, frequency, norm, a, z, loss):
        self.p, self.r, self.loss = mp.mpf(float(frequency)), mp.mpf(float(norm)), loss
        self.a = [mp.mpf(float(x)) for x in a]
        self.z = [mp.mpf(float(x)) for x in z]
        self._prepare()

    def _prepare(self):
        r = self.r
        alive = [(a, z) for a, z in zip(self.a, self.z, strict=True) if a > 0]
        u0 = r * sum((a * z for a, z in alive), mp.mpf(0))
        self.backwards = self.loss == "squared" and u0 > 1
        leaves = []
        for a, z in alive:
            if self.backwards:
                leaves.append(-mp.log((z + a) / (z - a)) if z > a else None)
            else:
                leaves.append(mp.log((a - z) / (-(a + z))) if z < -a else None)
        order = sorted((abs(s), j) for j, s in enumerate(leaves) if s is not None)
        inside = set(range(len(alive)))
        self.events = [mp.mpf(0)]
        self.sums = [self._sums([alive[j] for j in inside])]
        for _, j in order:
            inside.discard(j)
            self.events.append(leaves[j])
            self.sums.append(self._sums([alive[j] for j in inside]))

    def _sums(self, neurons):
        rise = self.r * sum(((a + z) ** 2 for a, z in neurons), mp.mpf(0)) / 4
        fall = self.r * sum(((a - z) ** 2 for a, z in neurons), mp.mpf(0)) / 4
        return rise, fall

    def piece_of(self, angle):
        index = 0
        for k, event in enumerate(self.events):
            if abs(angle) >= abs(event):
                index = k
        return index

    def state(self, angle):
        """(u, S) at an angle."""
        rise, fall = self.sums[self.piece_of(angle)]
        up, down = rise * mp.exp(angle), fall * mp.exp(-angle)
        return up - down, up + down

    def residual(self, u):
        if self.loss == "cross-entropy":
            return 1 / (1 + mp.exp(u))
        return mp.exp(-u) if self.loss == "exponential" else mp.mpf(1)

    def reciprocal(self, u):
        return 1 + mp.exp(u) if self.loss == "cross-entropy" else mp.exp(u)

    def time(self, angle):
        """t at which the clock has run through `angle`."""
        total = mp.mpf(0)
        last = self.piece_of(angle)
        for k in range(last + 1):
            stop = angle if k == last else self.events[k + 1]
            total += self._stretch(*self.sums[k], self.events[k], stop)
        return total / (2 * self.p * self.r)

    def _stretch(self, rise, fall, s0, s1):
        """integral of 1/g over angles s0..s1 with fixed sums."""
        if self.loss == "hinge":
            return s1 - s0
        if s0 == s1:
            return mp.mpf(0)
        total, s = mp.mpf(0), s0
        while s < s1:
            up, down = rise * mp.exp(s), fall * mp.exp(-s)
            size, left = up + down, s1 - s
            if size < _NOTHING:
                # u is 0 for all that matters, until it has grown to where it is not.
                width = left if up == 0 else min(left, max(mp.mpf(1), mp.log(_NOTHING / up)))
                total += width * self.reciprocal(mp.mpf(0))
            else:
                # u moves at most e^width-fold over a panel, so that e^u stays smooth for 16 nodes.
                width = mp.mpf(2) if size < 0.02 else mp.mpf(1)
                while width * size > 3:
                    width /= 2
                panel = _growth if width <= left else _growth.__wrapped__
                nodes = panel(min(width, left), mp.mp.prec)
                width = min(width, left)
                total += width * mp.fsum(w * self.reciprocal(up * e - down / e) for e, w in nodes)
            s = s + width
        return total

    def logit(self, t, guess):
        """u(t) by Newton's iteration on (3.5) from `guess` (a float near the answer). hinge: directly."""
        t = mp.mpf(float(t))
        rate = 2 * self.p * self.r
        if self.loss == "hinge":
            return self._hinge(rate * t)
        if self.loss == "squared":
            return self._squared(rate * t)
        angle = self._angle_near(mp.mpf(float(guess)))
        for _ in range(12):
            u, _ = self.state(angle)
            step = (t - self.time(angle)) * rate * self.residual(u)
            angle += step
            # The iteration is quadratic: after a step this small what is left is far below every tolerance.
            if abs(step) < mp.mpf(10) ** -9:
                break
        else:
            raise ArithmeticError("the oracle did not converge; the guess is too far off")
        return self.state(angle)

    def _angle_near(self, u):
        """An angle at which the logit is about u, in the right piece."""
        starts = [self.state(e)[0] for e in self.events]
        k = 0
        for j, v in enumerate(starts):
            if (v <= u) != self.backwards:
                k = j
        rise, fall = self.sums[k]
        size = mp.sqrt(4 * rise * fall + u * u)
        if rise == 0 and fall == 0:
            return self.events[k]
        if u >= 0:
            angle = mp.log((u + size) / (2 * rise)) if rise > 0 else self.events[k]
        else:
            angle = mp.log(2 * fall / (size - u)) if fall > 0 else self.events[k]
        ends = [*self.events[k + 1 :], None][0]
        if ends is not None and abs(angle) > abs(ends):
            angle = ends
        return angle if abs(angle) >= abs(self.events[k]) else self.events[k]

    def _hinge(self, angle):
        u0, size = self.state(mp.mpf(0))
        if u0 >= 1:
            return u0, size
        for k, (rise, fall) in enumerate(self.sums):
            if self.events[k] > angle:
                break
            end = self.events[k + 1] if k + 1 < len(self.events) else None
            if rise > 0:
                stop = mp.log((1 + mp.sqrt(1 + 4 * rise * fall)) / (2 * rise))
                if (end is None or stop <= end) and stop <= angle:
                    return mp.mpf(1), mp.sqrt(1 + 4 * rise * fall)
        return self.state(angle)

    def _squared(self, left):
        """x = e^(angle) obeys x' = x - rise x^2 + fall: partial fractions piece by piece."""
        for k, (rise, fall) in enumerate(self.sums):
            if rise == 0 and fall == 0:
                return mp.mpf(0), mp.mpf(0)
            x0, end = mp.exp(self.events[k]), None
            root = mp.sqrt(1 + 4 * rise * fall)
            low = -2 * fall / (1 + root)
            # With rise = 0 the upper root is at infinity, and its factors drop out of the ratio.
            high = (1 + root) / (2 * rise) if rise > 0 else None
            if k + 1 < len(self.events):
                end = mp.exp(self.events[k + 1])
                inside = high is None or (end < high) != self.backwards
                if inside:
                    ratio = (end - low) / (x0 - low)
                    if high is not None:
                        ratio *= (x0 - high) / (end - high)
                    takes = mp.log(ratio) / root
                    if takes <= left:
                        left -= takes
                        continue
            if high is None:
                x = (x0 - low) * mp.exp(left) + low
            else:
                c = (x0 - low) / (x0 - high) * mp.exp(min(root * left, mp.mpf(10) ** 5))
                x = (c * high - low) / (c - 1)
            return rise * x - fall / x, rise * x + fall / x
