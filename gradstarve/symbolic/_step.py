"""Any first-order step is two factors: from one step of descent to each optimiser (17.2)-(17.5).

Continues `descent`. A letter without a dash is the value before a step, and a letter with a dash the value after it; e is
the pull p r g(u) of the class, so that the force on a is e z and the force on z is e a.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import Chain, residual_at
from gradstarve.symbolic._derivation import Domain, Known, Target
from gradstarve.symbolic._derive import derive, derives
from gradstarve.symbolic._opening import MOVED, continue_mode, force_on

NEURONS = n.NEURONS
PULL, LAYERS, NORMALISED, AWARE = "pull and length", "a rate for each layer", "normalised step", "sharpness-aware step"
SMALL: Domain = {
    n.eta: (sp.Rational(1, 100), sp.Rational(1, 10)),
    n.radius: (0, sp.Rational(1, 10)),
    n.d: (0, sp.Rational(1, 2)),
}
TWO_SUMS = sp.sqrt((n.M_plus + n.M_minus) / 2)
"""The root of the sum of all squared weights along the class and read-outs."""


@derives(name="step", equation="17.2-17.5", title="Any step is two factors", dynamics=("descent",))
def step(chain: Chain, loss: str) -> dict[str, Target]:
    """One step of a mode for each optimiser, as two factors of M plus and M minus: a step size for each layer (17.3), a step
    of given length (17.2), a sharpness-aware step (17.4), and for hinge loss the mean over mini-batches (17.5).
    """
    continue_mode(chain, loss, force=True)
    descent = derive("descent", loss)
    chain.cite(descent, "exact step", "One step of descent, as in the derivation for descent.")
    _pull(chain)
    _layers(chain)
    _normalised(chain)
    _sharpness_aware(chain)
    sums = (n.M_plus, n.M_minus)
    targets = {
        "z_border": Target(LAYERS, n.z_border, (n.a[0], n.eta_a, n.eta_z), "The read-out above which a neuron learns."),
        "M_plus' of a given length": Target(NORMALISED, n.M_plus_next, (*sums, n.eta), "Valid while the class is learnt."),
        "M_minus' of a given length": Target(NORMALISED, n.M_minus_next, (*sums, n.eta)),
        "M_plus' elsewhere": Target(AWARE, n.M_plus_next, (*sums, n.p, n.r, n.eta, n.radius)),
        "M_minus' elsewhere": Target(AWARE, n.M_minus_next, (*sums, n.p, n.r, n.eta, n.radius)),
    }
    if loss == "hinge":
        targets |= _mini_batches(chain)
    return targets


def _pull(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        forces = {function: force_on(earlier, function) for function in MOVED}
        sums = {letter: earlier(letter, "sums and differences") for letter in (n.M_plus, n.M_minus)}
        pull = own(n.e)
        partners = {**dict(zip(n.a_of, n.z, strict=True)), **dict(zip(n.z_of, n.a, strict=True))}
        residuals = [force - pull * partners[function] for function, force in forces.items()]
        total = sum(((n.e * partner) ** 2 for partner in partners.values()), sp.S.Zero)
        return [*residuals, own(n.length).subs(sums) ** 2 - total]

    chain.add(
        PULL,
        "The force on a is e z and the force on z is e a, with one pull e for all neurons of the class; the length of the "
        "gradient of a mode is |e| times the root of the sum of its squared weights.",
        {n.e: n.p * n.r * n.g(n.u), n.length: sp.Abs(n.e) * TWO_SUMS},
        verify,
    )


def _layers(chain: Chain) -> None:
    rate = sp.sqrt(n.eta_a * n.eta_z)
    moved = {j: (n.a[j] + n.eta_a * n.e * n.z[j], n.z[j] + n.eta_z * n.e * n.a[j]) for j in NEURONS}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        sums = {letter: own(letter) for letter in (n.M_plus, n.M_minus)}
        scaled = {letter: own(letter) for letter in (*n.A_scaled, *n.Z_scaled)}
        residuals = [own(n.u).subs(sums).subs(scaled) - earlier(n.u, "active side")]
        for j in NEURONS:
            now = dict(zip((n.a[j], n.z[j]), moved[j], strict=True))
            for sign, factor in ((1, own(n.F_plus)), (-1, own(n.F_minus))):
                before = scaled[n.A_scaled[j]] + sign * scaled[n.Z_scaled[j]]
                residuals.append(before.subs(now, simultaneous=True) - factor * before)
        border = (scaled[n.A_scaled[0]] + scaled[n.Z_scaled[0]]).subs(n.z[0], own(n.z_border))
        return [*residuals, border]

    chain.add(
        LAYERS,
        "With a step size for each layer, weights divided by the root of their step size move as in plain descent, with the "
        "geometric mean of the two step sizes. A neuron learns if A + Z is positive: for read-outs above the border.",
        {
            **{n.A_scaled[j]: n.a[j] / sp.sqrt(n.eta_a) for j in NEURONS},
            **{n.Z_scaled[j]: n.z[j] / sp.sqrt(n.eta_z) for j in NEURONS},
            n.M_plus: sum((n.A_scaled[j] + n.Z_scaled[j]) ** 2 for j in NEURONS),
            n.M_minus: sum((n.A_scaled[j] - n.Z_scaled[j]) ** 2 for j in NEURONS),
            n.u: n.r * rate * (n.M_plus - n.M_minus) / 4,
            n.F_plus: 1 + rate * n.e,
            n.F_minus: 1 - rate * n.e,
            n.z_border: -n.a[0] * sp.sqrt(n.eta_z / n.eta_a),
        },
        verify,
        reference="(17.3)",
    )


def _normalised(chain: Chain) -> None:
    step_size = n.eta / TWO_SUMS

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # The step of descent whose size is eta over the length of the gradient, for a pull that is positive.
        length = earlier(n.length, PULL).subs(sp.Abs(n.e), n.e)
        push = n.eta * n.e / length
        plain = [earlier(letter, "exact step").subs(n.c, push) for letter in (n.M_plus_next, n.M_minus_next)]
        balanced = {n.M_minus: 0, n.M_plus: 2 * n.whole_size**2}
        logit = earlier(n.u, "exact step").subs(balanced)
        return [
            own(n.M_plus_next) - plain[0],
            own(n.M_minus_next) - plain[1],
            2 * own(n.whole_size_next) ** 2 - own(n.M_plus_next).subs(balanced),
            own(n.u) - logit,
        ]

    chain.add(
        NORMALISED,
        "A step of length eta, where the class is being learnt: it depends on neither frequency nor loss. From a balanced "
        "start the root R of the sum of all squared weights grows by eta per step, and there is no plateau.",
        {
            n.M_plus_next: (1 + step_size) ** 2 * n.M_plus,
            n.M_minus_next: (1 - step_size) ** 2 * n.M_minus,
            n.whole_size_next: n.whole_size + n.eta,
            n.u: n.r * n.whole_size**2 / 2,
        },
        verify,
        SMALL,
        "(17.2)",
    )


def _sharpness_aware(chain: Chain) -> None:
    shift = n.radius / TWO_SUMS

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        sums = {letter: earlier(letter, "sums and differences") for letter in (n.M_plus, n.M_minus)}
        # Uphill by the radius: against the force, whose direction is (z, a) over the root of the squared weights.
        moved = {j: (n.a[j] - n.d * n.z[j], n.z[j] - n.d * n.a[j]) for j in NEURONS}
        there = {letter: value for j in NEURONS for letter, value in zip((n.a[j], n.z[j]), moved[j], strict=True)}
        logit = earlier(n.u, "active side").subs(there, simultaneous=True)
        length = earlier(n.length, PULL).subs(sp.Abs(n.e), n.e)
        residuals = [own(n.u_moved).subs(sums) - logit, own(n.d) - n.radius * n.e / length]
        push = n.c_moved
        for letter, factor, sign in ((n.M_plus_next, own(n.F_plus), 1), (n.M_minus_next, own(n.F_minus), -1)):
            after = {j: (n.a[j] + push * moved[j][1], n.z[j] + push * moved[j][0]) for j in NEURONS}
            residuals += [after[j][0] + sign * after[j][1] - factor * (n.a[j] + sign * n.z[j]) for j in NEURONS]
            before = n.M_plus if sign > 0 else n.M_minus
            inside = {n.c_moved: own(n.c_moved).subs(n.u_moved, own(n.u_moved)).subs(n.d, own(n.d))}
            residuals.append(own(letter) - (factor**2).subs(inside).subs(n.d, own(n.d)) * before)
        force = earlier(n.g(n.m)).subs(n.m, n.u_moved)
        return [*residuals, own(n.c_moved) - n.eta * n.p * n.r * force]

    pulled = n.eta * n.p * n.r * residual_at(chain.known, n.u_moved)
    logit = n.r * ((1 - n.d) ** 2 * n.M_plus - (1 + n.d) ** 2 * n.M_minus) / 4
    inside = pulled.subs(n.u_moved, logit).subs(n.d, shift)
    chain.add(
        AWARE,
        "The gradient is taken a radius uphill, where every a + z is smaller by the factor 1 - d and every a - z larger by "
        "1 + d; while no neuron changes its activity there, and the class is being learnt.",
        {
            n.d: shift,
            n.u_moved: logit,
            n.c_moved: pulled,
            n.F_plus: 1 + n.c_moved * (1 - n.d),
            n.F_minus: 1 - n.c_moved * (1 + n.d),
            n.M_plus_next: (1 + inside * (1 - shift)) ** 2 * n.M_plus,
            n.M_minus_next: (1 - inside * (1 + shift)) ** 2 * n.M_minus,
        },
        verify,
        SMALL,
        "(17.4)",
    )


def _mini_batches(chain: Chain) -> dict[str, Target]:
    x, spread = n.eta * n.p * n.r, (n.eta * n.r) ** 2 * n.p * (1 - n.p) / n.batch
    moments = {0: sp.S.One, 1: n.batch * n.p, 2: n.batch * n.p * (1 - n.p) + (n.batch * n.p) ** 2}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for letter, sign in ((n.mu_plus, 1), (n.mu_minus, -1)):
            one = sp.Poly((1 + sign * n.eta * n.r * n.own_draws / n.batch) ** 2, n.own_draws)
            mean = sum((factor * moments[power] for (power,), factor in one.terms()), sp.S.Zero)
            residuals.append(own(letter) - mean)
        return residuals

    chain.add(
        "mean over mini-batches",
        "Of B points drawn with replacement a binomial number n is of the class, and a step has c = eta r n/B below the "
        "margin; draws of different steps are independent, so that the mean factors multiply.",
        {n.mu_plus: (1 + x) ** 2 + spread, n.mu_minus: (1 - x) ** 2 + spread},
        verify,
        {n.p: (sp.Rational(1, 10), sp.Rational(9, 10))},
        "(17.5)",
    )
    numbers = (n.p, n.r, n.eta, n.batch)
    note = "Valid below the margin, while every neuron stays in the class."
    return {
        "mu_plus": Target("mean over mini-batches", n.mu_plus, numbers, note),
        "mu_minus": Target("mean over mini-batches", n.mu_minus, numbers, note),
    }
