"""Devices and number formats by name."""

from __future__ import annotations

import pytest
import torch

from videomt_ros.model import device
from videomt_ros.model.device import choose_device, choose_precision


def test_names_that_every_machine_has():
    assert choose_device('cpu') == torch.device('cpu')
    assert choose_device('auto').type == ('cuda' if torch.cuda.is_available() else 'cpu')
    assert choose_precision('bf16', torch.device('cpu')) is torch.bfloat16


def test_auto_is_half_precision_on_a_gpu():
    assert choose_precision('auto', torch.device('cuda')) is torch.float16


@pytest.mark.parametrize(
    'flags, dtype',
    [
        ('flags\t\t: fpu avx512f amx_bf16 amx_tile', torch.bfloat16),
        ('processor\t: 0\nflags\t\t: fpu avx512_bf16\nbugs\t\t: spectre_v1', torch.bfloat16),
        ('flags\t\t: fpu avx2 avx512f avx512_bf16x', torch.float32),
        ('Features\t: fp asimd bf16', torch.float32),
        ('', torch.float32),
        (None, torch.float32),
    ],
)
def test_auto_on_a_cpu_depends_on_its_features(tmp_path, monkeypatch, flags, dtype):
    file = tmp_path / 'cpuinfo'
    if flags is not None:
        file.write_text(flags, encoding='ascii')
    monkeypatch.setattr(device, '_CPU_INFO', file)
    device.cpu_features.cache_clear()
    try:
        assert choose_precision('auto', torch.device('cpu')) is dtype
    finally:
        device.cpu_features.cache_clear()


@pytest.mark.parametrize('name', ['tpu', 'cuda:', 'cuda:x', 'cpu:one', '', 'meta'])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match='Expected the device auto, cpu, cuda or cuda:n'):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ValueError, match='Expected device cuda:99 of [0-9]+ CUDA devices'):
        choose_device('cuda:99')


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="got 'int8'"):
        choose_precision('int8', torch.device('cpu'))
