"""Tests of which processes the environment asks for, and who started them."""

from __future__ import annotations

import pytest

from videomt_ros.evaluation.launchers import (
    check_evaluation,
    check_training,
    check_world,
    has_slurm_place,
)

BATCH_SCRIPT = {
    'SLURM_JOB_ID': '71',
    'SLURM_JOB_NAME': 'fleet.sh',
    'SLURM_NTASKS': '4',
    'SLURM_NPROCS': '4',
    'SLURM_PROCID': '0',
    'SLURM_LOCALID': '0',
    'SLURM_NODEID': '0',
    'SLURM_NNODES': '1',
}
"""The environment of `sbatch --ntasks=4`, whose script runs once and starts no step."""
SRUN = {**BATCH_SCRIPT, 'SLURM_STEP_ID': '0', 'SLURM_STEP_NUM_TASKS': '4'}
"""The environment of the first process that srun has started there."""
TORCHRUN = {
    'TORCHELASTIC_RUN_ID': 'x',
    'WORLD_SIZE': '4',
    'LOCAL_WORLD_SIZE': '4',
    'RANK': '1',
    'LOCAL_RANK': '1',
    'MASTER_ADDR': 'localhost',
    'MASTER_PORT': '29500',
}


def without(env, *names):
    return {name: value for name, value in env.items() if name not in names}


UNSTARTED = {
    'batch script': (BATCH_SCRIPT, 'SLURM_NTASKS=4'),
    'allocation': (
        without(BATCH_SCRIPT, 'SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NODEID'),
        'SLURM_NTASKS=4',
    ),
    'with tasks per node': ({**BATCH_SCRIPT, 'SLURM_NTASKS_PER_NODE': '4'}, 'SLURM_NTASKS=4'),
    'tasks per node alone': (
        {**BATCH_SCRIPT, 'SLURM_NTASKS': '1', 'SLURM_NTASKS_PER_NODE': '2'},
        'SLURM_NTASKS_PER_NODE=2',
    ),
    'interactive step': (
        {**BATCH_SCRIPT, 'SLURM_STEP_ID': str(0xFFFF_FFFA), 'SLURM_STEP_NUM_TASKS': '1'},
        'SLURM_NTASKS=4',
    ),
    'step of one task': ({**SRUN, 'SLURM_STEP_NUM_TASKS': '1'}, 'SLURM_NTASKS=4'),
}


@pytest.mark.parametrize(('env', 'variable'), UNSTARTED.values(), ids=UNSTARTED)
def test_tasks_that_srun_did_not_start_are_named(env, variable):
    with pytest.raises(ValueError, match=f'^{variable} .*nobody started.* srun, or train in one'):
        check_training(1, env)
    note = check_evaluation(False, env)
    assert note.startswith(f'{variable} ') and '--shard' in note and '\n' not in note
    assert check_evaluation(True, env) == ''


@pytest.mark.parametrize(
    'env',
    [
        {},
        {**SRUN, 'SLURM_NTASKS': '1', 'SLURM_STEP_NUM_TASKS': '1'},
        {**BATCH_SCRIPT, 'SLURM_NTASKS': '1'},
        {**BATCH_SCRIPT, 'SLURM_JOB_NAME': 'interactive'},
        {**BATCH_SCRIPT, 'SLURM_JOB_NAME': 'bash'},
        {**BATCH_SCRIPT, **TORCHRUN},
        TORCHRUN,
        {'SLURM_NTASKS': '', 'WORLD_SIZE': '', 'PMI_SIZE': '1'},
    ],
)
def test_processes_that_are_there_are_not_spoken_of(env):
    assert check_evaluation(False, env) == ''
    check_training(1, env)


def test_tasks_of_srun_train_together_and_evaluate_by_shards():
    for place in ('0', '3'):
        env = {**SRUN, 'SLURM_PROCID': place, 'PMI_SIZE': '4'}
        check_training(1, env)
        assert has_slurm_place(env)
        with pytest.raises(ValueError, match=r'SLURM_NTASKS=4.*--shard'):
            check_evaluation(False, env)
        assert check_evaluation(True, env) == ''
    # Older versions of SLURM name the step otherwise.
    old = {**without(SRUN, 'SLURM_STEP_ID', 'SLURM_STEP_NUM_TASKS'), 'SLURM_STEPID': '0'}
    check_training(1, old)


def test_a_shell_has_no_place_in_a_job():
    assert not has_slurm_place(without(BATCH_SCRIPT, 'SLURM_PROCID'))
    assert not has_slurm_place({**BATCH_SCRIPT, 'SLURM_JOB_NAME': 'interactive'})
    assert not has_slurm_place({})


@pytest.mark.parametrize('name', ['RANK', 'MASTER_ADDR', 'MASTER_PORT'])
def test_what_is_left_of_torchrun_is_named(name):
    env = without(TORCHRUN, name, 'TORCHELASTIC_RUN_ID')
    for check in (check_world, lambda env: check_evaluation(False, env)):
        with pytest.raises(ValueError, match=f'WORLD_SIZE=4 .*nobody started: {name}, .*unset'):
            check(env)
    with pytest.raises(ValueError, match=r'WORLD_SIZE=4 .*nobody started.*unset WORLD_SIZE'):
        check_training(1, env)
    with pytest.raises(ValueError, match=f'TORCHELASTIC_RUN_ID .* {name} is not set'):
        check_training(1, without(TORCHRUN, name))


def test_processes_that_lightning_starts_may_train():
    children = without(TORCHRUN, 'TORCHELASTIC_RUN_ID', 'LOCAL_WORLD_SIZE', 'RANK')
    check_training(4, {**children, 'NODE_RANK': '0'})
    with pytest.raises(ValueError, match=r'LOCAL_RANK=1 .*2 processes .*nobody started'):
        check_training(2, {'LOCAL_RANK': '1'})
    check_training(1, {'LOCAL_RANK': '0', 'RANK': '0'})
    with pytest.raises(ValueError, match=r'^RANK=1 .*nobody started.*unset RANK'):
        check_training(1, {'RANK': '1'})


@pytest.mark.parametrize('name', ['OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'MV2_COMM_WORLD_SIZE'])
def test_processes_of_mpi_do_not_know_each_other(name):
    with pytest.raises(ValueError, match=f'{name}=3 .*torchrun.*unset {name}'):
        check_training(1, {name: '3'})
    assert f'{name}=3' in check_evaluation(False, {name: '3'})


@pytest.mark.parametrize('name', ['SLURM_NTASKS', 'WORLD_SIZE', 'PMI_SIZE'])
def test_a_number_that_is_none_is_named(name):
    with pytest.raises(ValueError, match=f"number in the environment variable {name}, got 'x'"):
        check_evaluation(False, {name: 'x'})
