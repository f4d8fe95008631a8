"""What the environment says of other processes of a run, and whether anybody started them.

torchrun, srun and mpirun tell each process by environment variables how many there are. In a shell
of a SLURM allocation, or below a program that torchrun has started, the variables are there
without the processes, and a run would wait for them for ever.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

_MEETING = ('RANK', 'MASTER_ADDR', 'MASTER_PORT')
"""Variables that each of several processes needs to meet the others, beside WORLD_SIZE."""
_MPI_SIZES = ('OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'MV2_COMM_WORLD_SIZE')
"""Variables in which launchers of MPI give the number of processes."""
_SRUN_RANKS = ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NODEID')
"""Variables that tell a process its place among those that srun has started."""
_FIRST_SPECIAL_STEP = 0xFFFF_FFF0
"""SLURM gives numbers from here on to the steps of batch scripts and of interactive shells."""


def check_world(env: Mapping[str, str] = os.environ) -> int:
    """Refuse to wait for processes that WORLD_SIZE asks for and that cannot come.

    Returns:
        The number of processes that it asks for, at least 1.

    Raises:
        ValueError: says which variable asks for them, and what to do.
    """
    world_size = _number(env, 'WORLD_SIZE')
    if world_size <= 1:
        return 1
    missing = [name for name in _MEETING if not env.get(name)]
    if missing:
        raise ValueError(
            f'WORLD_SIZE={world_size} asks for {world_size} processes that nobody started: '
            f'{", ".join(missing)}, by which they would meet, {_are(missing)} not set. '
            f'Start them with torchrun --nproc-per-node {world_size} -m videomt_ros ..., or run '
            'one process after `unset WORLD_SIZE RANK LOCAL_RANK`.'
        )
    return world_size


def check_evaluation(is_shard: bool, env: Mapping[str, str] = os.environ) -> str:
    """Check the processes of an evaluation, which shares its videos under torchrun alone.

    Args:
        is_shard: whether the process evaluates a shard that the user has numbered.
        env: the environment.

    Returns:
        A note for the user on processes that were asked for elsewhere; empty if there is none.

    Raises:
        ValueError: the processes cannot meet, or several that srun has started would all do the
            same; says which variable, and what to do.
    """
    if check_world(env) > 1 or is_shard:
        return ''
    if asked := _unstarted_by_slurm(env):
        return (
            f'{asked}. This process evaluates all of it. To share the work, start it with '
            'torchrun, or use a job array and --shard.'
        )
    tasks = _number(env, 'SLURM_NTASKS')
    if tasks > 1 and _is_srun_task(env) and not _is_interactive(env):
        raise ValueError(
            f'SLURM_NTASKS={tasks}: srun has started {tasks} processes, and each would evaluate '
            "all of it. Give each a share: srun bash -c 'videomt evaluate ... --shard "
            "$((SLURM_PROCID + 1))/$SLURM_NTASKS', and then videomt evaluate --merge DIR."
        )
    if asked := _apart_under_mpi(env):
        return (
            f'{asked}. This process evaluates all of it. To share the work, start it with '
            'torchrun, or use --shard.'
        )
    return ''


def check_training(world_size: int, env: Mapping[str, str] = os.environ) -> None:
    """Check the processes of a training run before it would wait for them.

    Args:
        world_size: number of processes that the settings ask for, where no launcher does.
        env: the environment.

    Raises:
        ValueError: processes were asked for that nobody started; says by which variable, and what
            to do.
    """
    if env.get('TORCHELASTIC_RUN_ID'):
        missing = [
            name
            for name in ('WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'LOCAL_RANK', *_MEETING)
            if not env.get(name)
        ]
        if missing:
            raise ValueError(
                'TORCHELASTIC_RUN_ID says that torchrun has started this process, but '
                f'{", ".join(missing)} {_are(missing)} not set, so nobody did. Start it with '
                'torchrun, or run one process after `unset TORCHELASTIC_RUN_ID`.'
            )
        return
    if asked := _unstarted_by_slurm(env):
        raise ValueError(
            f'{asked}. Start the command with srun, or train in one process after '
            '`unset SLURM_NTASKS SLURM_NTASKS_PER_NODE`.'
        )
    if has_slurm_place(env):
        return
    if asked := _apart_under_mpi(env):
        raise ValueError(
            f'{asked}. Start the processes with torchrun in place of mpirun, or train in one '
            f'process after `unset {" ".join(name for name in _MPI_SIZES if name in env)}`.'
        )
    # Lightning sets these variables in the processes that it starts itself.
    asked_for = _number(env, 'WORLD_SIZE')
    if asked_for > 1 and asked_for != world_size:
        raise ValueError(
            f'WORLD_SIZE={asked_for} asks for {asked_for} processes that nobody started: torchrun '
            f'did not start this one, and the settings ask for {world_size}. Start it with '
            f'torchrun --nproc-per-node {asked_for} -m videomt_ros train ..., or train without '
            'it after `unset WORLD_SIZE RANK LOCAL_RANK`.'
        )
    place = next((name for name in ('RANK', 'LOCAL_RANK') if _number(env, name, 0) > 0), None)
    if world_size == 1 and place is not None:
        raise ValueError(
            f'{place}={env[place]} says that this is not the first of several processes, but '
            'nothing says of how many: nobody started them. `unset RANK LOCAL_RANK`, or start the '
            'command with torchrun.'
        )
    if world_size > 1 and 'LOCAL_RANK' in env and not env.get('MASTER_PORT'):
        raise ValueError(
            f'LOCAL_RANK={env["LOCAL_RANK"]} says that a launcher has started the {world_size} '
            'processes of the settings, but MASTER_PORT, by which they would meet, is not set: '
            'nobody started them. `unset LOCAL_RANK RANK`, or start them with torchrun.'
        )


def has_slurm_place(env: Mapping[str, str] = os.environ) -> bool:
    """Whether this is one of the processes of a SLURM job, which knows its place among them."""
    return (
        'SLURM_NTASKS' in env
        and not _is_interactive(env)
        and all(env.get(name) for name in _SRUN_RANKS)
    )


def _unstarted_by_slurm(env: Mapping[str, str]) -> str:
    """Say which variable of SLURM asks for processes that srun has not started; may be empty."""
    if env.get('TORCHELASTIC_RUN_ID') or _is_interactive(env):
        return ''
    if not env.get('SLURM_NTASKS'):
        return ''  # nobody reads the other variables without this one
    tasks, per_node = _number(env, 'SLURM_NTASKS'), _number(env, 'SLURM_NTASKS_PER_NODE')
    name, count = max(
        ('SLURM_NTASKS', tasks), ('SLURM_NTASKS_PER_NODE', per_node), key=lambda pair: pair[1]
    )
    if count <= 1 or _is_srun_task(env):
        return ''
    where = ' on each machine' if name == 'SLURM_NTASKS_PER_NODE' else ''
    return (
        f'{name}={count} asks for {count} processes{where} that nobody started, since this one '
        'was started without srun'
    )


def _apart_under_mpi(env: Mapping[str, str]) -> str:
    """Say which variable of MPI counts processes that know nothing of each other here."""
    for name in _MPI_SIZES:
        if (count := _number(env, name)) > 1 and not env.get('TORCHELASTIC_RUN_ID'):
            return f'{name}={count} says that MPI runs {count} processes, which do not share work'
    return ''


def _is_srun_task(env: Mapping[str, str]) -> bool:
    """Whether srun has started this process; a batch script has a place in its job, but no step.

    In an interactive shell the number of tasks is that of the allocation, and the step has one.
    """
    if _number(env, 'SLURM_PROCID', 0) > 0:
        return True
    step = _number(env, 'SLURM_STEP_ID', -1)
    step = _number(env, 'SLURM_STEPID', -1) if step < 0 else step
    if not 0 <= step < _FIRST_SPECIAL_STEP:
        return False
    tasks = _number(env, 'SLURM_NTASKS')
    return _number(env, 'SLURM_STEP_NUM_TASKS', tasks) == tasks


def _is_interactive(env: Mapping[str, str]) -> bool:
    """Whether SLURM's variables are those of a shell, by the rule of Lightning."""
    return env.get('SLURM_JOB_NAME') in ('bash', 'interactive')


def _number(env: Mapping[str, str], name: str, default: int = 1) -> int:
    """Read a whole number from the environment.

    Raises:
        ValueError: it is something else.
    """
    text = env.get(name, '').strip()
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f'Expected a whole number in the environment variable {name}, got {text!r}. Unset it, '
            'or start the command with the launcher that sets it.'
        ) from None


def _are(names: list[str]) -> str:
    return 'is' if len(names) == 1 else 'are'
