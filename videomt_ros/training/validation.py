"""Validation during a run: the project's evaluator scores the weights that the run would deliver.

A score equals that of `videomt evaluate` on a file of these weights, in both of its modes. What a
run learns does not depend on whether it is validated.
"""

from __future__ import annotations

import copy
import errno
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from videomt_ros.datasets.benchmarks import open_dataset
from videomt_ros.datasets.categories import map_classes
from videomt_ros.datasets.dataset import Dataset
from videomt_ros.evaluation.evaluator import evaluate
from videomt_ros.evaluation.families import family_of
from videomt_ros.evaluation.families.score_parts import TRUTH
from videomt_ros.evaluation.figures import as_text
from videomt_ros.evaluation.finishing import joined_modes, nothing_left
from videomt_ros.evaluation.run_folder import MODES
from videomt_ros.evaluation.sharding import PATIENCE, Shard
from videomt_ros.model import VideoNetwork, save_model
from videomt_ros.model.device import choose_precision
from videomt_ros.model.weight_files import read_metadata
from videomt_ros.training.early_end import disk_is_full
from videomt_ros.training.machine import is_first_process
from videomt_ros.training.module import TrainModule
from videomt_ros.training.pictures import log_page, validation_page, write_page
from videomt_ros.training.run_settings import TrainSettings

BEST = 'best.safetensors'
"""Name of the file with the best weights in the folder of a run."""
_ABOUT = 'validation'
"""Key of the score and the step in the metadata of that file."""
_KEPT = ('metrics.json', 'report.html')
"""Files of an evaluation to keep; the result files of all validations would fill the disk."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Outcome:
    """Result of a validation, which the first process sends to the others."""

    figures: Mapping[str, float | None]
    """Figures by mode and name, such as live_AP."""
    problem: str = ''
    """Reason why there are no figures; empty if there are."""
    is_disk_full: bool = False
    """Whether the reason is a full disk, which ends the run."""


class ScoreCallback(Callback):
    """Scores the weights every few steps and after the last one, and keeps the best.

    Among the callbacks it comes after RunningMean, whose weights it scores, and before
    KeepCheckpoints, which needs to know whether the step is the best.
    """

    def __init__(self, settings: TrainSettings) -> None:
        """Open the data set.

        Args:
            settings: settings of the run; its `validation` is not None.

        Raises:
            ValueError: the data set has no annotations, or no class of the network.
            DatasetError: the data set cannot be opened.
        """
        import jinja2  # noqa: F401 (the report needs it, and the run is to fail now if it is missing)

        assert settings.validation is not None
        self.settings = settings
        self.validation = settings.validation
        self.dataset = _open(settings)
        self.out = Path(settings.out)
        self.best_value: float | None = None
        self.best_step: int | None = None
        self._group: dist.ProcessGroup | None = None

    @property
    def main(self) -> str:
        """Name of the figure that decides which weights are the best."""
        return f'live_{family_of(self.dataset.family).main_figure}'

    def state_dict(self) -> dict[str, Any]:
        """Return the best so far for the checkpoint."""
        return {'best_value': self.best_value, 'best_step': self.best_step, 'of': self._scored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best so far, unless it is of other videos and cannot be compared."""
        before, value = state_dict.get('of'), state_dict['best_value']
        if before != self._scored and value is not None and is_first_process():
            logger.warning(
                'The best so far is of another validation (%s, now %s): the next score is the '
                'first best.', _listed(before), _listed(self._scored),
            )  # fmt: skip
        # If the run was killed between writing the two, the file has better weights than the
        # checkpoint knows of, and on a GPU the repeated steps may not lead to the same weights.
        for found in (state_dict, self._best_on_disk()):
            if found.get('of') == self._scored and self._is_better(found['best_value']):
                self.best_value, self.best_step = found['best_value'], found['best_step']

    def _best_on_disk(self) -> dict[str, Any]:
        """Read the state that was saved with the best weights; empty if there are none."""
        try:
            kept = json.loads(read_metadata(self.out / BEST)[_ABOUT])
        except (KeyError, ValueError):  # no file, or a file without this metadata
            return {}
        return cast(dict[str, Any], kept)

    def _is_better(self, value: float | None) -> bool:
        return value is not None and (self.best_value is None or value > self.best_value)

    @property
    def _scored(self) -> dict[str, str | int | None]:
        """Videos on which scores can be compared; data may lie elsewhere on another machine."""
        wanted = self.validation
        return {
            'dataset': wanted.dataset,
            'root': Path(wanted.root).name,
            'split': wanted.split,
            'limit': wanted.limit,
        }

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create a process group whose timeout allows for long videos."""
        if trainer.world_size > 1:
            # The group for gradients times out after minutes, and works on the GPU.
            group = dist.new_group(backend='gloo', timeout=PATIENCE)
            self._group = cast(dist.ProcessGroup, group)  # not None: every process is a member

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Agree on the best so far, whose weights may be on the first machine only."""
        self._share_best(self._shard(trainer))

    def _share_best(self, shard: Shard) -> None:
        known = shard.first_does(lambda: (self.best_value, self.best_step))
        self.best_value, self.best_step = known

    def _shard(self, trainer: Trainer) -> Shard:
        return Shard(trainer.global_rank, trainer.world_size, self._group)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Validate if it is due at this step."""
        step = trainer.global_step
        is_last = batch[0].step + 1 == self.settings.total_steps  # a step of the plan
        if step % self.validation.every == 0 or is_last:
            with isolate_rng():
                self.validate(trainer, cast(TrainModule, pl_module), step)

    def validate(self, trainer: Trainer, module: TrainModule, step: int) -> None:
        """Score, log, draw, and keep the best; all processes take part.

        Errors are logged, and the run goes on.

        Raises:
            OSError: the disk is full.
        """
        started = time.monotonic()
        shard = self._shard(trainer)
        net = delivered_network(module)
        outcome = self._score(net, step, shard)
        if outcome.problem and shard.is_first:
            shutil.rmtree(self._workplace(step), ignore_errors=True)
        if outcome.is_disk_full:
            raise OSError(errno.ENOSPC, outcome.problem)
        if outcome.problem:
            if shard.is_first:
                logger.error('Validation of step %d failed: %s', step, outcome.problem)
            return
        shard.first_does(lambda: self._publish(trainer, net, outcome.figures, step))
        self._share_best(shard)
        if shard.is_first:
            self._log_summary(outcome.figures, step, time.monotonic() - started)

    def _publish(
        self,
        trainer: Trainer,
        net: VideoNetwork,
        figures: Mapping[str, float | None],
        step: int,
    ) -> None:
        """Write the results of a validation to the folder of the run and to the loggers.

        Raises:
            OSError: the disk is full.
        """
        _attempt('log of scores', step, lambda: self._log(trainer, figures, step))
        if self._is_better(figures[self.main]):
            _attempt('best weights', step, lambda: self._keep_best(net, figures[self.main], step))
        _attempt('pictures', step, lambda: self._draw(trainer, step))
        _attempt('report', step, lambda: self._clear(step))

    def _keep_best(self, net: VideoNetwork, value: float | None, step: int) -> None:
        """Write the best weights, and note them as the best when they are on the disk."""
        state = {'best_value': value, 'best_step': step, 'of': self._scored}
        about = {_ABOUT: json.dumps(state)}
        save_model(net, self.out / BEST, dtype=torch.float16, about=about)
        self.best_value, self.best_step = value, step

    def _log_summary(self, figures: Mapping[str, float | None], step: int, seconds: float) -> None:
        main = family_of(self.dataset.family).main_figure
        if figures[self.main] is None:
            logger.warning(
                'In validation, %s is not defined for these videos (too few or too short): '
                'no best weights are kept of step %d.', main, step,
            )  # fmt: skip
        logger.info(
            'Validation of step %d: live %s %s, published %s %s, best live %s of step %s, %.0f s',
            step, main, as_text(main, figures[self.main]),
            main, as_text(main, figures[f'published_{main}']), main, self.best_step, seconds,
        )  # fmt: skip

    def _score(self, net: VideoNetwork, step: int, shard: Shard) -> _Outcome:
        """Evaluate in all processes, which get the same outcome."""
        outcome = _Outcome({}, 'another process has the figures')
        try:
            shard.first_does(lambda: _remove(self._workplace(step)))
            metrics = evaluate(
                self.dataset,
                # As a node runs it; a copy, since the best weights are written from `net`.
                copy.deepcopy(net).to(choose_precision('auto', net.device)),
                self._workplace(step),
                settings=self._live_settings(),
                about={'model': net.config.name, 'step': step},
                shard=shard,
            )
            if metrics is not None:
                outcome = self._summary(metrics)
        except Exception as error:
            is_usual = isinstance(error, (ValueError, OSError))
            logger.debug('Validation failed', exc_info=not is_usual)
            text = str(error) if is_usual else f'{type(error).__name__}: {error}'
            outcome = _Outcome({}, text, disk_is_full(error))
        return shard.first_does(lambda: outcome)

    def _summary(self, metrics: Mapping[str, Any]) -> _Outcome:
        failures = metrics['failures']
        if nothing_left(failures, MODES, metrics['run']['num_videos']):
            return _Outcome({}, f'no video could be predicted. {_described(failures[0])}')
        for failure in joined_modes(failures):
            what = 'left out' if failure['mode'] == TRUTH else 'counted as missed'
            logger.warning('In validation, %s: %s', what, _described(failure))
        return _Outcome(
            {
                f'{mode}_{name}': metrics[mode]['figures'].get(name)
                for mode in MODES
                for name in family_of(self.dataset.family).logged_figures
            }
        )

    def _live_settings(self) -> dict[str, Any]:
        """Show tracks at their first frame if videos have one frame only."""
        if all(len(video.frame_names) == 1 for video in self.dataset.videos):
            return {'confirm_frames': 1}
        return {}

    def _log(self, trainer: Trainer, figures: Mapping[str, float | None], step: int) -> None:
        known = {f'val/{name}': value for name, value in figures.items() if value is not None}
        for each in trainer.loggers:
            each.log_metrics(known, step)
        with (self.out / 'log.jsonl').open('a', encoding='utf-8') as log:
            log.write(json.dumps({'step': step, 'val': figures}) + '\n')

    def _draw(self, trainer: Trainer, step: int) -> None:
        if not self.validation.pictures:
            return
        title = f'Step {step}, live, {self.dataset.name}: same number, same object'
        page = validation_page(
            self.dataset, self._workplace(step) / 'live', self.validation.pictures, title
        )
        write_page(page, self.out / 'pictures' / f'step-{step}.jpg')
        log_page(page, trainer.loggers, step)

    def _workplace(self, step: int) -> Path:
        return self.out / 'validation' / f'step-{step}.partial'

    def _clear(self, step: int) -> None:
        """Keep the figures and the report of this and of the best validation only."""
        work, folder = self._workplace(step), self.out / 'validation'
        for path in work.iterdir():
            if path.name not in _KEPT:
                _remove(path)
        target = folder / f'step-{step}'
        _remove(target)
        work.rename(target)
        wanted = {target.name, f'step-{self.best_step}'}
        for path in folder.glob('step-*'):
            if path.name not in wanted:
                _remove(path)


def delivered_network(module: TrainModule) -> VideoNetwork:
    """Copy the network as it would be in the file that the run would leave now.

    Returns:
        Network in evaluation mode on the module's device, with weights rounded as in the file.
    """
    net = copy.deepcopy(module.net).eval().requires_grad_(False)
    net.load_state_dict(
        {name: value.to(torch.float16) for name, value in module.deliverable().items()}
    )
    return net


def _open(settings: TrainSettings) -> Dataset:
    """Open the data set of the validation.

    Raises:
        ValueError: it cannot be opened, or has no score for this network; names the setting.
    """
    validation = settings.validation
    assert validation is not None
    name = f'validation ({validation.dataset} in {validation.root})'
    dataset = open_dataset(
        validation.dataset,
        Path(validation.root),
        validation.split,
        skip_bad=settings.skip_bad,
        keep_faulty=True,
    )
    if not dataset.truth:
        raise ValueError(
            f'Expected annotations in {name}, split {dataset.split or "of the default"} has none. '
            'Choose another split, or leave validation out.'
        )
    if not dataset.videos:
        raise ValueError(f'Expected videos in {name}, it has none.')
    try:
        classes = map_classes(settings.network.class_names, dataset.categories, dataset.name)
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from error
    for note in [*dataset.remarks(), *classes.notes]:
        logger.info('%s: %s', name, note)
    dataset = replace(dataset, videos=dataset.videos[: validation.limit])
    unusable = family_of(dataset.family).check_truth(dataset, dataset.videos, lambda: None)
    if len(unusable) == len(dataset.videos):
        raise ValueError(
            f'Expected true masks that can be used in {name}, got none: '
            f'{next(iter(unusable.values()))}'
        )
    return dataset


def _attempt(what: str, step: int, act: Callable[[], None]) -> None:
    """Call `act`, and log its errors, with which a run can go on.

    Raises:
        OSError: the disk is full.
    """
    try:
        act()
    except Exception as error:
        if disk_is_full(error):
            raise OSError(errno.ENOSPC, str(error)) from error
        logger.error(
            'No %s of the validation of step %d: %s: %s', what, step, type(error).__name__, error
        )


def _listed(scored: Mapping[str, str | int | None] | None) -> str:
    return ', '.join(f'{name} {value}' for name, value in (scored or {}).items()) or 'unknown'


def _described(failure: Mapping[str, str]) -> str:
    return f'{failure["video"]} ({failure["mode"]}): {failure["error"]}'


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
