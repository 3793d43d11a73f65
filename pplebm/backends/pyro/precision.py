"""Whether a device computes in bfloat16 with units of its own."""

from __future__ import annotations

import platform

import torch

from pplebm.errors import PplebmError


def check_bf16(device: torch.device) -> None:
    """Raise on a CPU that has no bfloat16 units, where torch emulates them.

    Raises:
        PplebmError: with that reason.
    """
    if device.type != "cpu" or has_units():
        return
    raise PplebmError(
        f"precision 'bf16' is for devices with bfloat16 units, and this CPU ({platform.machine()}) has none: steps "
        f"would be about ten times slower than in float32; leave it out."
    )


def has_units() -> bool:
    """Whether this CPU has them: AVX-512 BF16 or AMX on x86, BF16 on ARM."""
    if not hasattr(torch.cpu, "get_capabilities"):  # torch before 2.11
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
