"""The features of the data to a network at its first weights: eigenvectors of K, what each is worth, who starves whom.

K = Y Phi Phi^T Y = U S^2 U^T (section 14): column u_i of U is a feature, s_i^2 its strength, z_i = u_i^T m its response.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from gradstarve.diagnose.groups import reaches
from gradstarve.theory.ntk import features, ridge_optimum, starvation_derivatives


@dataclass(frozen=True, eq=False)
class EigenFeatures:
    """The `k` features of largest response z* under the ridge, largest first; arrays are [k], `starvation` is [k, k].

    - `number`: rank of the feature by strength, 0 the strongest; `strength`: s_i^2; `frequency`: part of the samples that
      carry it, 1 / (n sum_j u_ij^4), 1 where all do alike; `alignment`: |u_i . 1| / sqrt(n), 1 where it tells all alone;
    - `response`: z_i*, all made positive, at the ridge optimum (14.2); `half_time`: when z_i gets to half of it in training
      (14.1), inf where it does not within the times of the report;
    - `starvation`: [j, i] = d log z_j* / d log s_i^2 (14.3): below 0 where feature i starves feature j;
    - `starved_by`: the i with the lowest entry of row j, or -1 where none is below -0.01.
    """

    number: np.ndarray
    strength: np.ndarray
    frequency: np.ndarray
    alignment: np.ndarray
    response: np.ndarray
    half_time: np.ndarray
    starvation: np.ndarray
    starved_by: np.ndarray
    vectors: np.ndarray


def eigen_features(kernel: np.ndarray, margins: np.ndarray, times: np.ndarray, ridge: float, count: int) -> EigenFeatures:
    """The `count` features of largest response; `margins` [times, n] are those of training from the first weights."""
    dtype = jnp.result_type(float)
    K = jnp.asarray(kernel, dtype)
    strengths, vectors = (np.asarray(a, np.float64) for a in features(K))
    best = ridge_optimum(K, jnp.asarray(ridge, dtype))
    responses = vectors.T @ np.asarray(best.margins, np.float64)
    chosen = np.argsort(-np.abs(responses), kind="stable")[: min(count, len(kernel))]
    derivatives = np.asarray(starvation_derivatives(K, jnp.asarray(ridge, dtype)), np.float64)[np.ix_(chosen, chosen)]
    z, s, u = responses[chosen], strengths[chosen], vectors[:, chosen] * np.sign(responses[chosen])
    starvation = derivatives * s / np.where(z == 0, 1, z)[:, None]
    others = np.where(np.eye(len(z), dtype=bool), np.inf, starvation)
    lowest = others.argmin(1)
    curves = (margins - margins[0]) @ u
    return EigenFeatures(
        number=chosen,
        strength=s,
        frequency=1 / (len(kernel) * (u**4).sum(0)),
        alignment=np.abs(u.sum(0)) / np.sqrt(len(kernel)),
        response=np.abs(z),
        half_time=np.array([reaches(times, curve, abs(end) / 2) for curve, end in zip(curves.T, z, strict=True)]),
        starvation=starvation,
        starved_by=np.where(others.min(1) < -0.01, lowest, -1),
        vectors=u,
    )
