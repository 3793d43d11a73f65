"""(a) The functions of the released code itself, from a checkout of it that the user gives; nothing of it is kept here.

Its files are imported as they are. On a CPU `Tensor.cuda` is the identity while they run, and torchvision, which they
import and these functions do not use, is stood in for where it is not installed. One iteration is one call of its
`train_step` on one batch, its log messages formatted and dropped. It has two layers, and its top layer has the
standard deviation 1.01, so its final latents are compared with (a) at that density.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import nn

from pplebm.errors import PplebmError

from . import sizes
from .candidate import Candidate, Latents, Skipped
from .published import Loop

FILES = ("train_cifar10.py", "nets.py", "utils.py")
NAMES = ("train_step", "langevin_posterior_sampling", "langevin_prior_sampling", "Normal", "_netEzi", "_netGzi_mlp")


def load(path: str | Path) -> ModuleType:
    """The training module of a checkout.

    Raises:
        PplebmError: if the checkout lacks a file or a function, or a file cannot be imported.
    """
    folder = Path(path).expanduser().resolve() / "joint-training"
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise PplebmError(
            f"--reference {path}: no {', '.join(missing)} in {folder}; give the top folder of a checkout of "
            f"hierarchical-joint-ebm (Cui, Wu, Han)."
        )
    before = {name: sys.modules.pop(name, None) for name in ("nets", "utils")}  # its files import each other so
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("original_train", folder / FILES[0])
        assert spec is not None and spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        with _torchvision():
            spec.loader.exec_module(found)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise PplebmError(f"--reference {path}: {folder / FILES[0]} could not be imported: {what}") from error
    finally:
        sys.path.remove(str(folder))
        for name, own in before.items():
            sys.modules.pop(name, None)
            if own is not None:
                sys.modules[name] = own
    lacking = [name for name in NAMES if not hasattr(found, name)]
    if lacking:
        raise PplebmError(f"--reference {path}: {folder / FILES[0]} has no {', '.join(lacking)}; another version?")
    return found


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    """A stand-in for torchvision while the files are imported, if it is not installed."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    top, utils, transforms = (ModuleType(f"torchvision{part}") for part in ("", ".utils", ".transforms"))
    top.utils, top.transforms = utils, transforms  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, {m.__name__: m for m in (top, utils, transforms)}):
        yield


class Decoder(nn.Module):
    """Our decoder with the loss that its `train_step` asks for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(z)

    def loss(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return ((self(z) - x) ** 2).sum((1, 2, 3)).mean()


class Original(Candidate):
    """Its own chains, networks of the latents and `train_step`, on our decoder and our weights."""

    def __init__(self, size: sizes.Size, place: str, path: str | Path) -> None:
        if len(size.dims) != 2:
            raise Skipped(f"the released code has two layers, not {len(size.dims)}")
        self.size, self.place, self.module = size, place, load(path)
        self.key, self.label = "original", "(a) the released code itself, eager torch"
        self.differences = (
            "standard deviation of the top layer 1.01, not 1",
            f"train_cifar10.py sha256 {hashlib.sha256(Path(str(self.module.__file__)).read_bytes()).hexdigest()[:16]}",
        )
        self.net_g, self.net_e, self.opt_g, self.opt_e = self._built()
        self.log = SimpleNamespace(info=lambda text: None, critical=lambda *a, **k: None)
        self.x = Loop(size, place).x
        self.args = {
            "device": place, "batch_size": size.batch, "z1_dim": size.dims[0], "z2_dim": size.dims[1],
            "sigma": size.hyper.sigma, "use_noise": True,
            "g_l_steps": size.n_posterior, "g_l_step_size": sizes.STEP_SIZES["posterior"],
            "e_l_steps": size.n_prior, "e_l_step_size": sizes.STEP_SIZES["prior"],
        }  # fmt: skip

    def _built(self) -> Any:
        hyper, (below, above), its = self.size.hyper, self.size.dims, self.module
        ours = Loop(self.size, "cpu")
        conditional = its._netGzi_mlp(above, below, hyper.width, hyper.depth, its.Normal)
        tilts = [its._netEzi(d, hyper.tilt_width, hyper.tilt_depth) for d in self.size.dims]
        for net, own in ((conditional, ours.conditionals[0]), *zip(tilts, ours.tilts, strict=True)):
            with torch.no_grad():
                for mine, weight in zip(net.parameters(), own.parameters(), strict=True):
                    mine.copy_(weight)
        net_g = [Decoder(ours.decoder).to(self.place), conditional.to(self.place)]
        net_e = [tilt.to(self.place) for tilt in tilts]
        opt_g = [torch.optim.Adam(net.parameters(), lr=sizes.RATES["generator"]) for net in net_g]
        return net_g, net_e, opt_g, [torch.optim.Adam(net.parameters(), lr=sizes.RATES["tilt"]) for net in net_e]

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        if self.place != "cpu":
            yield
            return
        with mock.patch.object(torch.Tensor, "cuda", lambda tensor, *args, **kwargs: tensor):
            yield

    def iteration(self) -> None:
        with self._here():
            self.module.train_step(self.net_g, self.net_e, self.opt_g, self.opt_e, [self.x], self.log, self.args, ep=0)
            for net in (
                *self.net_g,
                *self.net_e,
            ):  # it ends by freezing them; in learning its chains never meet them so
                net.requires_grad_(True)

    def _chain(self, z: list[torch.Tensor], phase: str, **changes: Any) -> list[torch.Tensor]:
        args = self.args | changes
        with self._here():
            if phase == "posterior":
                return self.module.langevin_posterior_sampling(z, self.x, self.net_g, self.net_e, args, self.log)
            return self.module.langevin_prior_sampling(z, self.net_g, self.net_e, args, self.log)

    def _phase(self, phase: str) -> None:
        dims = self.size.dims
        z = [torch.randn(self.size.batch, d, device=self.place).requires_grad_() for d in dims]
        float(self._chain(z, phase)[0].sum())

    def posterior(self) -> None:
        self._phase("posterior")

    def prior(self) -> None:
        self._phase("prior")

    def final(self, start: Latents, phase: str) -> Latents:
        self.net_g, self.net_e, self.opt_g, self.opt_e = self._built()
        z = [torch.tensor(v, device=self.place).requires_grad_() for v in start.values()]
        return dict(zip(start, (v.cpu().numpy() for v in self._chain(z, phase, use_noise=False)), strict=True))
