r"""A discriminator of patches and its hinge game, for first stages whose reconstructions should not blur.

.. math:: L_D = \overline{\max(0, 1 - D(S))} + \overline{\max(0, 1 + D(\hat S))}, \qquad L_G = -\overline{D(\hat S)}

Both are computed from one graph: the generator meets the discriminator with its weights held fixed, the discriminator
meets the reconstruction detached, so that one optimiser and one backward pass train both. The weight of L_G balances
the gradients of the two losses at the last layer, :math:`\|\nabla L_{rec}\| / (\|\nabla L_G\| + 10^{-4})`.

Source: Isola et al. 2017 (arXiv 1611.07004), Esser et al. 2021 (arXiv 2012.09841), eq. 7.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["PatchDiscriminator", "adaptive_weight", "discriminator_loss", "generator_loss"]

_MOST = 1e4


class PatchDiscriminator(nn.Module):
    """Strided convolutions; every output judges a patch.

    Args:
        channels: Of the first layer, divisible by 8; doubled by each further one up to eight times.
        layers: Strided layers.
    """

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(1, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = channels
        for i in range(1, layers + 1):
            wider = channels * min(2**i, 8)
            # Groups instead of batch statistics: a sample must not depend on its batch mates.
            blocks += [
                nn.Conv2d(width, wider, 4, 2 if i < layers else 1, 1),
                nn.GroupNorm(8, wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        self.network = nn.Sequential(*blocks, nn.Conv2d(width, 1, 4, 1, 1))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Judgements `(B, 1, T', F')` of log-mels `(B, T, bands)`, high for real ones."""
        return self.network(log_mel[:, None])


def discriminator_loss(discriminator: PatchDiscriminator, real: Tensor, made: Tensor) -> Tensor:
    """L_D per sample, `(B,)`; no gradient reaches what made `made`."""
    on_real, on_made = discriminator(real), discriminator(made.detach())
    return ((1 - on_real).relu().flatten(1).mean(1) + (1 + on_made).relu().flatten(1).mean(1)) / 2


def generator_loss(discriminator: PatchDiscriminator, made: Tensor) -> Tensor:
    """L_G per sample, `(B,)`; no gradient reaches the discriminator."""
    fixed = {name: tensor.detach() for name, tensor in discriminator.state_dict(keep_vars=True).items()}
    judged = functional_call(discriminator, fixed, (made,))
    assert isinstance(judged, Tensor)
    return -judged.flatten(1).mean(1)


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """Ratio of the gradients' norms at the weights `last`, a number without gradient.

    Args:
        reconstruction: A scalar loss.
        adversarial: A scalar loss.
        last: Weights both depend on.
    """
    (ours,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (theirs,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    return (ours.norm() / (theirs.norm() + 1e-4)).clamp(0, _MOST).detach()
