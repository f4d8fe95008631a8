"""What each figure of a score means, in one line: for reports. Formulas stand with the metrics."""

from __future__ import annotations

from dataclasses import dataclass

from videomt_ros.evaluation.score_report import COUNTS

MAIN = {'ytvis': 'AP', 'vipseg': 'VPQ', 'vspw': 'mIoU'}
"""The figure that ranks models on each family of benchmarks."""
CLASS_FIGURE = {'ytvis': 'AP', 'vipseg': 'VPQ', 'vspw': 'IoU'}
"""The figure of a single class."""


@dataclass(frozen=True)
class Group:
    """Figures that stand together in a table."""

    title: str
    meanings: dict[str, str]
    """Figure -> what it means."""


_WINDOWS = {
    f'VPQ{k}{end}': f'VPQ over windows of {k} frame{"s" * (k > 1)}, {which}.'
    for k in (1, 2, 4, 6, 8)
    for end, which in (('', 'all classes'), ('_th', 'things'), ('_st', 'stuff'))
}

GROUPS = (
    Group(
        'Instances',
        {
            'AP': 'Average precision: mean over classes and the IoU thresholds 0.50 to 0.95.',
            'AP50': 'AP at the IoU threshold 0.50 alone: found, however roughly outlined.',
            'AP75': 'AP at the IoU threshold 0.75 alone: found and outlined well.',
            'APs': 'AP of small objects, up to 128 x 128 pixels.',
            'APm': 'AP of medium objects, between 128 x 128 and 256 x 256 pixels.',
            'APl': 'AP of large objects, from 256 x 256 pixels.',
            'AR1': 'Average recall with the surest prediction per video and class.',
            'AR10': 'Average recall with the ten surest predictions per video and class.',
            'AR100': 'Average recall with the hundred surest predictions per video and class.',
        },
    ),
    Group(
        'Panoptic',
        {
            'VPQ': 'Video panoptic quality: mean over windows of 1, 2, 4, 6 frames (VIPSeg).',
            'VPQ_th': 'VPQ of things: countable objects.',
            'VPQ_st': 'VPQ of stuff: sky, road and the like.',
            'VPQ_five': 'VPQ with windows of 8 frames too, as the released scripts average it.',
            'VPQ_five_th': 'As above, things.',
            'VPQ_five_st': 'As above, stuff.',
            **_WINDOWS,
            'STQ': 'Segmentation and tracking quality: geometric mean of AQ and SQ.',
            'AQ': 'Association quality: pixels of things that keep their identity.',
            'SQ': 'Segmentation quality: mean IoU over classes.',
        },
    ),
    Group(
        'Classes per pixel',
        {
            'mIoU': 'Mean over classes of the intersection over union of all pixels.',
            'FWIoU': 'The same, classes weighted by their share of the pixels.',
            'mVC8': 'Video consistency: pixels that stay alike over 8 frames where truth does.',
            'mVC16': 'The same over 16 frames.',
            'mVC16_as_printed': 'Mean over windows of 8 and of 16, as the released script prints.',
        },
    ),
    Group(
        'Tracking',
        {
            'HOTA': 'Higher order tracking accuracy: finding and following, balanced.',
            'DetA': 'Its share from finding objects in each frame.',
            'AssA': 'Its share from keeping their identities.',
            'IDF1': 'Share of objects and tracks that pair up under one lasting identity.',
            'IDSW': 'Identity switches: an object goes on under another track.',
            'Frag': 'Fragmentations: an object is lost for a while and found again.',
            'MT': 'Objects followed in more than 80 % of their life.',
            'ML': 'Objects followed in less than 20 % of it.',
        },
    ),
)


def as_text(figure: str, value: float | None) -> str:
    """A value as tables show it: a count, or a hundredfold fraction with one decimal."""
    if value is None:
        return '–'
    return f'{value:.0f}' if figure in COUNTS else f'{100 * value:.1f}'
