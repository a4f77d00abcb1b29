"""Losses made of another loss (section 18): any residual is a clock.

The mode equation (3.4) has the residual as a factor, so that another residual is another clock: for flipped labels, shifted
margins, a temperature, the focal loss. Each clock is derived from its loss and checked against the mode equation of the
inner loss. Some are the clock of the inner loss itself, in other units of logit and time.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Callable, Mapping

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import GENERAL, LOGIT_FLOW, Chain, residual_at
from gradstarve.symbolic._derivation import Known, Target, Verify
from gradstarve.symbolic._derive import derive, derives
from gradstarve.symbolic._losses import while_learning
from gradstarve.symbolic._mode import add_time_integral
from gradstarve.symbolic._opening import cite_loss

LOSS, RESIDUAL = n.ell_new(n.m), n.g_new(n.m)
CLOCK, UNITS = "modified clock", "same clock in other units"
MODE = (n.u, n.p, n.r, n.kappa)
DV_DT = n.rate(n.v_of)
IN_UNITS_OF_REST = "In units of the rest, v = u/U, this is the clock of the squared loss for kappa/U, in the time U t."
RANGE = {
    n.m: (-3, 3),
    n.share: (0, sp.Rational(1, 2)),
    n.shift: (0, 1),
    n.temperature: (1, 2),
    n.x_var: (sp.Rational(1, 10**6), 1),
}
"""Ranges of the parameters in the checks: logits below 1 are then below the rest of every shifted or stretched hinge."""
LOGITS = {loss: logits | RANGE for loss, logits in n.LOGIT_RANGE.items()}
LOGITS["hinge"] |= dict.fromkeys((n.u, n.u0), (sp.Rational(-19, 20), sp.Rational(19, 20)))
"""The same with ranges of logits: for the hinge loss also above -1, where its mirror image has its kink."""


@derives(name="flipped-labels", equation="18.1-18.2", title="Flipped labels")
def flipped_labels(chain: Chain, loss: str) -> dict[str, Target]:
    """A share of the labels is flipped, and g(u) becomes (1 - share) g(u) - share g(-u) (18.1); with cross-entropy this is
    label smoothing. Where the logit rests, and the plateau, 1/(1 - 2 share) times as long. The hinge loss keeps its clock
    between the margins -1 and 1, slower by 1 - 2 share (18.2).
    """
    cite_loss(chain, loss)
    value, residual, mirrored = chain.known(n.ell(n.m)), chain.known(n.g(n.m)), {n.m: -n.m}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # The mean is linear in the share: share 0 gives the loss itself, and share 1 its mirror image.
        mean, of_loss = own(LOSS), earlier(n.ell(n.m))
        ends = [mean.subs(n.share, 0) - of_loss, mean.subs(n.share, 1) - of_loss.subs(mirrored)]
        return [*ends, sp.diff(mean, n.share, 2)]

    _loss_and_residual(
        chain,
        "A share of the labels is flipped at random, which mirrors the margin: the mean of the loss over the flips.",
        {LOSS: (1 - n.share) * value + n.share * value.subs(mirrored)},
        _simple((1 - n.share) * residual - n.share * residual.subs(mirrored)),
        verify,
        "(18.1)",
    )
    _rest(chain, loss, "(18.2)" if loss == "hinge" else "(18.1)", sp.S.One, -n.share)
    _clock(chain, loss, "(18.1)", lambda own, of_loss, _: own - (1 - n.share) * of_loss + n.share * of_loss.subs(n.u, -n.u))
    _plateau(chain)
    if loss == "hinge":
        claim = "Between the margins -1 and 1 this is the clock of the hinge loss for the frequency p (1 - 2 share)."
        _units(chain, loss, claim, "(18.2)", 1 - 2 * n.share)
    elif loss == "squared":
        _units(chain, loss, IN_UNITS_OF_REST, "(18.1)", n.unit, 1 - 2 * n.share)
    return _targets(chain, n.share)


@derives(name="margin-shift", equation="18.3", title="Shifted margin")
def margin_shift(chain: Chain, loss: str) -> dict[str, Target]:
    """The loss l(m - shift), whose margin has to be larger by the shift: logit adjustment and margins for each class (18.3).
    The shifted exponential loss is a faster clock; the shifted hinge and squared losses are their own clock in other units.
    """
    cite_loss(chain, loss)
    moved = {n.m: n.m - n.shift}
    _loss_and_residual(
        chain,
        "The loss of a margin that has to be larger by the shift.",
        {LOSS: chain.known(n.ell(n.m)).subs(moved)},
        chain.known(n.g(n.m)).subs(moved),
        lambda own, earlier: [own(LOSS).subs(n.m, n.m + n.shift) - earlier(n.ell(n.m))],
        "(18.3)",
    )
    if loss in ("hinge", "squared"):
        _rest(chain, loss, "(18.3)", 1 + n.shift, sp.S.Zero)
    roots = [sp.sqrt(n.kappa**2 + logit**2) for logit in (n.u, n.u - n.shift)]
    _clock(chain, loss, "(18.3)", lambda own, of_loss, _: own * roots[1] - of_loss.subs(n.u, n.u - n.shift) * roots[0])
    if loss == "exponential":
        _units(chain, loss, "The clock of the exponential loss itself, exp(shift) times as fast.", "(18.3)", sp.exp(n.shift))
    elif loss == "hinge":
        claim = "In units of the rest, v = u/U, this is the clock of the hinge loss for kappa/U, in the same time."
        _units(chain, loss, claim, "(18.3)", sp.S.One, 1 + n.shift)
    elif loss == "squared":
        _units(chain, loss, IN_UNITS_OF_REST, "(18.3)", n.unit, 1 + n.shift)
    return _targets(chain, n.shift)


@derives(name="temperature", equation="18.3", title="Temperature")
def temperature(chain: Chain, loss: str) -> dict[str, Target]:
    """The loss l(m/T) of a margin in units of the temperature T (18.3): in v = u/T it is the clock of the loss itself, for
    kappa/T in the time t/T.
    """
    cite_loss(chain, loss)
    cooled = {n.m: n.m / n.temperature}
    _loss_and_residual(
        chain,
        "The loss of the margin in units of the temperature T.",
        {LOSS: chain.known(n.ell(n.m)).subs(cooled)},
        chain.known(n.g(n.m)).subs(cooled) / n.temperature,
        lambda own, earlier: [own(LOSS).subs(n.m, n.m * n.temperature) - earlier(n.ell(n.m))],
        "(18.3)",
    )
    if loss in ("hinge", "squared"):
        _rest(chain, loss, "(18.3)", n.temperature, sp.S.Zero)
    small = {n.u: n.u / n.temperature, n.kappa: n.kappa / n.temperature}
    _clock(chain, loss, "(18.3)", lambda own, of_loss, _: own - of_loss.subs(small, simultaneous=True))
    claim = "In units of the temperature, v = u/T, this is the clock of the loss itself for kappa/T, in the time t/T."
    _units(chain, loss, claim, "(18.3)", 1 / n.temperature, n.temperature)
    return _targets(chain, n.temperature)


@derives(name="focal", equation="18.3", title="Focal cross-entropy", losses=("cross-entropy",))
def focal(chain: Chain, loss: str) -> dict[str, Target]:
    """The focal loss -(1 - P)^gamma log P, P = sigmoid(m): its residual, its clock, and the exponential loss that it becomes
    late in training (18.3).
    """
    cite_loss(chain, loss)
    power, chance = sp.exp(-n.m), 1 / (1 + sp.exp(-n.m))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # gamma = 0 leaves the loss l, and each unit of gamma is a factor 1 - P = e^(-m - l).
        of_loss = earlier(n.ell(n.m))
        value = own(LOSS).subs(n.right, own(n.right))
        return [
            own(n.right) - sp.exp(-of_loss),
            value.subs(n.gamma, 0) - of_loss,
            sp.diff(value, n.gamma) + (n.m + of_loss) * value,
        ]

    _loss_and_residual(
        chain,
        "Cross-entropy with a factor that is small where the probability P of the true label is large.",
        {n.right: chance, LOSS: -((1 - n.right) ** n.gamma) * sp.log(n.right)},
        (1 - n.right) ** n.gamma * ((1 - n.right) - n.gamma * n.right * sp.log(n.right)),
        verify,
        "(18.3)",
    )
    written = (1 + sp.exp(n.m)) ** -n.gamma * (1 / (1 + sp.exp(n.m)) + n.gamma * sp.log(1 + power) * chance)
    chain.add(
        "residual in the margin",
        "The same without the difference 1 - P, which loses digits; with gamma = 0, the residual of cross-entropy.",
        {RESIDUAL: written},
        lambda own, earlier: [
            own(RESIDUAL) - earlier(RESIDUAL).subs(n.right, earlier(n.right)),
            own(RESIDUAL).subs(n.gamma, 0) - earlier(n.g(n.m)),
        ],
        reference="(18.3)",
    )
    # With x = e^-m the residual is x^(gamma + 1) times a series in x.
    series = (1 + n.x_var) ** (-n.gamma - 1) * (1 + n.gamma * sp.log(1 + n.x_var) / n.x_var)
    late = sp.Limit(RESIDUAL * sp.exp((n.gamma + 1) * n.m), n.m, sp.oo)
    chain.add(
        "late residual",
        "Late in training the residual is that of the exponential loss at gamma + 1 times the margin.",
        {late: sp.limit(series, n.x_var, 0)},
        lambda own, earlier: [
            earlier(RESIDUAL).subs(n.m, -sp.log(n.x_var)) - n.x_var ** (n.gamma + 1) * series,
            own(late) - sp.limit(series, n.x_var, 0),
        ],
        reference="(18.3)",
    )
    _clock(
        chain,
        loss,
        "(18.3)",
        lambda own, of_loss, known: own * residual_at(known, n.u) - of_loss * known(RESIDUAL).subs(n.m, n.u),
    )
    return _targets(chain, n.gamma, residual="residual in the margin")


# The steps that these laws share.


def _targets(chain: Chain, number: sp.Symbol, residual: str = "modified residual") -> dict[str, Target]:
    """The targets of a loss with the parameter `number`: its clock and residual, and rest, plateau and time if derived."""
    known, found = chain.known, {"du/dt": Target(CLOCK, n.du_dt, (*MODE, number))}
    found["g(m)"] = Target(residual, RESIDUAL, (n.m, number))
    if known.has(n.u_star) and known(n.u_star).free_symbols:
        found["u*"] = Target("rest", n.u_star, (number,))
    if known.has(n.t_plateau):
        found["plateau"] = Target("plateau", n.t_plateau, (n.p, n.r, n.u0_positive, number), "Valid for small kappa and u0.")
    if any(step.name == UNITS for step in chain.steps):
        found["t(u)"] = Target(UNITS, n.t_of(n.u), (*MODE, n.u0, number), "Valid while g_new > 0 from u0 to u.")
    return found


def _loss_and_residual(
    chain: Chain, claim: str, value: Mapping[sp.Basic, sp.Expr], residual: sp.Expr, verify: Verify, reference: str
) -> None:
    """Add the loss, with the letters in its formula, and its residual."""

    def verify_residual(own: Known, earlier: Known) -> list[sp.Expr]:
        letters = {letter: earlier(letter) for letter in value if letter != LOSS}
        return [own(RESIDUAL).subs(letters) + sp.diff(earlier(LOSS).subs(letters), n.m)]

    chain.add("modified loss", claim, value, verify, RANGE, reference)
    claim = "The residual is minus the slope of this loss."
    chain.add("modified residual", claim, {RESIDUAL: residual}, verify_residual, RANGE, reference)


def _simple(residual: sp.Expr) -> sp.Expr:
    """`residual` in partial fractions of e^m, case by case."""
    if residual.has(sp.Piecewise):
        return residual
    parts = sp.apart(sp.together(residual.subs(sp.exp(n.m), n.x_var)), n.x_var)
    return sp.collect(sp.expand(parts), n.x_var).subs(n.x_var, sp.exp(n.m))


def _rest(chain: Chain, loss: str, reference: str, kink: sp.Expr, beyond: sp.Expr) -> None:
    """Add the first zero of the residual, or the `kink` of a hinge, where the residual falls to the value `beyond`."""
    if loss != "hinge":
        (rest,) = sp.solve(chain.known(RESIDUAL), n.m)
        claim = "The logit comes to rest where the residual has its zero."
        chain.add(
            "rest",
            claim,
            {n.u_star: rest},
            lambda own, earlier: [earlier(RESIDUAL).subs(n.m, own(n.u_star))],
            RANGE,
            reference,
        )
        return
    below, above = (sp.Limit(RESIDUAL, n.m, kink, side) for side in "-+")

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        rest = own(n.u_star)
        sides = [earlier(RESIDUAL).subs(n.m, rest - n.x_var), earlier(RESIDUAL).subs(n.m, rest + n.x_var)]
        return [sides[0] - own(below), sides[1] - own(above)]

    chain.add(
        "rest",
        "The logit comes to rest where the residual jumps from a positive number to one that is not.",
        {n.u_star: kink, below: while_learning(chain.known(RESIDUAL)), above: beyond},
        verify,
        RANGE,
        reference,
    )


def _clock(chain: Chain, loss: str, reference: str, relation: Callable[[sp.Expr, sp.Expr, Known], sp.Expr]) -> None:
    """Add the mode equation with this residual, and its time.

    `relation`: a function of the rates of this loss and of the inner loss, and of the equations so far, that must vanish.
    """
    chain.cite(derive("mode", loss), GENERAL, "The mode equation of the inner loss, which has its residual as a factor.")
    rate = 2 * n.p * n.r * chain.known(RESIDUAL).subs(n.m, n.u) * sp.sqrt(n.kappa**2 + n.u**2)
    chain.add(
        CLOCK,
        "The same with the residual of this loss, checked against the mode equation of the inner loss.",
        {n.du_dt: rate},
        lambda own, earlier: [relation(own(n.du_dt), earlier(n.du_dt, GENERAL), earlier)],
        RANGE,
        reference,
    )
    add_time_integral(chain, "modified time", LOGITS[loss], reference)


def _plateau(chain: Chain) -> None:
    start = chain.known(RESIDUAL).subs(n.m, 0)
    at_zero = n.g_new(sp.S.Zero)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Without kappa a small logit grows in proportion to itself.
        growth = (earlier(n.du_dt).subs({n.kappa: 0, n.u: n.u_positive}) / n.u_positive).subs(n.u_positive, 0)
        length = own(n.t_plateau)
        return [
            own(at_zero) - (1 - 2 * n.share) * residual_at(earlier, sp.S.Zero),
            length * growth + sp.log(n.u0_positive),
            length * (1 - 2 * n.share) - length.subs(n.share, 0),
        ]

    chain.add(
        "plateau",
        "At small logits the residual is 1 - 2 share times that of the loss: the plateau (5.3) is 1/(1 - 2 share) times as "
        "long.",
        {at_zero: start, n.t_plateau: -sp.log(n.u0_positive) / (2 * n.p * n.r * start)},
        verify,
        RANGE,
        "(18.1)",
    )


def _units(chain: Chain, loss: str, claim: str, reference: str, pace: sp.Expr, unit: sp.Expr = sp.S.One) -> None:
    """Add that this is the clock of the loss itself: v = u/unit moves `pace` times as fast as a logit of kappa/unit does.

    A `unit` that is not a single letter is called U, also in `pace`.
    """
    time = "closed time" if loss == "hinge" else "time from logit"
    chain.cite(derive("mode", loss), time, "The time of the loss itself.")
    letter = unit if unit.is_Symbol or unit == 1 else n.unit
    value = {} if letter == unit else {letter: unit}
    scaled = {symbol: symbol / letter for symbol in (n.u, n.u0, n.kappa)}
    equations = {n.t_of(n.u): chain.known(n.t_of(n.u), time).subs(scaled, simultaneous=True) / pace}
    if unit != 1:
        rate = chain.known(n.du_dt, GENERAL).subs({n.u: n.v, n.kappa: n.kappa / letter}, simultaneous=True)
        equations = {**value, DV_DT: pace * rate, **equations}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        if unit == 1:
            return []
        found = {symbol: own(symbol) for symbol in value}
        stretched = earlier(n.du_dt, CLOCK).subs(n.u, letter * n.v) / letter
        return [(own(DV_DT) - stretched).subs(found)]

    through = [*value, *([n.theta0] if loss == "hinge" else [])]
    chain.add(UNITS, claim, equations, verify, LOGITS[loss], reference, inverts=LOGIT_FLOW, through=through)
