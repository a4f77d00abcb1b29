"""Linearised networks (section 14): the flow of signed outputs, the optimum under a ridge and its dual, starvation of one
feature by another, and spectral decoupling.

Two samples and two weights; a signed Jacobian Y Phi with any entries, and where features are named, with features rotated by
an angle: K = U S^2 U^T. The loss is summed over samples.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import Chain, without_g
from gradstarve.symbolic._derivation import Domain, Known, Target
from gradstarve.symbolic._derive import derives
from gradstarve.symbolic._opening import cite_loss, descends, total_loss

ROWS = sp.Matrix(2, 2, n.jacobian)
THETA = sp.Matrix(n.theta_weights)
ERRORS = sp.Matrix(n.errors)
KERNEL = sp.Matrix([[n.kernel[0], n.kernel[1]], [n.kernel[1], n.kernel[2]]])
FEATURES = sp.Matrix([[sp.cos(n.psi), -sp.sin(n.psi)], [sp.sin(n.psi), sp.cos(n.psi)]])  # one feature per column
COUPLINGS = sp.Matrix([[n.couplings[0], n.couplings[1]], [n.couplings[1], n.couplings[2]]])
SPEEDS = tuple(n.rate(function) for function in n.sample_margins_of)
DUAL_SPEEDS = tuple(n.rate(function) for function in n.errors_of)
SLOPES = tuple(sp.Derivative(function(n.strengths[0]), n.strengths[0]) for function in n.z_of)
SHARES: Domain = dict.fromkeys(n.errors, (sp.Rational(1, 20), sp.Rational(19, 20)))


@derives(name="linearised", equation="14.1", title="Linearised networks", losses=("cross-entropy",))
def linearised(chain: Chain, loss: str) -> dict[str, Target]:
    """Two samples and two weights of a linearised network: the flow of its margins, optimum and dual under a ridge,
    starvation of one feature by another, spectral decoupling (14.1)-(14.4).
    """
    _outputs(chain)
    cite_loss(chain, loss, "; summed over samples here")
    _flow(chain)
    _margins(chain)
    _optimum(chain)
    _dual(chain)
    _alone(chain)
    _responses(chain)
    _starvation(chain)
    _decoupling(chain)
    held = (*n.sample_margins, n.psi, *n.strengths, n.lam)
    note = "At the optimum of margins m1, m2; features are held, and the strength of the first changes."
    return {
        "dm1/dt": Target("flow of the margins", SPEEDS[0], (*n.sample_margins, *n.kernel[:2]), "Loss summed over samples."),
        "dm2/dt": Target("flow of the margins", SPEEDS[1], (*n.sample_margins, *n.kernel[1:]), "Loss summed over samples."),
        "m1*": Target("optimum under a ridge", n.sample_margins[0], (*n.errors, *n.kernel[:2], n.lam)),
        "dalpha1/dt": Target("dual flow", DUAL_SPEEDS[0], (*n.errors, *n.kernel[:2], n.lam)),
        "alpha small": Target("one feature alone", n.alpha_small, (n.strengths[0], n.lam), "For small alpha, one feature."),
        "dz1/d(s1^2)": Target("starvation", SLOPES[0], held, note),
        "dz2/d(s1^2)": Target("starvation", SLOPES[1], held, note),
        "penalty(m)": Target("spectral decoupling", n.lambda_of(n.m_positive), (n.m_positive,)),
        "m small penalty": Target("small penalty", n.m_small, (n.lam,), "For small penalties."),
    }


def _outputs(chain: Chain) -> None:
    chain.add(
        "outputs",
        "Two samples and two weights: signed outputs m = Y f are linear in the weights, with rows of the signed Jacobian.",
        dict(zip(n.sample_margins, ROWS * THETA, strict=True)),
        lambda own, _: [
            own(n.sample_margins[i]) - sum((ROWS[i, k] * THETA[k] for k in range(2)), sp.S.Zero) for i in range(2)
        ],
    )


def _flow(chain: Chain) -> None:
    residuals = sp.Matrix([n.g(margin) for margin in n.sample_margins])
    rates = tuple(n.rate(function) for function in n.theta_weights_of)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        total = total_loss(earlier, dict.fromkeys(n.sample_margins, sp.S.One))
        values = {margin: earlier(margin) for margin in n.sample_margins}
        return descends(earlier, total, zip(map(own, rates), n.theta_weights, strict=True), values)

    chain.add(
        "gradient flow",
        "Steepest descent of the summed loss: every sample pulls with its residual along its row of the Jacobian.",
        dict(zip(rates, ROWS.T * residuals, strict=True)),
        verify,
    )


def _margins(chain: Chain) -> None:
    products = ROWS * ROWS.T
    entries = (products[0, 0], products[0, 1], products[1, 1])
    speeds = KERNEL * sp.Matrix([without_g(n.g(margin), chain.known) for margin in n.sample_margins])

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        rates = sp.Matrix([without_g(earlier(n.rate(f)), earlier) for f in n.theta_weights_of])
        values = {entry: own(entry) for entry in n.kernel}
        chained = [
            sum((sp.diff(earlier(margin), w) * rate for w, rate in zip(n.theta_weights, rates, strict=True)), sp.S.Zero)
            for margin in n.sample_margins
        ]
        # Also with the residuals as letters, so that each entry of K is checked separately.
        return [
            *(own(speed).subs(values) - move for speed, move in zip(SPEEDS, chained, strict=True)),
            *(own(entry) - value for entry, value in zip(n.kernel, entries, strict=True)),
        ]

    chain.add(
        "flow of the margins",
        "The margins obey a closed equation, with the kernel K = Y Phi Phi^T Y.",
        {
            **dict(zip(n.kernel, entries, strict=True)),
            **dict(zip(SPEEDS, speeds, strict=True)),
        },
        verify,
        reference="(14.1)",
    )


def _optimum(chain: Chain) -> None:
    weights, margins = ROWS.T * ERRORS / n.lam, KERNEL * ERRORS / n.lam

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        values = [own(weight) for weight in n.theta_weights]
        # The gradient of loss and ridge, where the residual of each sample is alpha.
        forces = [without_g(earlier(n.rate(f)), earlier) for f in n.theta_weights_of]
        held = {without_g(n.g(margin), earlier): error for margin, error in zip(n.sample_margins, n.errors, strict=True)}
        ridge = n.lam * sum((weight**2 for weight in n.theta_weights), sp.S.Zero) / 2
        stationary = [
            force.subs(held) - sp.diff(ridge, weight).subs(weight, value)
            for force, weight, value in zip(forces, n.theta_weights, values, strict=True)
        ]
        at_rest = dict(zip(n.theta_weights, values, strict=True))
        entries = {entry: earlier(entry) for entry in n.kernel}
        reached = [own(margin).subs(entries) - earlier(margin, "outputs").subs(at_rest) for margin in n.sample_margins]
        return [*stationary, *reached]

    chain.add(
        "optimum under a ridge",
        "With the ridge, lambda/2 times the sum of squared weights, the weights rest where ridge and residuals balance; "
        "alpha is the residual of each sample.",
        {
            **dict(zip(n.theta_weights, weights, strict=True)),
            **dict(zip(n.sample_margins, margins, strict=True)),
        },
        verify,
        domain=SHARES,
        reference="(14.2)",
    )


def _dual(chain: Chain) -> None:
    odds = [sp.log((1 - error) / error) for error in n.errors]

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        margins = [earlier(margin, "optimum under a ridge") for margin in n.sample_margins]
        entropy = sum((-x * sp.log(x) - (1 - x) * sp.log(1 - x) for x in n.errors), sp.S.Zero)
        objective = entropy - (ERRORS.T * KERNEL * ERRORS)[0] / (2 * n.lam)
        return [
            # It climbs the dual, entropy minus the square of the weights,
            *(own(speed) - sp.diff(objective, error) for speed, error in zip(DUAL_SPEEDS, n.errors, strict=True)),
            # and rests where the margin of the optimum has alpha as its residual.
            *(
                earlier(n.g(n.m)).subs(n.m, own(speed) + margin) - error
                for speed, margin, error in zip(DUAL_SPEEDS, margins, n.errors, strict=True)
            ),
        ]

    chain.add(
        "dual flow",
        "alpha climbs the dual of the problem, and comes to rest where alpha = sigmoid(-m): at the optimum.",
        {
            speed: log_odds - chain.known(margin, "optimum under a ridge")
            for speed, log_odds, margin in zip(DUAL_SPEEDS, odds, n.sample_margins, strict=True)
        },
        verify,
        domain=SHARES,
        reference="(14.2)",
    )


def _alone(chain: Chain) -> None:
    # U = I: each sample is a feature of its own, K11 = s^2 and K12 = 0.
    rest = chain.known(DUAL_SPEEDS[0]).subs({n.kernel[0]: n.strengths[0], n.kernel[1]: 0, n.errors[0]: n.alpha_small})
    (exact,) = sp.solve(rest, n.lam)
    leading = rest.subs(1 - n.alpha_small, 1)
    (small,) = sp.solve(sp.expand_log(leading, force=True), n.alpha_small)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        alone = {n.kernel[0]: n.strengths[0], n.kernel[1]: 0, n.errors[0]: n.alpha_small}
        still = earlier(DUAL_SPEEDS[0]).subs(alone)
        value = own(n.alpha_small)
        return [
            still.subs(n.lam, own(n.lambda_of(n.alpha_small))),
            # What is left out is log(1 - alpha).
            still.subs(n.alpha_small, value) - sp.log(1 - value),
        ]

    chain.add(
        "one feature alone",
        "If each sample is a feature of its own, its error and the ridge determine each other; a small one is a Lambert W.",
        {n.lambda_of(n.alpha_small): exact, n.alpha_small: small},
        verify,
        domain={n.alpha_small: (sp.Rational(1, 100), sp.Rational(9, 20)), n.lam: (sp.Rational(1, 100), sp.Rational(1, 10))},
        reference="(14.2)",
    )


def _responses(chain: Chain) -> None:
    products = FEATURES * sp.diag(*n.strengths) * FEATURES.T
    turned = FEATURES * sp.Matrix(n.responses)

    def verify(own: Known, _: Known) -> list[sp.Expr]:
        matrix = sp.Matrix([[own(n.kernel[0]), own(n.kernel[1])], [own(n.kernel[1]), own(n.kernel[2])]])
        # Every feature is an eigenvector, and margins turn back into responses.
        vectors = [FEATURES[:, k] for k in range(2)]
        residuals = [x for k in range(2) for x in matrix * vectors[k] - n.strengths[k] * vectors[k]]
        margins = sp.Matrix([own(margin) for margin in n.sample_margins])
        return [*residuals, *(vectors[k].dot(margins) - n.responses[k] for k in range(2))]

    chain.add(
        "features",
        "Features are the eigenvectors of K, rotated by psi from the samples, s^2 their strengths and z their responses.",
        {
            **dict(zip(n.kernel, (products[0], products[1], products[3]), strict=True)),
            **dict(zip(n.sample_margins, turned, strict=True)),
        },
        verify,
        reference="(14.3)",
    )


def _starvation(chain: Chain) -> None:
    residuals = [without_g(n.g(margin), chain.known) for margin in n.sample_margins]
    curved = FEATURES.T * sp.diag(*(error * (1 - error) for error in n.errors)) * FEATURES
    # lambda z_i = s_i^2 u_i . alpha, differentiated: (lambda + S^2 D) dz = e_1 (u_1 . alpha) d(s_1^2).
    system = n.lam * sp.eye(2) + sp.diag(*n.strengths) * COUPLINGS
    slopes = system.LUsolve(sp.Matrix([n.pull, 0])).applyfunc(sp.factor)
    entries = (curved[0, 0], curved[0, 1], curved[1, 1])

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        definitions = [(letter, own(letter)) for letter in (n.pull, *n.couplings)]
        given = dict(zip(n.errors, map(own, n.errors), strict=True))
        # Margins at rest, m = K alpha / lambda, turned into responses; then the implicit function theorem.
        turned = {margin: earlier(margin, "features") for margin in n.sample_margins}
        named = {entry: earlier(entry, "features") for entry in n.kernel}
        rest = [earlier(margin, "optimum under a ridge").subs(named).subs(given) for margin in n.sample_margins]
        gaps = FEATURES.T * sp.Matrix(rest).subs(turned, simultaneous=True) - sp.Matrix(n.responses)
        moved = []
        for gap in gaps:
            change = sp.diff(gap, n.strengths[0])
            for slope, response in zip(SLOPES, n.responses, strict=True):
                change += sp.diff(gap, response) * own(slope).subs(definitions).subs(given).subs(turned, simultaneous=True)
            moved.append(change)
        return [
            *moved,
            *(
                own(error) - without_g(n.g(margin), earlier)
                for error, margin in zip(n.errors, n.sample_margins, strict=True)
            ),
            *(own(letter) - value for letter, value in zip(n.couplings, entries, strict=True)),
            own(n.pull) - FEATURES[:, 0].dot(ERRORS),
        ]

    chain.add(
        "starvation",
        "Strengthen the first feature alone: by the implicit function theorem the response of the second falls exactly "
        "where D12 (u_1 . alpha) > 0, that is where both are carried by the same unlearnt samples.",
        {
            **dict(zip(n.errors, residuals, strict=True)),
            **dict(zip(n.couplings, entries, strict=True)),
            n.pull: (FEATURES.T * ERRORS)[0],
            **dict(zip(SLOPES, slopes, strict=True)),
        },
        verify,
        reference="(14.3)",
    )


def _decoupling(chain: Chain) -> None:
    residual = chain.known(n.g(n.m)).subs(n.m, n.m_positive)
    penalty = residual / n.m_positive

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Both margins at m: the gradient of loss and (lambda/2)|f|^2 in the outputs vanishes, for every Jacobian.
        total = sum(
            (earlier(n.ell(n.m)).subs(n.m, margin) + n.lam * margin**2 / 2 for margin in n.sample_margins), sp.S.Zero
        )
        slopes = sp.Matrix([sp.diff(total, margin) for margin in n.sample_margins])
        forces = ROWS.T * slopes.subs(dict.fromkeys(n.sample_margins, n.m_positive))
        turned = [
            own(response) - FEATURES[:, k].dot(sp.Matrix([n.m_positive] * 2)) for k, response in enumerate(n.responses)
        ]
        return [*(force.subs(n.lam, own(n.lambda_of(n.m_positive))) for force in forces), *turned]

    chain.add(
        "spectral decoupling",
        "With lambda/2 times the sum of squared outputs instead of the ridge, all margins rest at one m, and the responses "
        "are those of the margin m on every sample, for any strengths.",
        {
            n.lambda_of(n.m_positive): penalty,
            **{z: n.m_positive * sum(FEATURES[:, k], sp.S.Zero) for k, z in enumerate(n.responses)},
        },
        verify,
        reference="(14.4)",
    )
    # For m >> 1 the residual is e^-m.
    (small,) = sp.solve(sp.exp(-n.m_positive) - n.lam * n.m_positive, n.m_positive)

    def verify_small(own: Known, earlier: Known) -> list[sp.Expr]:
        value = own(n.m_small)
        ratio = earlier(n.g(n.m)) * sp.exp(n.m)
        exact = earlier(n.lambda_of(n.m_positive), "spectral decoupling").subs(n.m_positive, n.m)
        # lambda m e^m is the ratio of the residual to e^-m, which tends to 1.
        return [exact * n.m * sp.exp(n.m) - ratio, sp.limit(ratio, n.m, sp.oo) - 1, n.lam * value * sp.exp(value) - 1]

    chain.add(
        "small penalty",
        "For small penalties the margin is large, its residual e^-m, and the margin Lambert's W of 1/lambda.",
        {n.m_small: small},
        verify_small,
        reference="(14.4)",
    )
