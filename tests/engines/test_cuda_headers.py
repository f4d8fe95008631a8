"""A C++ compiler finds CUDA's headers in the wheels of torch, and those of a toolkit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from videomt_ros.engines import cuda_headers
from videomt_ros.engines.cuda_headers import compiler_environment

PROGRAM = '#include <torch/csrc/inductor/aoti_include/cuda.h>\n'
"""What each program for a GPU begins with."""
FOLDERS = 'from torch.utils.cpp_extension import include_paths; print(*include_paths("cuda"))'


@pytest.mark.skipif(
    not torch.version.cuda or find_spec('triton') is None, reason='a torch without CUDA'
)
@pytest.mark.skipif(shutil.which('g++') is None, reason='no g++')
@pytest.mark.parametrize('is_pip_alone', [False, True])
def test_what_torch_generates_finds_its_headers(tmp_path, monkeypatch, is_pip_alone):
    for name in ('CUDA_HOME', 'CUDA_PATH', 'CUDA_INC_PATH'):
        monkeypatch.delenv(name, raising=False)
    if is_pip_alone:
        homes = [path for path in cuda_headers._homes() if 'triton' in path.parts]
        monkeypatch.setattr(cuda_headers, '_homes', lambda: iter(homes))
    environment = os.environ | compiler_environment(tmp_path)
    run = {'env': environment, 'capture_output': True, 'text': True}
    folders = subprocess.run([sys.executable, '-c', FOLDERS], check=True, **run).stdout.split()
    command = ['g++', '-std=c++20', '-fsyntax-only', '-DUSE_CUDA', '-x', 'c++', '-']
    command += [f'-I{folder}' for folder in folders]
    done = subprocess.run(command, input=PROGRAM, **run)
    assert not done.returncode, done.stderr


def test_a_folder_without_headers_is_not_taken(tmp_path, monkeypatch):
    """As where nvcc is a script in /usr/local/bin."""
    nvcc = tmp_path / 'bin' / 'nvcc'
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\n')
    nvcc.chmod(0o755)
    monkeypatch.setenv('PATH', str(nvcc.parent))
    monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'nowhere'))
    assert tmp_path in cuda_headers._homes()
    found = compiler_environment(tmp_path).get('CUDA_HOME', '')
    assert not found or not Path(found).is_relative_to(tmp_path)


def test_the_driver_is_found_under_the_name_for_which_a_linker_looks(tmp_path, monkeypatch):
    driver = tmp_path / 'libcuda.so.1'
    driver.touch()
    monkeypatch.setattr(cuda_headers, '_driver', lambda: driver)
    monkeypatch.setenv('LIBRARY_PATH', '/lib')
    folder = tmp_path / 'links'
    folder.mkdir()
    assert compiler_environment(folder)['LIBRARY_PATH'] == f'{folder}{os.pathsep}/lib'
    assert (folder / 'libcuda.so').samefile(driver)


@pytest.mark.gpu
def test_the_driver_is_that_which_torch_has_loaded():
    torch.cuda.init()
    driver = cuda_headers._driver()
    assert driver is not None and driver.is_file()
