"""The letters of the derivations, in one place, so that every law prints the same symbol for the same thing.

Names are Python identifiers (`u0`, `theta0`, `M_plus`), because generated code uses them.
LaTeX forms that SymPy would not infer from the names are in `LATEX_NAMES`.

Two symbols may share a name and differ in assumptions: `u` is any real logit, `u_positive` prints as `u` as
well and is used where only positive logits make sense (the balanced limit, where log u appears).
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportAssignmentType=false

from __future__ import annotations

from typing import Any

import sympy as sp

# time, clock, speed
t = sp.Symbol("t", nonnegative=True)  # time = step size x step number
s = sp.Symbol("s", real=True)  # the clock shared by all neurons of a mode
tau = sp.Symbol("tau", real=True)  # rescaled time 2 p r t
p = sp.Symbol("p", positive=True)  # frequency of the class: its total weight
r = sp.Symbol("r", positive=True)  # norm of the class's points

# logit, margin, shape of the mode
m = sp.Symbol("m", real=True)  # margin y f(x); equal to the logit for the positive class
u = sp.Symbol("u", real=True)  # logit
u0 = sp.Symbol("u0", real=True)  # logit at t = 0
u_positive = sp.Symbol("u", positive=True)
u0_positive = sp.Symbol("u0", positive=True)
v = sp.Symbol("v", real=True)  # integration variable, a logit
v_positive = sp.Symbol("v", positive=True)
phi = sp.Symbol("phi", real=True)  # integration variable, a hyperbolic angle
kappa = sp.Symbol("kappa", positive=True)
theta = sp.Symbol("theta", real=True)
theta0 = sp.Symbol("theta0", real=True)
P = sp.Symbol("P", real=True)
Q = sp.Symbol("Q", positive=True)
M_plus = sp.Symbol("M_plus", positive=True)
M_minus = sp.Symbol("M_minus", positive=True)
t_star = sp.Symbol("t_star", real=True)  # time at which the hinge margin is reached

# squared loss: u = A x - B/x
A = sp.Symbol("A", positive=True)
B = sp.Symbol("B", positive=True)
omega = sp.Symbol("omega", positive=True)
x_var = sp.Symbol("x", positive=True)
T_var = sp.Symbol("T", real=True)

# two neurons: initial coordinates along the class direction (a), across it (b), and read-outs (z)
a = sp.symbols("a1 a2", positive=True)
b = sp.symbols("b1 b2", real=True)
z = sp.symbols("z1 z2", real=True)
W = sp.Matrix(2, 2, sp.symbols("w11 w12 w21 w22", real=True))  # one weight vector per row, d = 2
NEURONS = (0, 1)  # two stand for any number: every sum over neurons is linear in the neurons
alpha = sp.Symbol("alpha", real=True)  # angle of the class direction in the plane

# the error curve: e'' = -chi e (1 - e) (du/dt)^2, and kappa^2 = K(u) where chi = 0
e_of = sp.Function("e")
chi_of = sp.Function("chi")
K_of = sp.Function("K")

# these quantities as functions of time
ell = sp.Function("ell")
g = sp.Function("g")
f = sp.Function("f")
a_of = (sp.Function("a1"), sp.Function("a2"))
b_of = (sp.Function("b1"), sp.Function("b2"))
z_of = (sp.Function("z1"), sp.Function("z2"))
u_of = sp.Function("u")
t_of = sp.Function("t")
s_of = sp.Function("s")
theta_of = sp.Function("theta")
x_of = sp.Function("x")
y_of = sp.Function("y")


def rate(function: Any) -> sp.Derivative:
    """The derivative in time of a function of time."""
    return sp.Derivative(function(t), t)


du_dt = rate(u_of)  # left-hand side of every scalar law; the right-hand side has the symbol u, not u(t)

DIRECTION = sp.Matrix([sp.cos(alpha), sp.sin(alpha)])  # xh, a unit vector
ACROSS = sp.Matrix([-sp.sin(alpha), sp.cos(alpha)])  # orthogonal to xh
network = sp.Symbol("f", real=True)  # output f(x) of the network on the point of the class
s_dead = sp.Symbol("s_dead", positive=True)  # clock time at which a neuron leaves the class

# one layer: a linear read-out in two dimensions
linear_weights = sp.symbols("v1 v2", real=True)
along = sp.Symbol("w_along", real=True)  # its part along the class direction
sideways = sp.Symbol("w_across", real=True)  # its part across it
along_of = sp.Function("w_along")
across_of = sp.Function("w_across")
C = sp.Symbol("C", real=True)

# depth: one path of N layers, signed weights w, positive ones b on the active side
N = sp.Symbol("N", positive=True)  # number of layers; the algebra does not need an integer
layer_index = sp.Symbol("l", positive=True, integer=True)
signed_layers = sp.symbols("w1 w2 w3", real=True)
layers = sp.symbols("b1 b2 b3", positive=True)
layer = sp.Symbol("b", positive=True)  # the one weight of a balanced path
layer_of = sp.Function("b_l")
every_layer = sp.IndexedBase("b", positive=True)
offset = sp.IndexedBase("c", real=True)  # b_l^2 - rho, conserved
rho = sp.Symbol("rho", positive=True)
rho_of = sp.Function("rho")
Phi_of = sp.Function("Phi")
k = sp.Symbol("k", integer=True, nonnegative=True)  # index of a series; number of a step

# one step of descent; a letter without argument is the value before the step
eta = sp.Symbol("eta", positive=True)  # step size
lam = sp.Symbol("lambda_", positive=True)  # weight decay
c = sp.Symbol("c", real=True)  # eta p r g(u), what one step does
u_next = sp.Symbol("u_next", real=True)
M_plus_next, M_minus_next = sp.symbols("M_plus_next M_minus_next", nonnegative=True)
a_next = sp.symbols("a1_next a2_next", real=True)
z_next = sp.symbols("z1_next z2_next", real=True)
F_plus, F_minus = sp.symbols("F_plus F_minus", real=True)  # products of the factors so far
F_plus_next, F_minus_next = sp.symbols("F_plus_next F_minus_next", real=True)
mu = sp.Symbol("mu", nonnegative=True)  # momentum
V_plus, V_minus = sp.symbols("V_plus V_minus", real=True)  # velocities of F_plus and F_minus
V_plus_next, V_minus_next = sp.symbols("V_plus_next V_minus_next", real=True)
F_plus_past, F_minus_past = sp.symbols("F_plus_past F_minus_past", real=True)
velocity = sp.symbols("v_a1 v_a2 v_z1 v_z2", real=True)  # of a1, a2, z1, z2
velocity_next = sp.symbols("v_a1_next v_a2_next v_z1_next v_z2_next", real=True)
velocity_of = tuple(sp.Function(name) for name in ("v_a1", "v_a2", "v_z1", "v_z2"))
lambda_c = sp.Symbol("lambda_c", positive=True)
u_star = sp.Symbol("u_star", real=True)
growth_of = sp.Function("sigma")
M_plus_of, M_minus_of = sp.Function("M_plus"), sp.Function("M_minus")
NOW_SUMS = {M_plus: M_plus_of, M_minus: M_minus_of}
kappa_of = sp.Function("kappa")

# the starving pair: feature 1 on every sample, feature 2 on some
p_one = sp.Symbol("p1", positive=True)  # weight of the samples with feature 1 alone
p_both = sp.Symbol("p12", positive=True)  # weight of those with both
q = sp.Symbol("q", positive=True)  # p1/p12
feature = sp.symbols("v1 v2", positive=True)  # the logits they carry
feature_start = sp.symbols("v10 v20", positive=True)
feature_of = (sp.Function("v1"), sp.Function("v2"))
margins = sp.symbols("m1 m12", real=True)
Delta_of = (sp.Function("Delta1"), sp.Function("Delta2"))
v2_low, v2_high = sp.symbols("v2_low v2_high", real=True)
t_freeze, t_last, t_peak = sp.symbols("t_freeze t_last t_peak", positive=True)
S_sum, D_root = sp.symbols("S D", positive=True)  # squared loss: p1 + 2 p12, and the root in its exponents

# a core and a shortcut: the logits they carry, their norms; majority and minority; p is the share of the majority
core, side = sp.symbols("v_c v_s", real=True)
core_of, side_of = sp.Function("v_c"), sp.Function("v_s")
r_core, r_side = sp.symbols("r_c r_s", positive=True)
majority, minority = sp.symbols("a b", real=True)
majority_of, minority_of = sp.Function("a"), sp.Function("b")
side_peak, side_end, core_end = sp.symbols("v_peak v_s_end v_c_end", real=True)

# softmax: the logit of the true class, of one other, and of each of the K - 2 left
K = sp.Symbol("K", positive=True)  # number of classes; the algebra does not need an integer
logits = sp.symbols("f0 f1 f2", real=True)
g_true, g_other = sp.Function("g_true"), sp.Function("g_other")
G_of = sp.Function("G")
columns = sp.symbols("w_true w_other", real=True)
columns_of = (sp.Function("w_true"), sp.Function("w_other"))
c_true, c_other = sp.symbols("c_true c_other", real=True)

# linearised networks: two samples, two weights; psi turns the samples into the features
jacobian = sp.symbols("j11 j12 j21 j22", real=True)  # Y Phi, row by row
theta_weights = sp.symbols("theta1 theta2", real=True)
theta_weights_of = (sp.Function("theta1"), sp.Function("theta2"))
sample_margins = sp.symbols("m1 m2", real=True)
sample_margins_of = (sp.Function("m1"), sp.Function("m2"))
kernel = sp.symbols("K11 K12 K22", real=True)
errors = sp.symbols("alpha1 alpha2", positive=True)  # sigmoid(-m) of each sample
errors_of = (sp.Function("alpha1"), sp.Function("alpha2"))
strengths = sp.symbols("S1 S2", positive=True)  # s^2 of each feature
psi = sp.Symbol("psi", real=True)
responses = sp.symbols("z1 z2", real=True)
couplings = sp.symbols("D11 D12 D22", real=True)  # U^T diag(alpha (1 - alpha)) U
pull = sp.Symbol("c1", real=True)  # u_1 . alpha
m_positive = sp.Symbol("m", positive=True)
alpha_small = sp.Symbol("alpha", positive=True)
lambda_of = sp.Function("lambda_")
m_small = sp.Symbol("m_0", real=True)

# losses made of another loss
ell_new = sp.Function("ell_new")
g_new = sp.Function("g_new")
share = sp.Symbol("share", positive=True)  # of the labels that are flipped, below 1/2
shift = sp.Symbol("shift", real=True)
temperature = sp.Symbol("temperature", positive=True)
gamma = sp.Symbol("gamma", positive=True)
right = sp.Symbol("P", positive=True)  # sigmoid(m), the probability of the right label
unit = sp.Symbol("U", positive=True)  # of logits
v_of = sp.Function("v")
t_plateau = sp.Symbol("t_plateau", positive=True)

# steps of two factors
e = sp.Symbol("e", real=True)  # p r g(u), the pull of the class
length = sp.Symbol("G", positive=True)  # of the gradient, over all weights
eta_a, eta_z = sp.symbols("eta_a eta_z", positive=True)  # step sizes of the layers
radius = sp.Symbol("radius", nonnegative=True)  # of a sharpness-aware step
d = sp.Symbol("d", real=True)  # by which it moves a + z and a - z
u_moved = sp.Symbol("u_moved", real=True)  # the logit there
c_moved = sp.Symbol("c_moved", real=True)  # eta p r g(u_moved)
whole_size, whole_size_next = sp.symbols("R R_next", positive=True)  # the root of the sum of all squared weights
batch = sp.Symbol("B", positive=True)  # points of a step
own_draws = sp.Symbol("n", nonnegative=True)  # of which are of the class
mu_plus, mu_minus = sp.symbols("mu_plus mu_minus", positive=True)  # mean factors of M plus and M minus
A_scaled = sp.symbols("A1 A2", real=True)  # weights in units of the root of their step size
Z_scaled = sp.symbols("Z1 Z2", real=True)
z_border = sp.Symbol("z_border", real=True)  # the read-out above which a neuron learns

# kappa in discrete time
kappa_next = sp.Symbol("kappa_next", nonnegative=True)
squared_gradient = sp.Symbol("squared_gradient", nonnegative=True)  # of the logit, over all weights
multiplier = sp.Symbol("multiplier", real=True)  # of a small deviation from the rest, by one step
kappa_edge = sp.Symbol("kappa_edge", nonnegative=True)  # the kappa at which it is -1
xi = sp.Symbol("xi", real=True)  # target of the margin in one step
kappa_c = sp.Symbol("kappa_c", positive=True)
t_rich = sp.Symbol("t_rich", nonnegative=True)

# leaky networks on antipodal classes, class + first
slope = sp.Symbol("slope", positive=True)  # of the activation below 0, less than 1
p_sides = sp.symbols("p_plus p_minus", positive=True)
r_sides = sp.symbols("r_plus r_minus", positive=True)
f_sides = sp.symbols("f_plus f_minus", real=True)  # outputs on a point of each class
m_sides = sp.symbols("m_plus m_minus", real=True)
U_sides = sp.symbols("U_plus U_minus", real=True)  # sums of a z over the neurons of a side
S_sides = sp.symbols("S_plus S_minus", real=True)  # the speeds of the neurons of a side
F_grow = sp.symbols("grow_plus grow_minus", real=True)  # factors of a + z on each side
F_fall = sp.symbols("fall_plus fall_minus", real=True)  # factors of a - z

# early alignment: one neuron, two points in a plane
g_zero = sp.Symbol("g0", positive=True)  # g(0)
q_points = sp.symbols("q1 q2", positive=True)
y_points = sp.symbols("y1 y2", real=True)  # labels; the algebra does not need ±1
x_points = sp.Matrix(2, 2, sp.symbols("x11 x12 x21 x22", real=True))  # one point a row
neuron = sp.symbols("w1 w2", real=True)
neuron_of = (sp.Function("w1"), sp.Function("w2"))
read_out, read_out_of = sp.Symbol("z", real=True), sp.Function("z")
pushes = sp.symbols("c1 c2", real=True)  # c, the push of the points that the neuron sees
pushes_held = sp.symbols("c1_held c2_held", real=True)
growth = sp.Symbol("k", positive=True)  # |c|
w_along, w_along_of = sp.Symbol("a", real=True), sp.Function("a")  # the part of w along c
w_across, w_across_of = sp.Symbol("b", real=True), sp.Function("b")
x_along, x_across = sp.symbols("x_along x_across", real=True)  # of a point, along and across c
grown = sp.Symbol("E", positive=True)  # e^(kt) where the edge of that point is crossed
t_edge, t_turn, t_exit = sp.symbols("t_edge t_turn t_exit", real=True)
jump = sp.Symbol("jump", real=True)  # of the speed of w.x across the edge
held_share = sp.Symbol("share_held", real=True)  # of its push that a point has on whose edge the neuron slides
tangent_of = sp.Function("tan_angle")  # of the angle between w and c
tangent_late = sp.Symbol("tan_late", real=True)  # what e^(kt) times it tends to
level, scale = sp.symbols("level scale", positive=True)

LATEX_NAMES: dict[str, str] = {
    "c1_held": r"c_{1}^{\mathrm{held}}",
    "c2_held": r"c_{2}^{\mathrm{held}}",
    "x_along": r"x_{\parallel}",
    "x_across": r"x_{\perp}",
    "t_edge": r"t_{\mathrm{edge}}",
    "t_turn": r"t_{\mathrm{turn}}",
    "t_exit": r"t_{\mathrm{exit}}",
    "jump": r"\mathrm{jump}",
    "share_held": r"\mathrm{share}",
    "tan_angle": r"\tan\angle",
    "tan_late": r"\tan^{\mathrm{late}}",
    "level": r"\mathrm{level}",
    "scale": r"\mathrm{scale}",
    "x11": "x_{11}",
    "x12": "x_{12}",
    "x21": "x_{21}",
    "x22": "x_{22}",
    "slope": r"\mathrm{slope}",
    **{f"{x}_{side}": f"{x}_{{{sign}}}" for x in "prfmUS" for side, sign in (("plus", "+"), ("minus", "-"))},
    **{f"grow_{side}": f"F_{{{sign}}}^{{+}}" for side, sign in (("plus", "+"), ("minus", "-"))},
    **{f"fall_{side}": f"F_{{{sign}}}^{{-}}" for side, sign in (("plus", "+"), ("minus", "-"))},
    "kappa_next": r"\kappa'",
    "eta_a": r"\eta_{a}",
    "eta_z": r"\eta_{z}",
    "radius": r"\varrho",
    "u_moved": r"\tilde{u}",
    "c_moved": r"\tilde{c}",
    "R_next": "R'",
    "mu_plus": r"\mu_{+}",
    "mu_minus": r"\mu_{-}",
    "z_border": r"z^{\mathrm{border}}",
    "squared_gradient": r"|\nabla u|^{2}",
    "multiplier": r"\frac{\delta u'}{\delta u}",
    "kappa_edge": r"\kappa_{\mathrm{edge}}",
    "t_rich": r"t_{\mathrm{rich}}",
    "S1": "s_{1}^{2}",
    "S2": "s_{2}^{2}",
    "m_0": r"m^{\mathrm{small}\,\lambda}",
    **{f"{x}_{kind}": rf"{x}_{{\mathrm{{{kind}}}}}" for x in "gwc" for kind in ("true", "other")},
    "v2_low": r"v_{2}^{\mathrm{low}}",
    "v2_high": r"v_{2}^{\mathrm{high}}",
    "t_freeze": r"t_{\mathrm{freeze}}",
    "t_last": r"t_{\mathrm{last}}",
    "t_peak": r"t_{\mathrm{peak}}",
    "v_peak": r"v_{s}^{\mathrm{peak}}",
    "v_s_end": r"v_{s}^{\mathrm{end}}",
    "v_c_end": r"v_{c}^{\mathrm{end}}",
    "t_plateau": r"t_{\mathrm{plateau}}",
    "ell_new": r"\tilde{\ell}",
    "g_new": r"\tilde{g}",
    "share": r"\mathrm{share}",
    "shift": r"\mathrm{shift}",
    "temperature": "T",
    "Delta1": r"\Delta_{1}",
    "Delta2": r"\Delta_{2}",
    "lambda_": r"\lambda",
    "u_next": "u'",
    "M_plus_next": "M_{+}'",
    "M_minus_next": "M_{-}'",
    "a1_next": "a_{1}'",
    "a2_next": "a_{2}'",
    "z1_next": "z_{1}'",
    "z2_next": "z_{2}'",
    **{f"v_{x}": f"v_{{{x[0]}_{x[1]}}}" for x in ("a1", "a2", "z1", "z2")},
    **{f"v_{x}_next": f"v_{{{x[0]}_{x[1]}}}'" for x in ("a1", "a2", "z1", "z2")},
    **{f"{x}_plus_next": f"{x}_{{+}}'" for x in "VF"},
    **{f"{x}_minus_next": f"{x}_{{-}}'" for x in "VF"},
    "F_plus_past": r"F_{+}^{\mathrm{past}}",
    "F_minus_past": r"F_{-}^{\mathrm{past}}",
    "V_plus": "V_{+}",
    "V_minus": "V_{-}",
    "u_star": "u^{*}",
    "F_plus": "F_{+}",
    "F_minus": "F_{-}",
    "ell": r"\ell",
    "M_plus": "M_{+}",
    "M_minus": "M_{-}",
    "t_star": "t^{*}",
    "s_dead": r"s_{\dagger}",
    "w_along": r"v_{\parallel}",
    "w_across": r"v_{\perp}",
    "w11": "w_{11}",
    "w12": "w_{12}",
    "w21": "w_{21}",
    "w22": "w_{22}",
}
"""LaTeX forms that SymPy would not infer from the name alone."""

LOGIT_RANGE: dict[str, dict[sp.Symbol, tuple[sp.Rational, sp.Rational]]] = {
    loss: {symbol: (sp.Rational(-3, 2), top) for symbol in (u, u0)}
    | {symbol: (sp.Rational(1, 10), top) for symbol in (u_positive, u0_positive)}
    for loss, top in {
        "cross-entropy": sp.Rational(3, 2),
        "exponential": sp.Rational(3, 2),
        # Beyond the margin 1 the hinge rests and the squared loss comes back: separate cases.
        "hinge": sp.Rational(19, 20),
        "squared": sp.Rational(19, 20),
    }.items()
}
"""Logits between which the time from one to the other is checked, for each loss."""
