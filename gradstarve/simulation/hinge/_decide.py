"""Who is held after an event of the hinge flow: which margins slide at 1, and which neurons along which edges (12.1, 16.3).

Where neuron j is on the edge w_j.x_i = 0 of points with y_i z_j < 0 and margins are at 1, the loss is locally a convex
function of smooth ones, and the flow is its shortest gradient: that of the pulls p_i in [0, q_i] of the points at 1 (q_i
below 1, 0 above) and the shares s_ji in [0, 1] on the edges, which make

    1/2 sum_j ( z_j^2 |c_j|^2 + (sum_i [active] p_i y_i w_j.x_i)^2 ),   c_j = sum_i ([active] + s_ji) p_i y_i x_i

smallest. This is one joint complementarity problem: dm_i/dt >= 0 where p_i = 0, <= 0 where p_i = q_i, and 0 in between; the
same for edges, which the neuron leaves downwards where s_ji = 0 and upwards where s_ji = 1. For known p it falls apart: each
neuron has the least squares of |c_j| in a box. What is left is a convex and piecewise quadratic function of p alone, whose
pieces are told apart by who is held on edges; Newton steps from piece to piece come to its minimum.

Points on one line through 0 share one edge, and their sides change together: of their pulls the neuron feels between D, what
they push below the edge, and U, above it. Where z_j (U - D) > 0 (a single point with y_i z_j > 0, or points of both labels)
the edge repels: a neuron that arrives passes it, as its speed only grows. The way is open (16.4) where a held edge begins to
repel; where several repelling edges are met at once and their order matters; where another side of one that a neuron is on
leads to another motion, standing still included; and where the pull of one of two labels on a line is open, so that the edge
attracts below that margin and repels above, a neuron may as well stay there, and descent does not leave at once (`_near`).

Margins at 1 that depend on each other leave their pulls open, and `_ties` chooses; `_holds` tries every decision.

In a leaky network of slope al a neuron feels al of the pull of a point that it is not active on: [active] above is then 1 or
al, and s_ji counts from al to 1.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gradstarve.problem import Dataset
from gradstarve.simulation.hinge._holds import Way, first_breach
from gradstarve.simulation.hinge._near import Corner, goes_one_way
from gradstarve.simulation.hinge._passage import AT_ONE, BOX, EDGE, LINE, RATE, START
from gradstarve.simulation.hinge._run import EventKind, State, Stop
from gradstarve.simulation.hinge._ties import Slacks, nullspace, split

# Newton steps from piece to piece of one decision, times that a line of edges is looked at, and repelling edges at once.
_PIECES, _LOOKS, _AT_ONCE = 60, 8, 6
# Unit vectors whose products have no eigenvalue below this do not depend on each other.
_APART = 1e-3
# A share this near to its bound is at it, if the search for its way there says so.
_AT_BOUND = 1e-4
# Decisions at one moment that change nothing, before rounding has the last word.
_MOST_STUCK = 3


class Open(Exception):
    """The flow does not determine how it goes on: neuron, point, and the point whose margin is held on the same edge where
    that is why."""


class Doubt(Exception):
    """What was decided does not hold, to rounding: neuron, point."""


class Lines(NamedTuple):
    """The edges that one neuron is on, one row for each line: a point `at` it, [g], `x` of this point [g, d], what points
    are in units of it, [g, n], which ones are its `members`, [g, n]; and whether its side is booked as `up`, whether it is
    `arriving`, [g], and what its share has to be, nan if that is to be found, [g]."""

    at: np.ndarray
    x: np.ndarray
    unit: np.ndarray
    members: np.ndarray
    up: np.ndarray
    gliding: np.ndarray
    arriving: np.ndarray
    forced: np.ndarray


class Found(NamedTuple):
    """One neuron with known pulls: the `share` of every line, 0 below and 1 above, the force c_j [d], and which lines are
    held, which repel, and of which this is `unclear` while pulls are open, [g] each."""

    share: np.ndarray
    force: np.ndarray
    held: np.ndarray
    repels: np.ndarray
    unclear: np.ndarray


class Network(NamedTuple):
    """One network at an event, in NumPy; `margins` as they are booked."""

    w: np.ndarray
    z: np.ndarray
    active: np.ndarray
    glides: np.ndarray
    share: np.ndarray
    live: np.ndarray
    held: np.ndarray
    tied: np.ndarray
    arriving: int
    bound: int
    time: float
    eps: float
    every: bool = False  # whether shares are looked for on repelling edges too


class Sides(NamedTuple):
    """Who is `active` on which point, who glides and with which `share` [h, n]; which margins are `live` and `held`, and
    which of those held are `tied` to the others, their pull being at its bound [n]; and whether nothing pulls any more."""

    active: np.ndarray
    glides: np.ndarray
    share: np.ndarray
    live: np.ndarray
    held: np.ndarray
    tied: np.ndarray
    still: bool


def in_box(columns: np.ndarray, rest: np.ndarray, tol: float) -> np.ndarray:
    """The u in [0, 1] that make |columns u + rest| smallest."""
    if not columns.size:
        return np.zeros(columns.shape[1])
    if columns.shape[1] == 1:
        column = columns[:, 0]
        strength = column @ column
        return np.clip(-(column @ rest) / strength, 0, 1)[None] if strength > 0 else np.zeros(1)
    from scipy.optimize import lsq_linear

    scale = np.max(np.abs(columns)) or 1.0
    found = lsq_linear(columns / scale, -rest / scale, (0, 1), method="bvls", tol=tol).x
    # What is 0 but for rounding must not pull the other way.
    return np.where(found <= tol, 0, np.minimum(found, 1))


class Judge:
    """Decides about networks on one data set."""

    def __init__(self, data: Dataset, slope: float = 0.0):
        self.x, self.y, self.q = (np.asarray(leaf, np.float64) for leaf in (data.points, data.labels, data.weights))
        eps = float(np.finfo(np.asarray(data.points).dtype).eps)
        self.slope, self.size = slope, np.linalg.norm(self.x, axis=1)
        unit = self.x / np.where(self.size > 0, self.size, 1)[:, None]
        gaps = [np.linalg.norm(unit[:, None] + sign * unit[None], axis=2) for sign in (-1, 1)]
        self.same = (np.minimum(*gaps) <= LINE * eps) & (self.size > 0)[:, None] & (self.size > 0)
        square = np.where(self.size > 0, self.size, 1) ** 2
        self.unit = np.where(self.same, self.x @ self.x.T / square[:, None], 0)  # x_k in units of x_i, [i, k]
        self.stuck: dict[int, tuple[float, int]] = {}

    def gates(self, active: np.ndarray) -> np.ndarray:
        """The slope of the activation at every pair: 1 where it is active, that of the leaky ReLU elsewhere."""
        return np.where(active, 1.0, self.slope)

    def at_one(self, w: np.ndarray, z: np.ndarray, active: np.ndarray, eps: float) -> np.ndarray:
        """Which margins are at 1, [n]: to rounding, and to how far one is pulled below 1 before its speed can be seen."""
        gate, edge = self.gates(active), w @ self.x.T
        strength = np.sum(gate**2 * ((z[:, None] * self.size) ** 2 + edge**2), axis=0)
        return np.abs(self.y * (z @ (gate * edge)) - 1) <= AT_ONE * eps * (1 + strength)

    # One neuron

    def lines(self, now: Network, j: int) -> Lines:
        """The edges that neuron j is on at an event."""
        n = self.y.size
        edge, reach = np.abs(self.x @ now.w[j]), self.size * (np.linalg.norm(now.w[j]) + np.abs(now.z[j]))
        on = now.glides[j] | ((edge <= EDGE * now.eps * reach) & (reach > 0))
        arrived = now.arriving - j * n if now.arriving >= 0 and now.arriving // n == j else -1
        if arrived >= 0:
            on[arrived] = True
        at, left = [], on.copy()
        while left.any():
            i = arrived if arrived >= 0 and left[arrived] else int(np.argmax(left))
            at.append(i)
            left &= ~self.same[i]
        at = np.array(at, int)
        unit, members = self.unit[at], self.same[at]
        arriving = at == arrived if arrived >= 0 else np.zeros(at.size, bool)
        gliding = now.glides[j][at]
        # A line is booked as above its edge where the points along it are active, or those against it are not.
        along = (members & (unit > 0) & now.active[j]).any(1)
        against = (members & (unit < 0) & now.active[j]).any(1)
        up = along | ~against & ~(members & (unit > 0)).any(1)
        if (arriving & ~gliding).any() and now.bound == 0:
            up = up ^ arriving
        forced = np.where(arriving & gliding & (now.bound > 0), now.bound - 1.0, np.nan)
        return Lines(at, self.x[at], unit, members, up, gliding, arriving, forced)

    def neuron(self, now: Network, j: int, lines: Lines, up: np.ndarray, p: np.ndarray, mixed: np.ndarray) -> Found:
        """Neuron j with the pulls `p` [n], where repelling lines are booked as `up`. `mixed` [n]: points whose pull is
        open."""
        push = p * self.y
        below = (np.minimum(lines.unit, 0) + self.slope * np.maximum(lines.unit, 0)) @ push
        jump = (1 - self.slope) * (np.abs(lines.unit) @ push)
        flat = self.flat(lines, p, now.eps)
        # Points of both labels, one of which has an open pull, so that the edge may attract and repel: no convex function.
        fixed, pull = np.where(mixed, 0, push), np.where(mixed, self.q * self.y, 0)
        least, most = (np.abs(lines.unit) @ (fixed + part) for part in (np.minimum(pull, 0), np.maximum(pull, 0)))
        unclear = (least < 0) & (most > 0) & (not now.every)
        z = now.z[j]
        lead = z if z != 0 else self.lead(now, j, p)
        attracts = ~flat & (now.every | (lead * jump < 0))
        repels = ~flat & ~attracts & (~unclear | lines.gliding)
        on_lines = lines.members.any(0)
        base = (push * self.gates(now.active[j]) * ~on_lines) @ self.x + below @ lines.x
        share = np.where(attracts, 0.0, up)
        base = base + (jump * np.where(attracts, 0, share)) @ lines.x
        free = np.flatnonzero(attracts)
        found = in_box((jump[free, None] * lines.x[free]).T, base, BOX * now.eps)
        share[free] = found
        fixed = free[np.abs(share[free] - lines.forced[free]) < _AT_BOUND]
        if fixed.size:
            # They are leaving: the others share what is left.
            share[fixed] = lines.forced[fixed]
            base = base + (jump[fixed] * share[fixed]) @ lines.x[fixed]
            free = np.setdiff1d(free, fixed)
            share[free] = in_box((jump[free, None] * lines.x[free]).T, base, BOX * now.eps)
        # Neurons that are active on the same points have the same shares, and leave together.
        least = (RATE if now.bound else BOX) * now.eps
        held = np.zeros(share.size, bool)
        held[free] = (share[free] > least) & (share[free] < 1 - least)
        share[free] = np.where(share[free] <= least, 0, np.where(share[free] >= 1 - least, 1, share[free]))
        force = base + (jump[free] * share[free]) @ lines.x[free]
        return Found(share, force, held, repels, unclear)

    def lead(self, now: Network, j: int, p: np.ndarray) -> float:
        """The sign that a read-out of 0 is about to have."""
        return float((p * self.y * self.gates(now.active[j])) @ (self.x @ now.w[j]))

    def speeds(self, now: Network, j: int, lines: Lines, found: Found, p: np.ndarray) -> np.ndarray:
        """d(w_j.x)/dt of its lines, 0 where it is rounding, [g]."""
        lead = now.z[j] if now.z[j] != 0 else self.lead(now, j, p)
        along = lines.x @ found.force
        load = p @ self.size
        return np.where(np.abs(along) <= RATE * now.eps * load * self.size[lines.at], 0, np.sign(lead) * along)

    # All neurons

    def decide(self, now: Network, at_one: np.ndarray, neurons: np.ndarray) -> Sides:
        """Who is held from now on: margins of `at_one`, a list of points, and `neurons` on edges; others stay."""
        lines = {j: self.lines(now, j) for j in map(int, neurons)}
        lines = {j: line for j, line in lines.items() if line.at.size}
        up = {j: line.up.copy() for j, line in lines.items()}
        flipped = {j: line.arriving & ~line.gliding for j, line in lines.items()}
        for _ in range(_LOOKS):
            p, found = self.pulls(now, at_one, lines, up)
            wrong = False
            for j, line in lines.items():
                speed, repels = self.speeds(now, j, line, found[j], p), found[j].repels
                against = (np.where(up[j], speed, -speed) < 0) & (repels | self.flat(line, p, now.eps))
                twice = against & flipped[j] & repels
                if twice.any():
                    raise Open(j, int(line.at[np.argmax(twice)]))
                up[j] = up[j] ^ against
                flipped[j] = flipped[j] | against & repels
                wrong = wrong or bool(against.any())
            if not wrong:
                break
        else:
            j = next(iter(lines))
            raise Open(j, int(lines[j].at[0]))
        if now.time > 0:
            self.check_ways(now, at_one, lines, up, found, p, flipped)
        p, found, tied = self.split(now, at_one, lines, up, found, p)
        sides = self.sides(now, at_one, lines, found, p, tied)
        if not sides.still:
            self.check(now, at_one, lines, sides, p)
        return sides

    def check_ways(self, now: Network, at_one: np.ndarray, lines, up, found, p, flipped) -> None:
        """Raises where the gradients that the kinks leave open have another way than the one found."""
        self.check_order(now, at_one, lines, up, found, flipped)
        # Where a neuron started on an edge, exactly, and has not moved, its side is known; where it came to rest, it is not.
        rests = []
        for j, line in lines.items():
            moves = found[j].held.any() | (self.speeds(now, j, line, found[j], p) != 0)
            for g in np.flatnonzero(found[j].repels):
                if moves[g] or not _crosswise(now.w[j], self.x[line.at[g]]):
                    rests.append((j, g))
        if any(not flipped[j][g] for j, g in rests):
            self.check_sides(now, at_one, lines, up, rests)
        for j, line in lines.items():
            for g in np.flatnonzero(found[j].unclear & ~found[j].held & (line.arriving | line.gliding)):
                stays = self.may_stay(now, at_one, lines, found, p, j, int(g))
                if stays and not self.descends(now, at_one, lines, found, p):
                    raise Open(j, int(line.at[g]), int(at_one[line.members[g, at_one]][0]))

    def descends(self, now: Network, at_one: np.ndarray, lines, found, p) -> bool:
        """Whether descent takes the way that was found, from wherever near it comes: then it is the limit of small steps,
        and other ways, which exist, are left at once."""
        seen, on = self.gates(self.seen(now, lines, found)), np.zeros(now.active.shape, bool)
        edge = now.w @ self.x.T
        dw = now.z[:, None] * ((seen * (p * self.y)) @ self.x)
        for j, line in lines.items():
            on[j] = line.members.any(0)
            dw[j] = now.z[j] * found[j].force
        dz = np.where(on, 0, seen * edge) @ (p * self.y)
        pull = np.where(now.live, self.q, 0)
        pull[at_one] = 0
        corner = Corner(self.x, self.y, self.slope, now.w, now.z, seen, on, pull, at_one, self.q[at_one])
        return goes_one_way(corner, dw, dz)

    def split(self, now: Network, at_one: np.ndarray, lines, up, found, p) -> tuple[np.ndarray, dict, np.ndarray]:
        """The pulls and neurons `found`, with another split of the pulls where margins depend on each other; and which ones
        are tied to others then, [n]."""
        tied, tol = np.zeros(self.y.size, bool), RATE * now.eps
        if at_one.size < 2:
            return p, found, tied
        gate, edge = self.gates(self.seen(now, lines, found)), now.w @ self.x.T
        along = np.broadcast_to(self.x[at_one], (now.z.size, at_one.size, self.x.shape[1])).copy()
        by, at = [np.zeros((0, at_one.size))], [np.zeros(0)]
        for j, line in lines.items():
            edge[j, line.members.any(0)] = 0
            mine, free = found[j].held, gate[j] * ~line.members.any(0)
            if not mine.any():
                continue
            x = line.x[mine]
            dual = np.linalg.pinv(x).T
            along[j] -= along[j] @ dual.T @ x
            # The push of a held edge stays between those below and above it, in units of their distance.
            below = (np.minimum(line.unit, 0) + self.slope * np.maximum(line.unit, 0))[mine] * self.y
            jump = (1 - self.slope) * np.abs(line.unit[mine]) * self.y
            push = -(dual @ self.x.T) * (free * self.y) - below
            size = jump @ p
            for rows in (push, jump - push):
                by.append((rows * self.q)[:, at_one] / size[:, None])
            at += [found[j].share[mine], 1 - found[j].share[mine]]
        rows = (gate[:, at_one] * self.y[at_one])[:, :, None] * along
        on = (gate * edge)[:, at_one] * self.y[at_one]
        slopes = np.concatenate([now.z[:, None, None] * rows, on[:, :, None]], axis=2)
        rows, slopes = (leaf.transpose(1, 0, 2).reshape(at_one.size, -1) for leaf in (rows, slopes))
        length = np.linalg.norm(rows, axis=1)
        unit = rows / np.where(length > 0, length, 1)[:, None]
        # Far from dependent, as the eigenvalues of their products say at less cost.
        if np.linalg.eigvalsh(unit @ unit.T)[0] > _APART or not nullspace(unit, tol).size:
            return p, found, tied
        force = (gate * (p * self.y)) @ self.x
        for j in lines:
            force[j] = found[j].force
        motion = np.concatenate([now.z[:, None] * force, ((gate * edge) @ (p * self.y))[:, None]], axis=1).reshape(-1)
        load = np.linalg.norm(slopes, axis=1)
        whole = (np.abs(now.z)[:, None] * gate * self.size + np.abs(gate * edge)) @ p
        idle = np.abs(slopes @ motion) <= tol * load * (np.linalg.norm(whole) + np.linalg.norm(motion))
        bounds = Slacks(np.concatenate(by), np.concatenate(at))
        new = split(unit, self.q[at_one] * length, p[at_one] / self.q[at_one], idle & (length > 0), bounds, tol)
        if new is None:
            raise Open(-1, int(at_one[0]))
        p, tied[at_one] = p.copy(), new.tied
        p[at_one] = new.share * self.q[at_one]
        mixed = np.isin(np.arange(self.y.size), at_one)
        again = {j: self.neuron(now, j, line, up[j], p, mixed) for j, line in lines.items()}
        for j, line in lines.items():
            if (again[j].held != found[j].held).any():
                raise Open(j, int(line.at[np.argmax(again[j].held != found[j].held)]))
        return p, again, tied

    def may_stay(self, now: Network, at_one: np.ndarray, lines, found, p, j: int, g: int) -> bool:
        """Whether neuron j, which comes to line g of points of both labels, one of which has an open pull, may as well stay
        there: in turns below and above, with pulls of their own on either side that hold all margins on the average."""
        line, tol = lines[j], RATE * now.eps
        gate, edge = self.gates(self.seen(now, lines, found)), now.w @ self.x.T
        held = {k: found[k].held.copy() for k in lines}
        held[j][g] = True
        mine = np.zeros(self.y.size, bool)
        mine[at_one] = (p[at_one] > tol * self.q[at_one]) & (p[at_one] < (1 - tol) * self.q[at_one])
        force = (gate * np.where(mine, 0, p * self.y)) @ self.x
        along = np.broadcast_to(self.x[mine], (now.z.size, mine.sum(), self.x.shape[1])).copy()
        for k, other in lines.items():
            edge[k, other.members.any(0)] = 0
            off = np.linalg.pinv(other.x[held[k]]) @ other.x[held[k]] if held[k].any() else 0 * np.eye(self.x.shape[1])
            along[k], force[k] = along[k] - along[k] @ off, force[k] - off @ force[k]
        on = gate * edge
        rows = np.concatenate([(gate * now.z[:, None])[:, mine, None] * along, on[:, mine, None]], axis=2)
        rows = (rows * self.y[mine, None]).transpose(1, 0, 2).reshape(mine.sum(), now.z.size * (self.x.shape[1] + 1))
        known = np.concatenate([now.z[:, None] * force, (on @ np.where(mine, 0, p * self.y))[:, None]], axis=1).reshape(-1)
        pull = p.copy()
        pull[mine] = np.linalg.lstsq(rows.T, -known, rcond=None)[0]
        if (pull < 0).any() or (pull > self.q).any():
            return True
        # The force along the line, of the part of the time above and what of the pulls falls on it.
        others = found[j].held & (np.arange(line.at.size) != g)
        x = line.x[g] - (line.x[g] @ np.linalg.pinv(line.x[others]) @ line.x[others] if others.any() else 0)
        positive, negative = np.maximum(line.unit[g], 0), np.minimum(line.unit[g], 0)
        sides = [positive + self.slope * negative, negative + self.slope * positive]
        new, old = sides if found[j].share[g] > 0.5 else sides[::-1]
        rest = x @ ((gate[j] * ~line.members[g] * pull * self.y) @ self.x)
        ends = []
        for part in {0.0, 1.0, *(pull[mine] / self.q[mine]), *(1 - pull[mine] / self.q[mine])}:
            least = np.where(mine, np.maximum(0, pull - (1 - part) * self.q), part * pull)
            most = np.where(mine, np.minimum(part * self.q, pull), part * pull)
            gain = self.y * (new - old) * np.stack([least, most])
            ends.append(rest + x @ line.x[g] * (old @ (pull * self.y) + np.array([gain.min(0).sum(), gain.max(0).sum()])))
            if part == 0:
                start = ends[-1][0]
        return bool(min(low for low, _ in ends) <= 0) if start > 0 else bool(max(high for _, high in ends) >= 0)

    def check(self, now: Network, at_one: np.ndarray, lines, sides: Sides, p: np.ndarray) -> None:
        """Raises where `sides` do not hold."""
        met = np.zeros(sides.active.shape, bool)
        for j, line in lines.items():
            met[j] = line.members.any(0) & ~sides.glides[j]
        held, tied, live = (leaf[at_one] for leaf in (sides.held, sides.tied, sides.live))
        shares = sides.active, sides.glides, sides.share
        side = np.where(held, 0, np.where(live, -1, 1))
        # An open pull is the solution of a system: what it is rounded to is a part of all of it.
        p, most = p.copy(), p.copy()
        p[at_one], most[at_one] = np.where(held & ~tied, p[at_one], np.where(live, self.q[at_one], 0)), self.q[at_one]
        way = Way(self.slope, now.w, now.z, *shares, met, p * self.y, most, at_one, held & ~tied, side)
        breach = first_breach(self.x, self.y, way, RATE * now.eps)
        if breach is not None:
            raise Doubt(*breach)

    def flat(self, lines: Lines, p: np.ndarray, eps: float) -> np.ndarray:
        """Lines that are the same on both sides."""
        return np.abs(np.abs(lines.unit) @ (p * self.y)) <= RATE * eps * (np.abs(lines.unit) @ p)

    def check_order(self, now: Network, at_one, lines, up, found, flipped) -> None:
        """Where several repelling edges are met at once, as at w = 0, or one that has held its neuron begins to repel it.

        Sides of these edges are the corners of a cube, and the speeds on a corner say which edges are passed next from
        there. The way is known where it comes to `up` from every corner, in whatever order edges are passed.
        """
        arrives = now.arriving // self.y.size if now.arriving >= 0 else -1
        lost = {j: found[j].repels & lines[j].gliding for j in lines}
        met = [(j, g) for j in lines for g in np.flatnonzero(flipped[j] | lost[j] | found[j].repels & (j == arrives))]
        if len(met) < 2 and not any(mine.any() for mine in lost.values()):
            return
        if len(met) > _AT_ONCE:
            raise Open(met[0][0], int(lines[met[0][0]].at[met[0][1]]))
        ways = {}
        for number in range(1, 2 ** len(met)):  # the edges on the other side than at last, as bits
            trial = {j: side.copy() for j, side in up.items()}
            for k, (j, g) in enumerate(met):
                trial[j][g] ^= bool(number >> k & 1)
            p, other = self.pulls(now, at_one, lines, trial)
            ways[number] = []
            for k, (j, g) in enumerate(met):
                speed = self.speeds(now, j, lines[j], other[j], p)[g]
                # One that stays on all of its edges, whatever it is told of this one, has no choice to make.
                moved = np.abs(other[j].force - found[j].force).max() > RATE * now.eps * (p @ self.size)
                free = other[j].repels[g] and moved
                if (speed < 0 if trial[j][g] else speed > 0) if free else number >> k & 1:
                    ways[number].append(number ^ 1 << k)
        known = {0}
        while ways:
            through = [number for number, next_ones in ways.items() if next_ones and known.issuperset(next_ones)]
            if not through:
                k = min(ways).bit_length() - 1
                raise Open(met[k][0], int(lines[met[k][0]].at[met[k][1]]))
            known.update(through)
            for number in through:
                del ways[number]

    def check_sides(self, now: Network, at_one: np.ndarray, lines, up, met: list) -> None:
        """Raises where neurons on repelling edges `met`, lines (j, g), may as well be on other sides of them, and take
        another way then."""
        if len(met) > _AT_ONCE:
            raise Open(met[0][0], int(lines[met[0][0]].at[met[0][1]]))
        first = {}
        for number in range(2 ** len(met)):
            trial = {j: side.copy() for j, side in up.items()}
            for k, (j, g) in enumerate(met):
                trial[j][g] ^= bool(number >> k & 1)
            p, found = self.pulls(now, at_one, lines, trial)
            speed = {j: self.speeds(now, j, line, found[j], p) for j, line in lines.items()}
            if any((speed[j][g] if trial[j][g] else -speed[j][g]) < 0 for j, g in met):
                continue
            for j, g in met:
                if np.abs(found[j].force - first.setdefault(j, found[j].force)).max() > RATE * now.eps * (p @ self.size):
                    raise Open(j, int(lines[j].at[g]))

    def seen(self, now: Network, lines: dict[int, Lines], found: dict[int, Found]) -> np.ndarray:
        """Which neuron is active on which point, apart from edges that are held, [h, n]."""
        seen = now.active.copy()
        for j, line in lines.items():
            seen[j] &= ~line.members.any(0)
            above = ~found[j].held & (found[j].share > 0.5)
            below = ~found[j].held & ~above
            seen[j] |= ((line.unit > 0) & above[:, None] | (line.unit < 0) & below[:, None]).any(0)
        return seen

    def pulls(self, now: Network, at_one: np.ndarray, lines, up) -> tuple[np.ndarray, dict[int, Found]]:
        """The pull of every point, [n], and what it makes of the neurons on edges."""
        mixed = np.zeros(self.y.size, bool)
        mixed[at_one] = True
        p = np.where(now.live & ~mixed, self.q, 0)

        def neurons(p):
            return {j: self.neuron(now, j, line, up[j], p, mixed) for j, line in lines.items()}

        if not at_one.size:
            return p, neurons(p)
        edge = now.w @ self.x.T
        share = np.where(now.held | now.live, 0.5, 0.0)[at_one] if lines else np.zeros(at_one.size)

        def full(share):
            whole = p.copy()
            whole[at_one] = share * self.q[at_one]
            return whole

        def piece(share):
            """The neurons, and the columns and the rest of the piece of the function of the shares at `share`."""
            found = neurons(full(share))
            seen = self.seen(now, lines, found)
            gate = self.gates(seen)
            through = [(j, line.x[found[j].held]) for j, line in lines.items() if found[j].held.any()]

            # The motion of the network by the pulls that are known, and by each of those that are open: one row each.
            pushes = np.zeros((1 + at_one.size, self.y.size))
            pushes[0], pushes[np.arange(at_one.size) + 1, at_one] = p * self.y, (self.q * self.y)[at_one]
            moved = now.z[:, None] * ((gate * pushes[:, None]) @ self.x)
            for j, held in through:
                moved[:, j] -= moved[:, j] @ np.linalg.pinv(held) @ held
            on = gate * edge
            for j, line in lines.items():
                on[j, line.members.any(0)] = 0
            motions = np.concatenate([moved.reshape(len(pushes), -1), pushes @ on.T], axis=1)
            return found, motions[1:].T, motions[0], seen

        tol = BOX * now.eps
        found, columns, rest, seen = piece(share)
        for _ in range(_PIECES):
            new = in_box(columns, rest, tol)
            if not lines:
                return full(new), found
            then = piece(new)
            if (then[3] == seen).all() and all((then[0][j].held == found[j].held).all() for j in lines):
                return full(new), then[0]
            # The derivative of a convex function along the way to `new`: the step ends where it passes 0.
            way = new - share
            if way @ (then[1].T @ (then[1] @ new + then[2])) <= 0:
                share = new
            else:
                low, high = 0.0, 1.0
                for _ in range(50):
                    middle = (low + high) / 2
                    at = share + middle * way
                    _, c, r, _ = piece(at)
                    low, high = (middle, high) if way @ (c.T @ (c @ at + r)) <= 0 else (low, middle)
                share = share + high * way
            found, columns, rest, seen = piece(share)
        raise Open(-1, int(at_one[0]))

    def sides(self, now: Network, at_one, lines, found, p, tied) -> Sides:
        """What was found, as it is booked."""
        active, glides, share = now.active.copy(), now.glides.copy(), now.share.copy()
        seen = self.seen(now, lines, found)
        for j, line in lines.items():
            glides[j], share[j] = False, 0
            members = line.members.any(0)
            active[j, members] = seen[j, members]
            # One that should pass and, to rounding, stays: it has no speed, and is held.
            stays = line.arriving & ~found[j].held & np.isnan(line.forced) & ~line.gliding & (now.bound == 0)
            stays &= ((found[j].share > 0.5) != line.up) & (self.speeds(now, j, line, found[j], p) == 0)
            for g in np.flatnonzero(found[j].held | stays):
                mine = line.members[g]
                glides[j, mine], active[j, mine] = True, False
                share[j, mine] = np.where(line.unit[g, mine] > 0, found[j].share[g], 1 - found[j].share[g])
        live, held = now.live.copy(), now.held.copy()
        least = RATE * now.eps
        part = p[at_one] / self.q[at_one]
        live[at_one], held[at_one] = part >= 1 - least, (part > least) & (part < 1 - least)
        held |= tied
        still = self.still(now, active, glides, lines, found, p) if held.any() else False
        return Sides(active, glides, share, live, held, tied, still)

    def still(self, now: Network, active, glides, lines, found, p) -> bool:
        """Whether no neuron feels a force."""
        for j in range(now.z.size):
            if not (now.z[j] or now.w[j].any()):
                continue
            force = found[j].force if j in lines else (self.gates(active[j]) * p * self.y) @ self.x
            load = (self.gates(active[j] | glides[j]) * p) @ self.size
            if np.abs(force).max(initial=0) > RATE * now.eps * load:
                return False
        return True

    def smallest(
        self, w: np.ndarray, z: np.ndarray, eps: float, live: Any = None, at_one: Any = None
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """The norm of the smallest gradient that kinks leave open at a network [h, d], [h], and its residuals [n] and shares
        [h, n], in [slope, 1]. `live` [n], `at_one`: which margins are below 1 and a list of those at 1, if that is known."""
        w, z = w.astype(np.float64), z.astype(np.float64)
        edge, reach = w @ self.x.T, self.size * (np.linalg.norm(w, axis=1) + np.abs(z))[:, None]
        active = edge > EDGE * eps * reach
        margins = self.y * (z @ (self.gates(active) * edge))
        none = np.zeros(active.shape, bool)
        live = margins < 1 if live is None else live
        now = Network(w, z, active, none, none * 0.0, live, none[0], none[0], -1, 0, 0.0, eps, every=True)
        lines = {j: line for j in range(z.size) if (line := self.lines(now, j)).at.size}
        at_one = np.flatnonzero(self.at_one(w, z, active, eps)) if at_one is None else at_one
        p, found = self.pulls(now, at_one, lines, {j: line.up for j, line in lines.items()})
        share = self.gates(active)
        for j, line in lines.items():
            for g, mine in enumerate(line.members):
                above = np.where(line.unit[g, mine] > 0, found[j].share[g], 1 - found[j].share[g])
                share[j, mine] = self.slope + (1 - self.slope) * above
        force = (share * p * self.y) @ self.x
        drawn = (self.gates(active) * edge) @ (p * self.y)
        # The largest first: squares of 1e-200 are no floats.
        motion = np.concatenate([(z[:, None] * force).reshape(-1), drawn])
        size = np.abs(motion).max(initial=0)
        return float(size * np.linalg.norm(motion / (size or 1))), p / self.q, share

    # Many networks

    def starts(self, state: State) -> tuple[State, list[tuple[int, float, EventKind, int, int]]]:
        """States [b] at time 0, where those stop in which a neuron begins on an edge, to rounding, that repels it to both
        sides; and what is to be told of them. Where w_j.x_i is 0 it is not active: that is no question of rounding."""
        w, z, stop, told = np.asarray(state.w), np.asarray(state.z), np.array(state.stop), []
        eps = float(np.finfo(z.dtype).eps)
        w = w.astype(np.float64)
        terms = np.abs(w) @ np.abs(self.x).T
        near = (np.abs(w @ self.x.T) <= START * self.x.shape[1] * eps * terms) & (terms > 0)
        for b in np.flatnonzero(near.any((1, 2))):
            active, live, none = np.asarray(state.active[b]), np.asarray(state.live[b]), np.zeros(self.y.size, bool)
            off = np.zeros(active.shape, bool)
            now = Network(w[b], z[b].astype(np.float64), active, off, off * 0.0, live, none, none, -1, 0, 0.0, eps)
            try:
                for j in map(int, np.flatnonzero(near[b].any(1))):
                    lines = {j: self.lines(now, j)}
                    up = {j: lines[j].up}
                    mine = near[b, j].copy()
                    for i in np.flatnonzero(mine & ~active[j]):
                        mine[i] = not _crosswise(w[b, j], self.x[i])
                    repels = self.pulls(now, np.zeros(0, int), lines, up)[1][j].repels
                    met = [(j, g) for g in np.flatnonzero(repels) if (lines[j].members[g] & mine).any()]
                    if met:
                        self.check_sides(now, np.zeros(0, int), lines, up, met)
            except Open as way:
                stop[b] = Stop.OPEN
                told.append((int(b), 0.0, EventKind.REPELS, *way.args))
        return state._replace(stop=jnp.asarray(stop)), told

    def decided(self, state: State, which: np.ndarray, told: list[Any]) -> State:
        """`state` where those networks that stopped for it know who is held from now on."""
        names = "w live held tied leaving arriving stop left active glides share parting waiting"
        new = {name: np.array(getattr(state, name)) for name in names.split()}
        z, time, bound = (np.asarray(leaf) for leaf in (state.z, state.time, state.bound))
        last, events = _last_margins(told, which, time), []
        eps = float(np.finfo(z.dtype).eps)
        for b in map(int, which):
            names = ("active", "glides", "share", "live", "held", "tied")
            active, glides, share, live, held, tied = (new[name][b].copy() for name in names)
            w = new["w"][b].astype(np.float64)
            now = Network(
                *(w, z[b].astype(np.float64), active, glides, share, live, held, tied, int(new["arriving"][b])),
                *(int(bound[b]), float(time[b]), eps),
            )
            near = self.at_one(w, now.z, active, eps)
            if now.arriving < 0 and last.get(b, -1) >= 0:
                near[last[b]] = True  # its passage says so, however slow it was
            at_one = np.flatnonzero(held | near) if held.any() or now.arriving < 0 else np.zeros(0, int)
            on_edges = glides.any(1)
            if at_one.size:
                reach = self.size * (np.linalg.norm(w, axis=1) + np.abs(now.z))[:, None]
                on_edges |= ((np.abs(w @ self.x.T) <= EDGE * eps * reach) & (reach > 0)).any(1)
            if now.arriving >= 0:
                on_edges = on_edges & held.any()
                on_edges[now.arriving // self.y.size] = True
            now = now._replace(bound=self._side(now, glides))
            try:
                sides = self.decide(now, at_one, np.flatnonzero(on_edges))
            except Open as open_way:
                events.append((b, time[b], EventKind.REPELS, *open_way.args[:2]))
                new["stop"][b] = Stop.OPEN
                new["arriving"][b] = -2 - open_way.args[2] if len(open_way.args) > 2 else -1
                continue
            except Doubt as doubt:
                j, i = doubt.args
                new["stop"][b], new["arriving"][b] = Stop.DOUBTED, i if j < 0 else (j + 1) * self.y.size + i
                continue
            changes = _changes(now, sides, last.get(b))
            events += [(b, time[b], *change) for change in changes]
            new["left"][b] -= len(changes)
            new["stop"][b] = Stop.FULL if new["left"][b] < 0 else Stop.RUNNING
            count = self.stuck.get(b, (-1.0, 0))
            count = count[1] + 1 if not changes and count[0] == now.time else 0
            self.stuck[b] = (now.time, count)
            if count > _MOST_STUCK:
                new["stop"][b] = Stop.LOST  # there are no others: rounding has the last word
            new["parting"][b] = (now.glides | new["parting"][b]) & ~sides.glides
            new["leaving"][b] = ~sides.held & (held | near)
            for name in names:
                new[name][b] = getattr(sides, name)
            if sides.still:
                new["live"][b], new["held"][b], new["tied"][b] = False, False, False
            for j in np.flatnonzero(on_edges):
                new["waiting"][b, j] = False
                if sides.glides[j].any():
                    # What rounding has put across the edges must not grow.
                    across = self.x[sides.glides[j]]
                    new["w"][b, j] = w[j] - across.T @ np.linalg.lstsq(across.T, w[j], rcond=None)[0]
        tell(told, events)
        return state._replace(**{name: jnp.asarray(leaf) for name, leaf in new.items()})

    def _side(self, now: Network, glides: np.ndarray) -> int:
        """For a share that came to its bound: 1 where that is the lower side of its edge, 2 the upper."""
        if now.bound == 0:
            return 0
        j = now.arriving // self.y.size
        # A neuron is held where z (U - D) < 0; the kernel has bounds by size, D < U or not.
        return now.bound if now.z[j] < 0 else 3 - now.bound

    def rails(self, start: State) -> tuple[np.ndarray, np.ndarray]:
        """`dual` and `offset` of the `Rails` of a batch of states."""
        glides, share, held, w = (np.asarray(leaf) for leaf in (start.glides, start.share, start.held, start.w))
        push = self.y * self.q * np.asarray(start.live)
        dual, offset = np.zeros((*glides.shape, w.shape[-1])), np.zeros(glides.shape)
        for b, j in zip(*np.nonzero(glides.any(2)), strict=True):
            # Points whose margins are held have to move with them, and come first; those that depend on others stay.
            at, rest = [], np.zeros(w.shape[-1])
            for i in sorted(np.flatnonzero(glides[b, j]), key=lambda i: not held[b, i]):
                if not self.same[i, at].any():
                    if np.linalg.matrix_rank(self.x[[*at, i]] / self.size[[*at, i], None]) > len(at):
                        at.append(i)
                    else:
                        offset[b, j, i] = self.unit[i] @ (push[b] * (self.slope + (1 - self.slope) * share[b, j]))
                        rest += offset[b, j, i] * self.x[i]
            dual[b, j, at] = np.linalg.pinv(self.x[at]).T
            offset[b, j, at] = -dual[b, j, at] @ rest
        return dual.astype(w.dtype), offset.astype(w.dtype)


def tell(told: list[Any], events: list[tuple[int, float, EventKind, int, int]]) -> None:
    """Puts `events` into the logs `told`."""
    if events:
        columns = zip(*events, strict=True)
        told.append(type(told[0])(*(np.array(c, like.dtype) for c, like in zip(columns, told[0], strict=True))))


def _crosswise(w: np.ndarray, x: np.ndarray) -> bool:
    """Whether w.x is 0 without any rounding."""
    return sum(Fraction(a) * Fraction(b) for a, b in zip(w.tolist(), x.tolist(), strict=True)) == 0


def _changes(now: Network, sides: Sides, last: int | None) -> list[tuple[EventKind, int, int]]:
    """The events between the sides before and after a decision: kind, neuron, point. `last`: the point whose arrival at 1 is
    in the log already."""
    found = []
    for i in np.flatnonzero((sides.live != now.live) & ~(sides.held & now.held) | (sides.held != now.held)):
        if now.held[i]:
            kinds = [EventKind.FORGOTTEN if sides.live[i] else EventKind.FREED]
        else:
            arrival = [] if last == i and sides.held[i] else [EventKind.LEARNT if now.live[i] else EventKind.FORGOTTEN]
            kinds = arrival + [EventKind.HELD] * bool(sides.held[i])
        found += [(kind, -1, int(i)) for kind in kinds]
    changed = zip(*np.nonzero((sides.active != now.active) | (sides.glides != now.glides)), strict=True)
    for j, i in sorted(changed, key=lambda pair: pair[0] * sides.live.size + pair[1] != now.arriving):  # the cause first
        kind = EventKind.SLIDES if sides.glides[j, i] else EventKind.WAKES if sides.active[j, i] else EventKind.SLEEPS
        found.append((kind, int(j), int(i)))
    return found


def _last_margins(told: list[Any], which: np.ndarray, now: np.ndarray) -> dict[int, int]:
    """The point of the last event of each network of `which`, -1 where that was an edge or before the time `now`."""
    found: dict[int, int] = {}
    for part in reversed(told):
        mine = np.isin(part.network, which)
        points = np.where((part.neuron < 0) & (part.time >= now[part.network]), part.point, -1)[mine].tolist()
        for b, point in zip(part.network[mine][::-1].tolist(), points[::-1], strict=True):
            found.setdefault(b, point)
        if len(found) == which.size:
            break
    return found
