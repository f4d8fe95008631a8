"""Networks as ONNX files, run by onnxruntime, beside torch; and the cameras of such a file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.engines.engine import EngineError
from videomt_ros.engines.onnx_engine import OnnxEngine
from videomt_ros.engines.onnx_export import ExportError, check_file, export_onnx
from videomt_ros.engines.onnx_providers import provider_options
from videomt_ros.inference import StreamFrame, VideoStream, push_together
from videomt_ros.inference.preprocess import Geometry
from videomt_ros.model import (
    CheckpointError,
    NetworkConfig,
    VideoNetwork,
    build_network,
    load_model,
)

SIZE = (64, 96)
TINY = NetworkConfig(
    num_classes=5,
    embed_dim=64,
    depth=2,
    num_heads=2,
    table_size=64,
    num_queries=7,
    num_query_blocks=1,
    size_divisor=16,
)


@dataclass(frozen=True)
class Case:
    """A network, and how it is exported."""

    network: dict = field(default_factory=dict)
    dynamic: tuple = ()
    dtype: torch.dtype = torch.float32

    def build(self) -> VideoNetwork:
        torch.manual_seed(0)
        net = build_network(replace(TINY, **self.network)).eval()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            for name, buffer in net.named_buffers():
                if 'running' in name:
                    buffer.add_(torch.rand_like(buffer))
        return net


LVMT = {'architecture': 'pmt', 'family': 'dinov3', 'propagation': 'gru'}
CASES = {
    'dinov2': Case({'propagation': 'fusion'}),
    'dinov3': Case({'family': 'dinov3', 'propagation': 'none', 'norm_queries': True}),
    'eva02': Case({'family': 'eva02', 'propagation': 'gru', 'task': 'semantic'}, ('batch',)),
    'dinov2 open': Case({'propagation': 'query', 'task': 'panoptic'}, ('batch', 'size')),
    'dinov3 open': Case({'family': 'dinov3', 'propagation': 'gru'}, ('batch', 'size')),
    'eva02 open': Case({'family': 'eva02', 'propagation': 'fusion'}, ('size',)),
    'pmt': Case({'architecture': 'pmt', 'propagation': 'fusion'}),
    'pmt open': Case({'architecture': 'pmt', 'propagation': 'fusion'}, ('batch', 'size')),
    'lvmt open': Case(
        {'architecture': 'pmt', 'family': 'dinov3', 'propagation': 'gru'}, ('batch', 'size')
    ),
    'lvmt half': Case(
        {'architecture': 'pmt', 'family': 'dinov3', 'propagation': 'gru'},
        ('batch',),
        torch.float16,
    ),
    'half': Case({'propagation': 'fusion'}, ('batch',), torch.float16),
}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Export each case when it is first asked for."""
    folder = tmp_path_factory.mktemp('onnx')
    found = {}

    def file(name: str) -> Path:
        if name not in found:
            case = CASES[name]
            path = folder / f'{name}.onnx'
            differences = export_onnx(case.build(), path, SIZE, case.dtype, case.dynamic, '1.2.3')
            assert all(difference.scale > 1 for difference in differences.values())
            found[name] = path
        return found[name]

    return file


def both_over_time(net, engine, batch_size, size, num_frames=20):
    """Run both over the same frames, each with its own state: pairs of outputs."""
    generator = torch.Generator().manual_seed(5)
    states = [net.initial_state(batch_size), engine.initial_state(batch_size)]
    for _ in range(num_frames):
        frames = torch.randn(batch_size, 3, *size, generator=generator)
        with torch.inference_mode():
            expected, states[0] = net.step(frames, states[0])
        outputs, states[1] = engine.step(frames.to(engine.dtype), states[1])
        yield from zip((*expected[:2], states[0]), (*outputs[:2], states[1]), strict=True)


@pytest.mark.parametrize('batch_size', [1, 3])
@pytest.mark.parametrize('name', [name for name in CASES if 'half' not in name])
def test_a_file_computes_what_torch_does(files, name, batch_size):
    """Whatever the file's batch: one of fixed batch runs several times."""
    net, engine = CASES[name].build(), OnnxEngine(files(name))
    assert engine.config == net.config
    torch.testing.assert_close(engine.initial_state(2), net.initial_state(2).detach())
    for expected, actual in both_over_time(net, engine, batch_size, SIZE):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize('name', [name for name in CASES if 'open' in name])
@pytest.mark.parametrize('size', [(32, 48), (128, 64), (16, 16)])
def test_frames_may_have_any_size(files, name, size):
    """Smaller and larger than the table of positions, which is resampled."""
    net, engine = CASES[name].build(), OnnxEngine(files(name))
    for expected, actual in both_over_time(net, engine, 2, size, num_frames=3):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ('name', 'whole', 'num_frames'),
    # A recurrent updater with random weights adds up its roundings.
    [('half', 'dinov2', 20), ('lvmt half', 'lvmt open', 5)],
)
def test_half_precision_stays_near_float32(files, name, whole, num_frames):
    net, engine = CASES[name].build(), OnnxEngine(files(name))
    assert engine.dtype == engine.initial_state().dtype == torch.float16
    assert files(name).stat().st_size < 0.6 * files(whole).stat().st_size
    for expected, actual in both_over_time(net, engine, 3, SIZE, num_frames):
        assert actual.dtype == torch.float16
        assert (actual - expected).abs().max() < 0.01 * expected.abs().max()


def test_results_stay_as_they_are_when_the_next_step_runs(files):
    engine = OnnxEngine(files('dinov2'))
    first, state = engine.step(torch.randn(1, 3, *SIZE), engine.initial_state())
    kept = [tensor.clone() for tensor in (*first[:2], state)]
    engine.step(torch.randn(1, 3, *SIZE), state)
    for tensor, copy in zip((*first[:2], state), kept, strict=True):
        assert torch.equal(tensor, copy)


def test_memory_in_another_order_is_read_right(files):
    engine = OnnxEngine(files('dinov2'))
    frames = torch.randn(1, 3, *SIZE)
    expected, _ = engine.step(frames, engine.initial_state())
    outputs, _ = engine.step(
        frames.to(memory_format=torch.channels_last), engine.initial_state().mT.contiguous().mT
    )
    assert torch.equal(outputs.mask_logits, expected.mask_logits)


@pytest.mark.parametrize(
    ('frames', 'state', 'words'),
    [
        (torch.zeros(1, 3, 64, 64), None, ['64 x 96', '64 x 64', '--image-size', '--dynamic']),
        (torch.zeros(1, 3, 64, 90), None, ['multiples of the patch size 16']),
        (torch.zeros(1, 64, 96), None, ['(B, 3, H, W)']),
        (torch.zeros(1, 3, 64, 96).double(), None, ['torch.float32', 'torch.float64']),
        (torch.zeros(1, 3, 64, 96), torch.zeros(1, 6, 64), ['(1, 7, 64)', '(1, 6, 64)']),
        (torch.zeros(2, 3, 64, 96), torch.zeros(1, 7, 64), ['(2, 7, 64)']),
        (torch.zeros(1, 3, 64, 96), torch.zeros(1, 7, 64).half(), ['torch.float16']),
    ],
)
def test_other_inputs_are_errors(files, frames, state, words):
    engine = OnnxEngine(files('dinov2'))
    with pytest.raises(ValueError) as error:
        engine.step(frames, engine.initial_state() if state is None else state)
    assert [word for word in words if word not in str(error.value)] == []


def test_a_digest_tells_files_apart(files):
    engines = [OnnxEngine(files(name)) for name in ('dinov2', 'dinov2', 'half')]
    first, same, other = (engine.digest() for engine in engines)
    assert first == same != other
    assert len(first) == 16


TENSORRT = {
    'Add', 'Concat', 'Conv', 'ConvTranspose', 'Einsum', 'Gelu', 'Gemm', 'LayerNormalization',
    'MatMul', 'Mul', 'Neg', 'Reshape', 'Sigmoid', 'Slice', 'Softmax', 'Split', 'Squeeze', 'Sub',
    'Tanh', 'Transpose', 'Unsqueeze',
}  # fmt: skip
"""Operators of a file of fixed size, all of which TensorRT 10 takes without restrictions
(docs/operators.md of onnx-tensorrt)."""


@pytest.mark.parametrize('name', ['dinov2', 'dinov3', 'eva02', 'half'])
def test_a_file_of_fixed_size_has_operators_that_tensorrt_takes(files, name):
    model = onnx.load(files(name))
    onnx.checker.check_model(model, full_check=True)
    (opset,) = model.opset_import
    assert (opset.domain, opset.version) == ('', 20)
    operators = {node.op_type for node in model.graph.node}
    assert operators - TENSORRT - ({'Shape', 'Expand'} if CASES[name].dynamic else set()) == set()
    assert {'LayerNormalization', 'Gelu', 'Softmax'} <= operators


@pytest.mark.parametrize('name', ['dinov2', 'half'])
def test_all_numbers_of_a_file_have_its_type(files, name):
    """So that strongly typed TensorRT computes in it; whole numbers are shapes and indices."""
    model = onnx.load(files(name))
    wanted = TensorProto.FLOAT16 if name == 'half' else TensorProto.FLOAT
    types = {tensor.data_type for tensor in model.graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in model.graph.value_info}
    assert types - {TensorProto.INT64, TensorProto.BOOL} == {wanted}


# --- Exports that must not succeed ------------------------------------------------------------


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    """With a tolerance that no arithmetic meets, and a file there before."""
    monkeypatch.setitem(export_onnx.__globals__['TOLERANCES'], torch.float32, 1e-12)
    path = tmp_path / 'robot.onnx'
    path.write_bytes(b'before')
    with pytest.raises(ExportError, match='not written.*mask_logits differ by .* of') as error:
        export_onnx(CASES['dinov2'].build(), path, SIZE)
    assert str(path) in str(error.value)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b'before'


class Branching(torch.nn.Linear):
    """A layer whose values decide what is computed, which a trace cannot follow."""

    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


def test_what_torch_cannot_export_is_named(tmp_path):
    net = CASES['dinov2'].build()
    net.class_head = Branching(net.class_head.in_features, net.class_head.out_features)
    with pytest.raises(ExportError, match='cannot export the network: .*data-dependent'):
        export_onnx(net, tmp_path / 'robot.onnx', SIZE)
    assert not list(tmp_path.iterdir())


def test_the_comparison_finds_other_weights(files):
    """A file of other weights of the same sizes."""
    engine = OnnxEngine(files('dinov2'))
    net = CASES['dinov2'].build()
    same = check_file(net, engine, SIZE)
    with torch.no_grad():
        net.mask_head[4].weight.mul_(1.01)
    other = check_file(net, engine, SIZE)
    assert same['mask_logits'].relative() < 1e-5 < 1e-3 < other['mask_logits'].relative()
    assert other['class_logits'].relative() < 1e-5


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'path': 'robot.pt'}, '.onnx'),
        ({'size': (64, 90)}, 'multiples of the patch size 16, got 64 x 90'),
        ({'dtype': torch.bfloat16}, 'float32 or float16'),
        ({'dynamic': ('width',)}, 'batch, size'),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, words):
    given = {'path': 'robot.onnx', 'size': SIZE} | arguments
    with pytest.raises(ExportError, match=words):
        export_onnx(CASES['dinov2'].build(), tmp_path / given.pop('path'), **given)
    assert not list(tmp_path.iterdir())


def test_weights_beyond_float16_are_named(tmp_path):
    net = CASES['dinov2'].build()
    with torch.no_grad():
        net.class_head.bias[0] = 1e6
    with pytest.raises(ExportError, match='class_head.bias'):
        export_onnx(net, tmp_path / 'robot.onnx', SIZE, torch.float16)


# --- Providers --------------------------------------------------------------------------------


@pytest.mark.parametrize('providers', ['auto', 'cpu', ['cpu'], 'CPU'])
def test_the_provider_that_was_taken_is_told(files, providers):
    engine = OnnxEngine(files('dinov2'), providers=providers)
    assert engine.providers == ('CPUExecutionProvider',)


@pytest.mark.parametrize(
    ('providers', 'words'),
    [
        ('npu', 'cpu, cuda, tensorrt'),
        ('', 'cpu, cuda, tensorrt'),
        ('cpu,cpu', 'each once'),
        ('cuda', 'device cpu'),
        (['tensorrt', 'cuda'], 'device cpu'),
    ],
)
def test_wrong_providers_are_named(files, providers, words):
    with pytest.raises(EngineError, match=words):
        OnnxEngine(files('dinov2'), providers=providers)


@pytest.mark.skipif(torch.cuda.is_available(), reason='has the provider')
@pytest.mark.parametrize('providers', ['auto', 'tensorrt,cuda', 'tensorrt'])
@pytest.mark.filterwarnings('ignore:Specified provider')
def test_a_provider_that_was_not_taken_is_an_error(files, providers):
    """The real onnxruntime without a GPU goes on with the CPU, and says nothing."""
    with pytest.raises(EngineError, match='it took CPUExecutionProvider.*onnxruntime-gpu'):
        OnnxEngine(files('dinov2'), torch.device('cuda'), providers)


def test_what_tensorrt_built_is_kept_and_follows_the_types_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    options = provider_options(
        'TensorrtExecutionProvider', torch.device('cuda:1'), Path('robot.onnx')
    )
    folder = tmp_path / 'videomt_ros' / 'tensorrt'
    assert folder.is_dir()
    assert options['trt_engine_cache_path'] == options['trt_timing_cache_path'] == str(folder)
    assert options['device_id'] == 1
    assert not options['trt_fp16_enable']


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_a_graph_that_onnxruntime_does_not_know_is_named(files, tmp_path):
    """As an older onnxruntime finds it in a file of a newer version of ONNX."""
    model = onnx.load(files('dinov2'))
    model.graph.node[0].op_type = 'Foresee'
    onnx.save(model, tmp_path / 'new.onnx')
    with pytest.raises(CheckpointError, match=r'new.onnx: onnxruntime [\d.]+ cannot.*Foresee'):
        OnnxEngine(tmp_path / 'new.onnx')


@pytest.mark.parametrize(
    ('queries', 'words'), [('AAAA', 'expected .1, 7, 64.'), ('?', 'initial queries')]
)
def test_wrong_initial_queries_are_named(files, tmp_path, queries, words):
    model = onnx.load(files('dinov2'))
    for entry in model.metadata_props:
        if entry.key == 'initial_queries':
            entry.value = queries
    onnx.save(model, tmp_path / 'robot.onnx')
    with pytest.raises(CheckpointError, match=words):
        OnnxEngine(tmp_path / 'robot.onnx')


def test_a_file_with_other_outputs_is_named(files, tmp_path):
    model = onnx.load(files('dinov2'))
    del model.graph.output[2]
    onnx.save(model, tmp_path / 'robot.onnx')
    with pytest.raises(
        CheckpointError, match='outputs class_logits, mask_logits, embeddings, query_out, got'
    ):
        OnnxEngine(tmp_path / 'robot.onnx')


# --- Streams ----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """The demo model, and a file of it for images of 240 x 200."""
    net = load_model('demo')
    path = tmp_path_factory.mktemp('demo') / 'demo.onnx'
    export_onnx(net, path, Geometry.of((200, 240), net.config).padded_size)
    return net, path


def images(seed, num_frames):
    scene = Scene(seed, 200, 240, num_frames)
    return [image for image, _ in scene.frames()]


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_a_stream_of_the_demo_model_is_that_of_torch(demo, task):
    net, path = demo
    engine = OnnxEngine(path)
    streams = [VideoStream(net, task), VideoStream(engine, task)]
    differing = tracks = 0
    for index, image in enumerate(images(3, 30)):
        eager, onnx = (stream.push(image, index * 40_000_000) for stream in streams)
        differing += int(np.count_nonzero(eager.ids != onnx.ids))
        assert [(s.track_id, s.class_id) for s in eager.segments] == [
            (s.track_id, s.class_id) for s in onnx.segments
        ]
        tracks = max(tracks, len(eager.segments))
        for ours, theirs in zip(eager.segments, onnx.segments, strict=True):
            assert ours.score == pytest.approx(theirs.score, abs=1e-4)
    assert tracks > 1
    # A logit within 1e-4 of zero, or of another's, may fall to either side.
    assert differing <= 1e-5 * 30 * 200 * 240


def test_cameras_share_a_file(demo):
    """Several cameras step as one batch, with the results of each alone."""
    _, path = demo
    engine = OnnxEngine(path)
    cameras = [images(seed, 6) for seed in (1, 2, 3)]
    alone = [VideoStream(engine) for _ in cameras]
    together = [VideoStream(engine) for _ in cameras]
    for index in range(6):
        stamp = index * 40_000_000
        results = push_together(
            [
                StreamFrame(stream, camera[index], stamp)
                for stream, camera in zip(together, cameras, strict=True)
            ]
        )
        for stream, camera, result in zip(alone, cameras, results, strict=True):
            expected = stream.push(camera[index], stamp)
            assert np.array_equal(result.ids, expected.ids)
            assert [s.track_id for s in result.segments] == [s.track_id for s in expected.segments]
