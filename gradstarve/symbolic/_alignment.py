"""Early alignment: one neuron among points of any labels while outputs are small (16.1)-(16.5).

Two points in a plane stand for any number of points in any space: the push is a sum over points, and the neuron moves along
the push only.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import Chain, residual_at
from gradstarve.symbolic._derivation import Domain, Known, Target
from gradstarve.symbolic._derive import derives
from gradstarve.symbolic._opening import cite_loss

AXES = (0, 1)
GROWTH, EDGE, TURN, SLIDING, DIRECTION, EXIT = "growth", "edge", "turn", "sliding", "limit direction", "exit"
LEAVES: Domain = {
    n.w_along: (1, 2),
    n.read_out: (sp.Rational(-9, 10), sp.Rational(9, 10)),
    n.x_along: (-1, sp.Rational(-1, 10)),
    **dict.fromkeys((n.w_across, n.x_across), (2, 3)),
}
"""Ranges of neurons that are active on a point at an obtuse angle to their direction of growth."""
TURNS: Domain = {n.w_along: (1, 2), n.read_out: (sp.Rational(-9, 10), sp.Rational(-1, 10))}
"""Ranges of neurons whose read-out changes its sign to that of the push c."""
WEIGHTY: Domain = {n.w_along: (sp.Rational(1, 10), 1), n.read_out: (sp.Rational(1, 10), 1)}


@derives(name="alignment", equation="16.1-16.5", title="Early alignment of one neuron", dynamics=("flow",))
def alignment(chain: Chain, loss: str) -> dict[str, Target]:
    """While outputs are small: the flow of one neuron among points with any labels and its growth (16.1), the times at
    which it crosses an edge and at which its read-out changes sign (16.2), the share that holds it on an edge (16.3), its
    limit direction, and the end of the phase (16.5).
    """
    cite_loss(chain, loss)
    _push(chain)
    _coordinates(chain)
    _growth(chain)
    _edge(chain)
    _turn(chain)
    _sliding(chain)
    _direction(chain)
    _exit(chain)
    start = (n.growth, n.w_along, n.read_out)
    point = (n.x_points[1, 0], n.x_points[1, 1], n.q_points[1], n.y_points[1])
    stretch = "Valid until the neuron meets an edge."
    sliding = Target(SLIDING, n.held_share, (*n.pushes, n.g_zero, *point), "Valid where it lies between 0 and 1.")
    edge = Target(EDGE, n.t_edge, (*start, n.w_across, n.x_along, n.x_across), "Valid for w.x > 0 > x_along and a + z > 0.")
    return {
        "a(t)": Target(GROWTH, n.w_along_of(n.t), (n.t, *start), stretch),
        "z(t)": Target(GROWTH, n.read_out_of(n.t), (n.t, *start), stretch),
        "t_edge": edge,
        "t_turn": Target(TURN, n.t_turn, start, "Valid for -a < z < 0."),
        "share": sliding,
        "t_exit": Target(EXIT, n.t_exit, (*start, n.level, n.scale), "The leading term for a small scale; r is 1."),
    }


def _push(chain: Chain) -> None:
    c = [sum(n.g_zero * n.q_points[i] * n.y_points[i] * n.x_points[i, k] for i in n.NEURONS) for k in AXES]
    flows = {n.rate(n.neuron_of[k]): n.read_out * n.pushes[k] for k in AXES}
    flows[n.rate(n.read_out_of)] = sum(n.neuron[k] * n.pushes[k] for k in AXES)
    small = sp.Symbol("delta", positive=True)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Minus the gradient of the loss in the weights, with all outputs multiplied by delta, as delta -> 0.
        total = sp.S.Zero
        for i in n.NEURONS:
            margin = n.y_points[i] * n.read_out * sum(n.neuron[k] * n.x_points[i, k] for k in AXES)
            total += n.q_points[i] * earlier(n.ell(n.m)).subs(n.m, small * margin) / small
        values = {letter: own(letter) for letter in n.pushes}
        moves = [(n.neuron_of[k], n.neuron[k]) for k in AXES] + [(n.read_out_of, n.read_out)]
        found = []
        for function, letter in moves:
            slope = -sp.diff(total, letter).subs(small, 0)
            found.append(own(n.rate(function)).subs(values).subs(n.g_zero, own(n.g_zero)) - slope)
        return [own(n.g_zero) - residual_at(earlier, sp.S.Zero), *found]

    g0 = sp.simplify(residual_at(chain.known, sp.S.Zero))
    chain.add(
        "push",
        "A neuron active on two points, with outputs so small that both push with g(0): no other neuron influences it.",
        {n.g_zero: g0, **dict(zip(n.pushes, c, strict=True)), **flows},
        verify,
        reference="(16.1)",
    )


def _coordinates(chain: Chain) -> None:
    (w1, w2), (c1, c2) = n.neuron, n.pushes
    k = sp.sqrt(c1**2 + c2**2)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        size, along, across = own(n.growth), own(n.w_along), own(n.w_across)
        rates = {n.neuron[i]: earlier(n.rate(n.neuron_of[i])) for i in AXES}

        def moved(value):
            return sum(sp.diff(value, letter) * rate for letter, rate in rates.items())

        inside = {n.w_along: along, n.growth: size}
        return [
            size**2 - c1**2 - c2**2,
            along**2 + across**2 - w1**2 - w2**2,
            moved(along) - own(n.rate(n.w_along_of)).subs(inside),
            moved(across) - own(n.rate(n.w_across_of)),
            earlier(n.rate(n.read_out_of), "push") - own(n.rate(n.read_out_of)).subs(inside),
        ]

    chain.add(
        "coordinates",
        "Along the push and across it: w moves along c only, and a and z drive each other.",
        {
            n.growth: k,
            n.w_along: (w1 * c1 + w2 * c2) / k,
            n.w_across: (w2 * c1 - w1 * c2) / k,
            n.rate(n.w_along_of): n.growth * n.read_out,
            n.rate(n.w_across_of): sp.S.Zero,
            n.rate(n.read_out_of): n.growth * n.w_along,
        },
        verify,
        reference="(16.1)",
    )


def _growth(chain: Chain) -> None:
    angle = n.growth * n.t
    pairs = ((n.w_along_of, n.w_along, n.read_out), (n.read_out_of, n.read_out, n.w_along))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        now = {n.w_along: own(n.w_along_of(n.t)), n.read_out: own(n.read_out_of(n.t))}
        found = []
        for function, letter, _ in pairs:
            rate = earlier(n.rate(function), "coordinates").subs(now, simultaneous=True)
            found += [sp.diff(own(function(n.t)), n.t) - rate, own(function(n.t)).subs(n.t, 0) - letter]
        return found

    curves = {f(n.t): letter * sp.cosh(angle) + other * sp.sinh(angle) for f, letter, other in pairs}
    chain.add(GROWTH, "From a and z at t = 0.", curves, verify, reference="(16.1)")


def _edge(chain: Chain) -> None:
    beside = n.w_across * n.x_across
    up, down = (n.x_along * (n.w_along + sign * n.read_out) / 2 for sign in (1, -1))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        curve = n.x_along * earlier(n.w_along_of(n.t), GROWTH) + n.x_across * n.w_across
        time = own(n.t_edge).subs(n.grown, own(n.grown))
        return [curve.subs(n.t, time).rewrite(sp.exp), sp.exp(n.growth * own(n.t_edge)) - n.grown]

    chain.add(
        EDGE,
        "On a point with x_along < 0 the neuron becomes inactive where w.x = 0, a quadratic equation for E = e^(kt); on -x "
        "it becomes active there.",
        {n.grown: -(beside + sp.sqrt(beside**2 - 4 * up * down)) / (2 * up), n.t_edge: sp.log(n.grown) / n.growth},
        verify,
        LEAVES,
        "(16.2)",
    )


def _turn(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        return [earlier(n.read_out_of(n.t), GROWTH).subs(n.t, own(n.t_turn)).rewrite(sp.exp)]

    time = sp.log((n.w_along - n.read_out) / (n.w_along + n.read_out)) / (2 * n.growth)
    chain.add(TURN, "A read-out against the push passes 0.", {n.t_turn: time}, verify, TURNS, "(16.2)")


def _sliding(chain: Chain) -> None:
    x, strength = n.x_points.row(1), n.g_zero * n.q_points[1] * n.y_points[1]
    square, along = x.dot(x), sum(n.pushes[k] * x[k] for k in AXES)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        share = own(n.held_share)
        held = [own(letter).subs(n.held_share, share) for letter in n.pushes_held]
        # The push of the point is the part of c that carries q_2.
        part = [sp.diff(earlier(letter, "push"), n.q_points[1]) * n.q_points[1] for letter in n.pushes]
        size = sum((n.pushes[k] + n.held_share * part[k]) ** 2 for k in AXES)
        return [
            own(n.jump) - n.read_out * sum(part[k] * x[k] for k in AXES),
            sum(held[k] * x[k] for k in AXES),
            sp.diff(size, n.held_share).subs(n.held_share, share),
            *(own(n.pushes_held[k]) - n.pushes[k] - n.held_share * part[k] for k in AXES),
        ]

    chain.add(
        SLIDING,
        "Waking on point 2 adds `jump` to the speed of w.x: an edge attracts where y z < 0. There it is held if a share of "
        "the push of the point, beside c of the others, leaves nothing along x: the shortest of all pushes in between.",
        {
            n.jump: n.read_out * strength * square,
            n.held_share: -along / (strength * square),
            **{n.pushes_held[k]: n.pushes[k] + n.held_share * strength * x[k] for k in AXES},
        },
        verify,
        {n.y_points[1]: (sp.Rational(1, 2), sp.Rational(3, 2))},
        "(16.3)",
    )


def _late(curve: sp.Expr, power: int) -> sp.Expr:
    """The limit of `curve` e^(-power k t) for t to infinity."""
    in_e = sp.simplify(curve.subs(n.t, sp.log(n.grown) / n.growth).rewrite(sp.exp))
    return sp.limit(sp.together(in_e / n.grown**power), n.grown, sp.oo)


def _direction(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        curve, tangent = earlier(n.w_along_of(n.t), GROWTH), own(n.tangent_of(n.t))
        return [tangent * curve - n.w_across, own(n.tangent_late) * _late(curve, 1) - n.w_across]

    angle = n.growth * n.t
    chain.add(
        DIRECTION,
        "Without a further edge w tends to the direction of c, at the rate k: a limit direction is the push of the points "
        "on which the neuron is active.",
        {
            n.tangent_of(n.t): n.w_across / (n.w_along * sp.cosh(angle) + n.read_out * sp.sinh(angle)),
            n.tangent_late: 2 * n.w_across / (n.w_along + n.read_out),
        },
        verify,
        WEIGHTY,
        "(16.5)",
    )


def _exit(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        curves = [earlier(function(n.t), GROWTH) for function in (n.w_along_of, n.read_out_of)]
        output = n.scale**2 * sp.prod([_late(curve, 1) for curve in curves]) * sp.exp(2 * n.growth * own(n.t_exit))
        return [output / n.level - 1]

    time = sp.log(4 * n.level / (n.scale**2 * (n.w_along + n.read_out) ** 2)) / (2 * n.growth)
    chain.add(
        EXIT,
        "With weights times `scale`, the output on a point of length 1 along c is z a, which is at the level where its "
        "growing part is: log(1/scale)/k and a constant.",
        {n.t_exit: time},
        verify,
        WEIGHTY,
        "(16.5)",
    )
