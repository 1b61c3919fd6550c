"""1-D convolutions as dense layers over neighbours.

The same sums as :class:`flax.nnx.Conv`, written as a matrix product: XLA's own convolution is
eight times as slow in a training loop on a CPU.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

_KERNEL = 3


class Convolution(nnx.Module):
    """Kernel 3, zeros beyond the ends: ``[B, L, C]`` to ``[B, ceil(L / stride), D]``."""

    def __init__(self, channels: int, out: int, stride: int = 1, *, rngs: nnx.Rngs) -> None:
        self.stride = stride
        self.kernel = nnx.Linear(_KERNEL * channels, out, rngs=rngs)

    def __call__(self, line: jax.Array) -> jax.Array:
        """Convolve."""
        length = line.shape[1]
        padded = jnp.pad(line, ((0, 0), (1, 1), (0, 0)))
        neighbours = [padded[:, at : at + length : self.stride] for at in range(_KERNEL)]
        return self.kernel(jnp.concatenate(neighbours, axis=-1))


class Widening(nnx.Module):
    """The way back, ``[B, L, C]`` to ``[B, 2 L, D]``: each place gives two (Shi et al., 2016)."""

    def __init__(self, channels: int, out: int, *, rngs: nnx.Rngs) -> None:
        self.out = out
        self.convolve = Convolution(channels, 2 * out, rngs=rngs)

    def __call__(self, line: jax.Array) -> jax.Array:
        """Convolve, and lay the two halves of the channels one after the other."""
        return self.convolve(line).reshape(len(line), -1, self.out)
