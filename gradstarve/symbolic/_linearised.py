"""Linearised networks (section 14): the flow of signed outputs, the optimum under a ridge and its dual, which feature
starves which, and spectral decoupling.

Two samples and two weights; a signed Jacobian Y Phi of any entries, and where features are named, one that is turned by an
angle: K = U S^2 U^T. The loss is summed over samples.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._derivation import Chain, Derivation, Domain, Known, Target, derive, equal, without_g
from gradstarve.symbolic._notation import (
    alpha_small,
    couplings,
    ell,
    errors,
    errors_of,
    g,
    jacobian,
    kernel,
    lam,
    lambda_of,
    m,
    m_positive,
    m_small,
    psi,
    pull,
    responses,
    sample_margins,
    sample_margins_of,
    strengths,
    t,
    theta_weights,
    theta_weights_of,
    z_of,
)

LOSSES = ("cross-entropy",)

ROWS = sp.Matrix(2, 2, jacobian)
THETA = sp.Matrix(theta_weights)
ERRORS = sp.Matrix(errors)
KERNEL = sp.Matrix([[kernel[0], kernel[1]], [kernel[1], kernel[2]]])
FEATURES = sp.Matrix([[sp.cos(psi), -sp.sin(psi)], [sp.sin(psi), sp.cos(psi)]])  # one a column
COUPLINGS = sp.Matrix([[couplings[0], couplings[1]], [couplings[1], couplings[2]]])
SPEEDS = tuple(sp.Derivative(function(t), t) for function in sample_margins_of)
DUAL_SPEEDS = tuple(sp.Derivative(function(t), t) for function in errors_of)
SLOPES = tuple(sp.Derivative(function(strengths[0]), strengths[0]) for function in z_of)
SHARES: Domain = dict.fromkeys(errors, (sp.Rational(1, 20), sp.Rational(19, 20)))


def build(loss: str) -> Derivation:
    """Derive the laws of a linearised network; see `gradstarve.symbolic.derive`."""
    chain, single = Chain(), derive("one-layer", loss)
    _outputs(chain)
    chain.cite(single, "loss", "The loss, as in the derivation for one layer; summed over samples here.")
    chain.cite(single, "residual", "Its residual.")
    _flow(chain)
    _margins(chain)
    _optimum(chain)
    _dual(chain)
    _alone(chain)
    _responses(chain)
    _starvation(chain)
    _decoupling(chain)
    held = (*sample_margins, psi, *strengths, lam)
    note = "At the optimum of margins m1, m2; features are held, and the strength of the first changes."
    targets = {
        "dm1/dt": Target("flow of the margins", SPEEDS[0], (*sample_margins, *kernel[:2]), "Loss summed over samples."),
        "dm2/dt": Target("flow of the margins", SPEEDS[1], (*sample_margins, *kernel[1:]), "Loss summed over samples."),
        "m1*": Target("optimum under a ridge", sample_margins[0], (*errors, *kernel[:2], lam)),
        "dalpha1/dt": Target("dual flow", DUAL_SPEEDS[0], (*errors, *kernel[:2], lam)),
        "alpha small": Target("one feature alone", alpha_small, (strengths[0], lam), "For small alpha, one feature."),
        "dz1/d(s1^2)": Target("starvation", SLOPES[0], held, note),
        "dz2/d(s1^2)": Target("starvation", SLOPES[1], held, note),
        "penalty(m)": Target("spectral decoupling", lambda_of(m_positive), (m_positive,)),
        "m small penalty": Target("small penalty", m_small, (lam,), "For small penalties."),
    }
    return Derivation("linearised", loss, f"Linearised networks, {loss} loss", chain.steps, targets)


def _outputs(chain: Chain) -> None:
    chain.add(
        "outputs",
        "Two samples and two weights: signed outputs m = Y f are linear in the weights, with rows of the signed Jacobian.",
        tuple(equal(margin, value) for margin, value in zip(sample_margins, ROWS * THETA, strict=True)),
        lambda own, _: [
            own(sample_margins[i]) - sum((ROWS[i, k] * THETA[k] for k in range(2)), sp.S.Zero) for i in range(2)
        ],
    )


def _total_loss(known: Known) -> sp.Expr:
    """The loss of both samples in the weights."""
    return sum((known(ell(m)).subs(m, known(margin, "outputs")) for margin in sample_margins), sp.S.Zero)


def _in_weights(expression: sp.Expr, known: Known) -> sp.Expr:
    """`expression` with margins as the weights make them, and kernel entries as the Jacobian makes them."""
    values = {margin: known(margin, "outputs") for margin in sample_margins}
    return expression.subs(values).subs({entry: known(entry, "flow of the margins") for entry in kernel})


def _flow(chain: Chain) -> None:
    residuals = sp.Matrix([g(margin) for margin in sample_margins])
    rates = tuple(sp.Derivative(function(t), t) for function in theta_weights_of)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        total = _total_loss(earlier)
        values = {margin: earlier(margin) for margin in sample_margins}
        return [
            without_g(own(rate), earlier).subs(values) + sp.diff(total, weight)
            for rate, weight in zip(rates, theta_weights, strict=True)
        ]

    chain.add(
        "gradient flow",
        "Steepest descent of the summed loss: every sample pulls with its residual along its row.",
        tuple(equal(rate, value) for rate, value in zip(rates, ROWS.T * residuals, strict=True)),
        verify,
    )


def _margins(chain: Chain) -> None:
    products = ROWS * ROWS.T
    entries = (products[0, 0], products[0, 1], products[1, 1])
    speeds = KERNEL * sp.Matrix([without_g(g(margin), chain.known) for margin in sample_margins])

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        rates = sp.Matrix([without_g(earlier(sp.Derivative(f(t), t)), earlier) for f in theta_weights_of])
        values = {entry: own(entry) for entry in kernel}
        chained = [
            sum((sp.diff(earlier(margin), w) * rate for w, rate in zip(theta_weights, rates, strict=True)), sp.S.Zero)
            for margin in sample_margins
        ]
        # Also with the residuals as letters, so that each entry of K stands by itself.
        return [
            *(own(speed).subs(values) - move for speed, move in zip(SPEEDS, chained, strict=True)),
            *(own(entry) - value for entry, value in zip(kernel, entries, strict=True)),
        ]

    chain.add(
        "flow of the margins",
        "The margins obey an equation of their own, with the kernel K = Y Phi Phi^T Y.",
        (
            *(equal(entry, value) for entry, value in zip(kernel, entries, strict=True)),
            *(equal(speed, value) for speed, value in zip(SPEEDS, speeds, strict=True)),
        ),
        verify,
        reference="(14.1)",
    )


def _optimum(chain: Chain) -> None:
    weights, margins = ROWS.T * ERRORS / lam, KERNEL * ERRORS / lam

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        values = [own(weight) for weight in theta_weights]
        # The gradient of loss and ridge, where the residual of each sample is alpha.
        forces = [without_g(earlier(sp.Derivative(f(t), t)), earlier) for f in theta_weights_of]
        held = {without_g(g(margin), earlier): error for margin, error in zip(sample_margins, errors, strict=True)}
        ridge = lam * sum((weight**2 for weight in theta_weights), sp.S.Zero) / 2
        stationary = [
            force.subs(held) - sp.diff(ridge, weight).subs(weight, value)
            for force, weight, value in zip(forces, theta_weights, values, strict=True)
        ]
        at_rest = dict(zip(theta_weights, values, strict=True))
        entries = {entry: earlier(entry) for entry in kernel}
        reached = [own(margin).subs(entries) - earlier(margin, "outputs").subs(at_rest) for margin in sample_margins]
        return [*stationary, *reached]

    chain.add(
        "optimum under a ridge",
        "With half of lambda times all squared weights in the loss they rest where ridge and residuals balance; alpha is "
        "the residual of each sample.",
        (
            *(equal(weight, value) for weight, value in zip(theta_weights, weights, strict=True)),
            *(equal(margin, value) for margin, value in zip(sample_margins, margins, strict=True)),
        ),
        verify,
        domain=SHARES,
        reference="(14.2)",
    )


def _dual(chain: Chain) -> None:
    odds = [sp.log((1 - error) / error) for error in errors]

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        margins = [earlier(margin, "optimum under a ridge") for margin in sample_margins]
        entropy = sum((-x * sp.log(x) - (1 - x) * sp.log(1 - x) for x in errors), sp.S.Zero)
        objective = entropy - (ERRORS.T * KERNEL * ERRORS)[0] / (2 * lam)
        return [
            # It climbs the dual, entropy minus the square of the weights,
            *(own(speed) - sp.diff(objective, error) for speed, error in zip(DUAL_SPEEDS, errors, strict=True)),
            # and rests where the margin of the optimum has alpha as its residual.
            *(
                earlier(g(m)).subs(m, own(speed) + margin) - error
                for speed, margin, error in zip(DUAL_SPEEDS, margins, errors, strict=True)
            ),
        ]

    chain.add(
        "dual flow",
        "alpha climbs the dual of the problem, and comes to rest where alpha = sigmoid(-m): at the optimum.",
        tuple(
            equal(speed, log_odds - chain.known(margin, "optimum under a ridge"))
            for speed, log_odds, margin in zip(DUAL_SPEEDS, odds, sample_margins, strict=True)
        ),
        verify,
        domain=SHARES,
        reference="(14.2)",
    )


def _alone(chain: Chain) -> None:
    # U = I: each sample is a feature of its own, K11 = s^2 and K12 = 0.
    rest = chain.known(DUAL_SPEEDS[0]).subs({kernel[0]: strengths[0], kernel[1]: 0, errors[0]: alpha_small})
    (exact,) = sp.solve(rest, lam)
    leading = rest.subs(1 - alpha_small, 1)
    (small,) = sp.solve(sp.expand_log(leading, force=True), alpha_small)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        alone = {kernel[0]: strengths[0], kernel[1]: 0, errors[0]: alpha_small}
        still = earlier(DUAL_SPEEDS[0]).subs(alone)
        value = own(alpha_small)
        return [
            still.subs(lam, own(lambda_of(alpha_small))),
            # What is left out is log(1 - alpha).
            still.subs(alpha_small, value) - sp.log(1 - value),
        ]

    chain.add(
        "one feature alone",
        "If each sample is a feature of its own, its error and the ridge determine each other; a small one is a Lambert W.",
        (equal(lambda_of(alpha_small), exact), equal(alpha_small, small)),
        verify,
        domain={alpha_small: (sp.Rational(1, 100), sp.Rational(9, 20)), lam: (sp.Rational(1, 100), sp.Rational(1, 10))},
        reference="(14.2)",
    )


def _responses(chain: Chain) -> None:
    products = FEATURES * sp.diag(*strengths) * FEATURES.T
    turned = FEATURES * sp.Matrix(responses)

    def verify(own: Known, _: Known) -> list[sp.Expr]:
        matrix = sp.Matrix([[own(kernel[0]), own(kernel[1])], [own(kernel[1]), own(kernel[2])]])
        # Every feature is an eigenvector, and margins turn back into responses.
        vectors = [FEATURES[:, k] for k in range(2)]
        residuals = [x for k in range(2) for x in matrix * vectors[k] - strengths[k] * vectors[k]]
        margins = sp.Matrix([own(margin) for margin in sample_margins])
        return [*residuals, *(vectors[k].dot(margins) - responses[k] for k in range(2))]

    chain.add(
        "features",
        "Features are the eigenvectors of K, turned by psi from the samples, s^2 their strengths and z their responses.",
        (
            *(equal(entry, value) for entry, value in zip(kernel, (products[0], products[1], products[3]), strict=True)),
            *(equal(margin, value) for margin, value in zip(sample_margins, turned, strict=True)),
        ),
        verify,
        reference="(14.3)",
    )


def _starvation(chain: Chain) -> None:
    residuals = [without_g(g(margin), chain.known) for margin in sample_margins]
    curved = FEATURES.T * sp.diag(*(error * (1 - error) for error in errors)) * FEATURES
    # lambda z_i = s_i^2 u_i . alpha, differentiated: (lambda + S^2 D) dz = e_1 (u_1 . alpha) d(s_1^2).
    system = lam * sp.eye(2) + sp.diag(*strengths) * COUPLINGS
    slopes = system.LUsolve(sp.Matrix([pull, 0])).applyfunc(sp.factor)
    entries = (curved[0, 0], curved[0, 1], curved[1, 1])

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        definitions = [(letter, own(letter)) for letter in (pull, *couplings)]
        given = dict(zip(errors, map(own, errors), strict=True))
        # Margins at rest, m = K alpha / lambda, turned into responses; then the implicit function theorem.
        turned = {margin: earlier(margin, "features") for margin in sample_margins}
        named = {entry: earlier(entry, "features") for entry in kernel}
        rest = [earlier(margin, "optimum under a ridge").subs(named).subs(given) for margin in sample_margins]
        gaps = FEATURES.T * sp.Matrix(rest).subs(turned, simultaneous=True) - sp.Matrix(responses)
        moved = []
        for gap in gaps:
            change = sp.diff(gap, strengths[0])
            for slope, response in zip(SLOPES, responses, strict=True):
                change += sp.diff(gap, response) * own(slope).subs(definitions).subs(given).subs(turned, simultaneous=True)
            moved.append(change)
        return [
            *moved,
            *(own(error) - without_g(g(margin), earlier) for error, margin in zip(errors, sample_margins, strict=True)),
            *(own(letter) - value for letter, value in zip(couplings, entries, strict=True)),
            own(pull) - FEATURES[:, 0].dot(ERRORS),
        ]

    chain.add(
        "starvation",
        "Strengthen the first feature alone: by the implicit function theorem the response of the second falls exactly "
        "where D12 (u_1 . alpha) > 0, that is where both are carried by the same unlearnt samples.",
        (
            *(equal(error, value) for error, value in zip(errors, residuals, strict=True)),
            *(equal(letter, value) for letter, value in zip(couplings, entries, strict=True)),
            equal(pull, (FEATURES.T * ERRORS)[0]),
            *(equal(slope, value) for slope, value in zip(SLOPES, slopes, strict=True)),
        ),
        verify,
        reference="(14.3)",
    )


def _decoupling(chain: Chain) -> None:
    residual = chain.known(g(m)).subs(m, m_positive)
    penalty = residual / m_positive

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Both margins at m: the gradient of loss and (lambda/2)|f|^2 in the outputs vanishes, for every Jacobian.
        total = sum((earlier(ell(m)).subs(m, margin) + lam * margin**2 / 2 for margin in sample_margins), sp.S.Zero)
        slopes = sp.Matrix([sp.diff(total, margin) for margin in sample_margins])
        forces = ROWS.T * slopes.subs(dict.fromkeys(sample_margins, m_positive))
        turned = [own(response) - FEATURES[:, k].dot(sp.Matrix([m_positive] * 2)) for k, response in enumerate(responses)]
        return [*(force.subs(lam, own(lambda_of(m_positive))) for force in forces), *turned]

    chain.add(
        "spectral decoupling",
        "With half of lambda times all squared outputs in place of the ridge, all margins rest at one m, and responses are "
        "those of m on every sample, whatever the strengths.",
        (
            equal(lambda_of(m_positive), penalty),
            *(equal(z, m_positive * sum(FEATURES[:, k], sp.S.Zero)) for k, z in enumerate(responses)),
        ),
        verify,
        reference="(14.4)",
    )
    # For m >> 1 the residual is e^-m.
    (small,) = sp.solve(sp.exp(-m_positive) - lam * m_positive, m_positive)

    def verify_small(own: Known, earlier: Known) -> list[sp.Expr]:
        value = own(m_small)
        ratio = earlier(g(m)) * sp.exp(m)
        exact = earlier(lambda_of(m_positive), "spectral decoupling").subs(m_positive, m)
        # lambda m e^m is the ratio of the residual to e^-m, which tends to 1.
        return [exact * m * sp.exp(m) - ratio, sp.limit(ratio, m, sp.oo) - 1, lam * value * sp.exp(value) - 1]

    chain.add(
        "small penalty",
        "For small penalties the margin is large, its residual e^-m, and the margin Lambert's W of 1/lambda.",
        equal(m_small, small),
        verify_small,
        reference="(14.4)",
    )
