import pytest
import torch

from fourfold.modalities.timeseries.backbone import Backbone
from fourfold.modalities.timeseries.s4d import S4D, cached_kernels


@pytest.fixture
def layer() -> S4D:
    torch.manual_seed(0)
    return S4D(channels=3, modes=4).double()


def recurrence(layer: S4D, u: torch.Tensor) -> torch.Tensor:
    """y[l] = Re C h, h <- dA h + dB u, run as a dense complex recurrence over all 2N conjugate states, both ways."""
    a = torch.complex(-layer.log_decay.exp(), layer.frequency)
    step = layer.log_step.exp().unsqueeze(-1)
    output = torch.view_as_complex(layer.output.double().contiguous())
    a_full = torch.cat((a, a.conj()), -1)
    d_a, d_b = torch.exp(step * a_full), (torch.exp(step * a_full) - 1) / a_full

    def run(c: torch.Tensor, sequence: torch.Tensor) -> torch.Tensor:
        c_full, state, outputs = torch.cat((c, c.conj()), -1), torch.zeros_like(d_a), []
        for value in sequence.T:
            state = d_a * state + d_b * value.unsqueeze(-1)
            outputs.append((c_full * state).sum(-1).real)
        return torch.stack(outputs, -1)

    forward, backward = run(output[0], u), run(output[1], u.flip(-1)).flip(-1)
    shifted = torch.nn.functional.pad(backward[:, 1:], (0, 1))  # the second kernel starts one step ahead
    return forward + shifted + layer.skip.unsqueeze(-1) * u


@pytest.mark.parametrize("length", [1, 2, 7, 32])
def test_convolution_equals_dense_recurrence(layer: S4D, length: int) -> None:
    u = torch.randn(2, 3, length, dtype=torch.float64)
    y = layer(u)
    for i in range(2):
        torch.testing.assert_close(y[i], recurrence(layer, u[i]), rtol=1e-10, atol=1e-10)


def test_initial_state_matrix_and_steps() -> None:
    layer = S4D(channels=200, modes=5, step_min=1e-3, step_max=0.1)
    assert torch.allclose(layer.log_decay.exp(), torch.tensor(0.5))
    assert torch.allclose(layer.frequency[7], torch.pi * torch.arange(5))
    steps = layer.log_step.exp()
    assert steps.min() >= 1e-3
    assert steps.max() <= 0.1
    assert steps.log().std() > 1.0


def test_cached_kernels_change_nothing_and_never_go_stale(layer: S4D) -> None:
    u = torch.randn(1, 3, 12, dtype=torch.float64)
    fresh = layer(u)
    with cached_kernels(layer):
        assert torch.equal(layer(u), fresh)
        assert torch.equal(layer(u), fresh)
        assert layer.spectrum(12) is layer.spectrum(12)
    with torch.no_grad():
        layer.output.mul_(2)
    assert not torch.allclose(layer(u), fresh)
    with cached_kernels(layer):
        assert not torch.allclose(layer(u), fresh)


def test_gradient_with_respect_to_input_is_the_same_with_cached_kernels(layer: S4D) -> None:
    u = torch.randn(1, 3, 12, dtype=torch.float64, requires_grad=True)
    (fresh,) = torch.autograd.grad(layer(u).square().sum(), u)
    with cached_kernels(layer):
        (cached,) = torch.autograd.grad(layer(u).square().sum(), u)
    torch.testing.assert_close(cached, fresh)


def test_step_range_is_checked() -> None:
    with pytest.raises(ValueError, match="step_min"):
        S4D(2, 2, step_min=0.1, step_max=0.01)


@pytest.mark.parametrize(("length", "patch"), [(12, 1), (13, 2), (15, 4)])
def test_backbone_starts_at_zero_and_keeps_shapes(length: int, patch: int) -> None:
    net = Backbone(length, channels=2, hidden=8, modes=2, patch=patch)
    x = torch.randn(3, length, 2)
    assert torch.equal(net(x, torch.rand(3)), torch.zeros_like(x))
    with pytest.raises(ValueError, match="windows of shape"):
        net(x[:, 1:], torch.rand(3))


def test_backbone_sees_time_position_covariates_and_whole_window() -> None:
    torch.manual_seed(0)
    net = Backbone(8, covariates=3, hidden=8, modes=4, patch=1)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, t = torch.randn(1, 8, 1), torch.tensor([0.3])
    condition = {"covariates": torch.randn(1, 8, 3)}
    y = net(x, t, condition=condition)
    assert not torch.allclose(net(x, t + 0.01, condition=condition), y, rtol=1e-4)
    assert not torch.allclose(net(x, t, condition={"covariates": condition["covariates"].flip(1)}), y)
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, t, condition=condition), x)
    assert isinstance(jacobian, torch.Tensor)
    assert (jacobian[0, :, 0, 0, :, 0].abs() > 0).all()
    with pytest.raises(ValueError, match="covariates"):
        net(x, t)
