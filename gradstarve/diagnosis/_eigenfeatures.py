"""The features of the data to a network at its first weights: eigenvectors of K, what each is worth, who starves whom.

K = Y Phi Phi^T Y = U S^2 U^T (section 14): column u_i of U is a feature, s_i^2 its strength, z_i = u_i^T m its response.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.diagnosis._groups import reaches
from gradstarve.theory import ntk


@dataclass(frozen=True, eq=False)
class EigenFeatures:
    """The `k` features of largest response z* under the ridge, largest first; arrays are [k], `starvation` is [k, k].

    - `number`: rank of the feature by strength, 0 the strongest; `strength`: s_i^2; `frequency`: part of the samples that
      carry it, 1 / (n sum_j u_ij^4), 1 where all do alike; `alignment`: |u_i . 1| / sqrt(n), 1 where it tells all alone;
    - `response`: z_i*, all made positive, at the ridge optimum (14.2); `half_time`: when z_i gets to half of it in training
      (14.1), inf where it does not within the times of the report;
    - `starvation`: [j, i] = d log z_j* / d log s_i^2 (14.3): below 0 where feature i starves feature j; nan where z_j* is
      zero to rounding;
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


def _cleaned(kernel: np.ndarray) -> np.ndarray:
    """`kernel` [n, n] without its eigenvalues below rounding, that of 32 bits if all of its entries are such numbers."""
    single = (kernel == kernel.astype(np.float32)).all()
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    least = len(kernel) * float(np.finfo(np.float32 if single else np.float64).eps) * values[-1]
    root = vectors[:, values > least] * np.sqrt(values[values > least])
    return root @ root.T


def eigen_features(kernel: np.ndarray, margins: np.ndarray, times: np.ndarray, ridge: float, count: int) -> EigenFeatures:
    """The `count` features of largest response; `margins` [times, n] are those of training from the first weights.

    `ConvergenceError` where the optimum under the ridge is not found. Always in 64 bits, and without the directions of K
    that are rounding: a kernel of fewer features than samples, computed in 32 bits, has negative eigenvalues.
    """
    with jax.enable_x64(True):
        K, strength = jnp.asarray(_cleaned(kernel), jnp.float64), jnp.asarray(ridge, jnp.float64)
        strengths, vectors = map(np.asarray, ntk.features(K))
        best = np.asarray(ntk.ridge_optimum(K, strength).margins)
        derivatives = np.asarray(ntk.starvation_derivatives(K, strength))
    responses = vectors.T @ best
    chosen = np.argsort(-np.abs(responses), kind="stable")[: min(count, len(kernel))]
    derivatives = derivatives[np.ix_(chosen, chosen)]
    z, s, u = responses[chosen], strengths[chosen], vectors[:, chosen] * np.where(responses[chosen] < 0, -1, 1)
    told = np.abs(z) > len(kernel) * np.finfo(np.float64).eps * np.abs(best).max(initial=0)
    starvation = np.where(told[:, None], derivatives * s / np.where(told, z, 1)[:, None], np.nan)
    others = np.where(np.eye(len(z), dtype=bool) | ~told[:, None], np.inf, starvation)
    lowest = others.argmin(1)
    curves = (margins - margins[0]) @ u
    return EigenFeatures(
        number=chosen,
        strength=s,
        frequency=1 / (len(kernel) * (u**4).sum(0)),
        alignment=np.abs(u.sum(0)) / np.sqrt(len(kernel)),
        response=np.abs(z),
        half_time=np.array(
            [
                reaches(times, curve, abs(end) / 2) if clear else np.inf
                for curve, end, clear in zip(curves.T, z, told, strict=True)
            ]
        ),
        starvation=starvation,
        starved_by=np.where(others.min(1) < -0.01, lowest, -1),
        vectors=u,
    )
