"""The engine `compiled` gives what the network gives, and a stream goes on whatever happens."""

from __future__ import annotations

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from videomt_ros.datasets.synthetic.scene import Scene
from videomt_ros.engines import ENGINE_NAMES, programs
from videomt_ros.engines import compiled as module
from videomt_ros.engines.build import ENGINES, build_engine
from videomt_ros.engines.compiled import MAX_SIZES, CompiledEngine
from videomt_ros.engines.engine import EngineError
from videomt_ros.engines.programs import Program, Size
from videomt_ros.inference import StreamFrame, VideoStream, push_together
from videomt_ros.model import build_network
from videomt_ros.model.network import StepModule

SIZE = Size(1, 64, 96)
"""Size of the program that the tests share; see `compiled` in conftest."""


def frames_of(size: Size, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size.batch, 3, size.height, size.width, generator=generator)


def assert_steps_equal(engine, net, size: Size, tolerance: float = 1e-4) -> None:
    """Both give the same outputs for frames whose states they carry."""
    own_state = state = net.initial_state(size.batch)
    for t in range(5):
        outputs, state = engine.step(frames_of(size, t), state)
        own_outputs, own_state = net.step(frames_of(size, t), own_state)
        for found, expected in (
            (outputs.class_logits, own_outputs.class_logits),
            (outputs.mask_logits, own_outputs.mask_logits),
            (state, own_state),
        ):
            torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@torch.inference_mode()
@pytest.mark.parametrize('batch', [1, 3])
def test_steps_are_those_of_the_network(compiled, demo, batch):
    assert_steps_equal(compiled, demo, SIZE._replace(batch=batch))


@torch.inference_mode()
def test_a_program_of_lvmt_computes_what_the_network_does(tiny_config, cache):
    torch.manual_seed(0)
    changes = {'architecture': 'pmt', 'family': 'dinov3', 'propagation': 'gru'}
    net = build_network(replace(tiny_config, **changes)).eval()
    for name, buffer in net.named_buffers():
        if 'running' in name:
            buffer.add_(torch.rand_like(buffer))
    assert_steps_equal(CompiledEngine(net, waits=True), net, Size(1, 48, 64))


def test_outputs_stay_when_the_next_step_runs(compiled):
    outputs, state = compiled.step(frames_of(SIZE), compiled.initial_state())
    kept = outputs.mask_logits.clone(), state.clone()
    compiled.step(frames_of(SIZE, 1), state)
    assert torch.equal(outputs.mask_logits, kept[0]) and torch.equal(state, kept[1])


def test_streams_have_the_segments_of_the_network(compiled, demo):
    scenes = [Scene(seed, height=96, width=144, num_frames=8) for seed in (1, 2)]
    found = []
    for engine in (demo, compiled):
        streams = [VideoStream(engine, input_size=64, confirm_frames=1) for _ in scenes]
        results = []
        for t, images in enumerate(zip(*(scene.frames() for scene in scenes), strict=True)):
            frames = [
                StreamFrame(stream, image, t * 100_000_000)
                for stream, (image, _) in zip(streams, images, strict=True)
            ]
            results += push_together(frames)
        found.append(results)
    assert any(result.segments for result in found[0])
    for own, other in zip(*found, strict=True):
        assert np.array_equal(own.ids, other.ids)
        keys = [(s.track_id, s.class_id, s.box, s.area) for s in own.segments]
        assert keys == [(s.track_id, s.class_id, s.box, s.area) for s in other.segments]


def test_a_program_is_compiled_once(compiled, demo, monkeypatch):
    monkeypatch.setattr(programs, '_compile_apart', None)
    build_engine(demo, 'compiled', [SIZE])


def test_wrong_inputs_are_named(compiled):
    with pytest.raises(ValueError, match='Expected frames whose sides are multiples'):
        compiled.step(torch.zeros(1, 3, 64, 90), compiled.initial_state())
    with pytest.raises(ValueError, match='Expected a state of shape'):
        compiled.step(frames_of(SIZE), compiled.initial_state(2))


def test_a_damaged_program_is_removed_and_named(compiled, demo, cache, tmp_path, monkeypatch):
    (program,) = cache.rglob('*-1x64x96-*.pt2')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    copy = tmp_path / program.relative_to(cache)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(program.read_bytes()[:1000])
    with pytest.raises(EngineError, match='cannot be loaded, and was removed'):
        build_engine(demo, 'compiled', [SIZE])
    assert not copy.exists()


def test_a_machine_without_a_compiler_is_told(demo, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    monkeypatch.setenv('CXX', '/nowhere/g++')
    with pytest.raises(
        EngineError, match=r'could not be compiled for frames of 1 x 64 x 96: .*g\+\+'
    ):
        build_engine(demo, 'compiled', [SIZE])
    assert not list(tmp_path.rglob('*.pt2')) and not list(tmp_path.rglob('*.safetensors'))


def test_a_program_of_another_network_is_refused(demo, monkeypatch):
    class Other:
        device, dtype, initial_state = demo.device, demo.dtype, demo.initial_state

        def step(self, frames, state):
            outputs, state = demo.step(frames, state)
            return outputs._replace(mask_logits=outputs.mask_logits * 1.2), state

    monkeypatch.setattr(module, 'load_program', lambda net, digest, size: Other())
    with pytest.raises(EngineError, match='does not compute what the network does: mask_logits'):
        build_engine(demo, 'compiled', [SIZE])


def test_frames_of_a_new_size_run_while_their_program_is_compiled(tiny_net, monkeypatch):
    may_end, runs = threading.Event(), []

    def load(net, digest, size):
        may_end.wait(60)

        def package(frames, state):
            runs.append(size)
            return StepModule(net)(frames, state)

        return Program(net, package)

    monkeypatch.setattr(module, 'load_program', load)
    engine = CompiledEngine(tiny_net)
    size, other = Size(1, 64, 64), Size(2, 64, 96)
    with torch.inference_mode():
        for each in (size, other):
            assert_steps_equal(engine, tiny_net, each)
        assert not runs
        (thread,) = (t for t in threading.enumerate() if t.name == 'compile')
        may_end.set()
        thread.join(60)
        assert_steps_equal(engine, tiny_net, size)
    assert set(runs) == {size}


def test_a_size_that_cannot_be_compiled_runs_on(tiny_net, monkeypatch, caplog):
    attempts = []

    def fail(net, digest, size):
        attempts.append(size)
        raise EngineError('no compiler')

    monkeypatch.setattr(module, 'load_program', fail)
    engine, size = CompiledEngine(tiny_net), Size(1, 64, 64)
    with torch.inference_mode():
        assert_steps_equal(engine, tiny_net, size)
        for thread in threading.enumerate():
            if thread.name == 'compile':
                thread.join(60)
        assert_steps_equal(engine, tiny_net, size)
    assert attempts == [size]
    assert 'Frames of 1 x 64 x 64 run eagerly: no compiler' in caplog.text

    strict = CompiledEngine(tiny_net, waits=True)
    for _ in range(2):
        with pytest.raises(EngineError, match='no compiler'):
            strict.step(frames_of(size), strict.initial_state())
    assert attempts == [size, size]


def test_the_programs_of_old_sizes_are_dropped(tiny_net, monkeypatch):
    monkeypatch.setattr(module, 'load_program', lambda net, digest, size: net)
    engine = CompiledEngine(tiny_net, waits=True)
    sizes = [Size(1, 64, 64 + 16 * n) for n in range(MAX_SIZES + 2)]
    for size in sizes:
        engine.step(frames_of(size), engine.initial_state())
    assert list(engine._programs) == sizes[2:]


def test_a_size_is_captured_once_for_each_program(tiny_net, monkeypatch):
    """Here what stands for a graph is the step itself."""
    captured, may_end = [], threading.Event()

    def capture(step, frames, state):
        captured.append((Size.of(frames), step))
        return step

    def load(net, digest, size):
        may_end.wait(60)
        return tiny_net if size.batch == 1 else Other()

    class Other:
        device, dtype, initial_state = tiny_net.device, tiny_net.dtype, tiny_net.initial_state

        def step(self, frames, state):
            return tiny_net.step(frames, state)

    monkeypatch.setattr(module, 'capture', capture)
    monkeypatch.setattr(module, 'load_program', load)
    engine, sizes = CompiledEngine(tiny_net), [Size(1, 64, 64), Size(2, 64, 64)]

    def run():
        for size in sizes * 3:
            engine._graph(frames_of(size), engine.initial_state(size.batch))

    with torch.inference_mode():
        run()
        assert captured == [(size, tiny_net.step) for size in sizes]
        may_end.set()
        for size in sizes:
            engine.prepare(size)
        run()
        assert [size for size, _ in captured] == [*sizes, sizes[1]]
        for n in range(MAX_SIZES):
            size = Size(1, 64, 80 + 16 * n)
            engine._graph(frames_of(size), engine.initial_state())
        assert len(engine._graphs) == MAX_SIZES and size in engine._graphs


def test_a_program_that_cannot_be_captured_runs_without_a_graph(tiny_net, monkeypatch, caplog):
    monkeypatch.setattr(module, 'load_program', lambda net, digest, size: net)
    monkeypatch.setattr(module, 'capture', Mock(side_effect=RuntimeError('out of memory')))
    engine, size = CompiledEngine(tiny_net), Size(1, 64, 64)
    engine.prepare(size)
    for _ in range(3):
        assert engine._graph(frames_of(size), engine.initial_state()) == tiny_net.step
    (record,) = caplog.records
    assert '1 x 64 x 64 run without a CUDA graph, which takes longer: out of' in record.message
    strict = CompiledEngine(tiny_net, waits=True)
    with pytest.raises(RuntimeError, match='out of memory'):
        strict._graph(frames_of(size), strict.initial_state())


def test_a_program_that_fails_in_its_check_is_refused(demo, monkeypatch):
    """As where the memory of a GPU does not suffice for both."""
    program = Program(demo, Mock(side_effect=RuntimeError('CUDA out of\nmemory.')))
    monkeypatch.setattr(module, 'load_program', lambda net, digest, size: program)
    with pytest.raises(EngineError, match=r'1 x 64 x 96 does not run: CUDA out of memory\.'):
        build_engine(demo, 'compiled', [SIZE])


def test_a_program_reads_tensors_in_the_order_for_which_it_was_compiled(tiny_net):
    def package(frames, state):
        assert frames.is_contiguous() and state.is_contiguous()
        return state, state, state, state

    frames = frames_of(Size(2, 64, 64)).to(memory_format=torch.channels_last)
    Program(tiny_net, package).step(frames, tiny_net.initial_state(2))


@pytest.mark.parametrize(('device', 'index'), [('cpu', None), ('cuda:0', None), ('cuda:1', 1)])
def test_this_torch_knows_the_options_of_loading(device, index):
    options = programs._load_options(torch.device(device))
    inspect.signature(torch._inductor.aoti_load_package).bind('step.pt2', **options)
    assert options.get('device_index') == index


def test_engines_have_the_names_that_users_are_told(tiny_net):
    assert tuple(ENGINES) == ENGINE_NAMES
    assert build_engine(tiny_net, 'eager') is tiny_net
    with pytest.raises(EngineError, match="Expected the engine eager, .*, got 'tensorrt'"):
        build_engine(tiny_net, 'tensorrt')


@pytest.mark.gpu
@pytest.mark.parametrize('device', ['cuda:0', 'cuda:1'])
@pytest.mark.parametrize(
    ('architecture', 'family', 'is_compiled'),
    [
        ('videomt', 'dinov2', False),
        ('videomt', 'dinov3', False),
        ('videomt', 'eva02', False),
        ('videomt', 'dinov3', True),
        ('pmt', 'dinov2', False),
        ('pmt', 'dinov3', False),
        ('pmt', 'dinov3', True),
    ],
)
def test_a_graph_gives_what_the_network_gives(
    tiny_config, monkeypatch, cache, caplog, device, architecture, family, is_compiled
):
    """Of the network or of its program, also in another thread than that of the capture."""
    if torch.device(device).index >= torch.cuda.device_count():
        pytest.skip(f'no {device}')
    if not is_compiled:
        monkeypatch.setattr(module, 'load_program', lambda net, digest, size: net)
    torch.manual_seed(0)
    config = replace(tiny_config, architecture=architecture, family=family)
    net = build_network(config).eval().to(device)
    engine = CompiledEngine(net, waits=True)

    @torch.inference_mode()
    def run(seed):
        for size in (Size(1, 64, 64), Size(3, 64, 96), Size(1, 64, 64)):
            states = [net.initial_state(size.batch)] * 2
            for t in range(4):
                frames = frames_of(size, seed + t).to(device)
                found, expected = engine.step(frames, states[0]), net.step(frames, states[1])
                states = [found[1], expected[1]]
                kept = found[1].clone()
                engine.step(frames + 1, states[0])
                assert torch.equal(kept, found[1])
                for own, other in (
                    (found[0].mask_logits, expected[0].mask_logits),
                    (found[0].class_logits, expected[0].class_logits),
                    (found[1], expected[1]),
                ):
                    torch.testing.assert_close(own, other, atol=1e-3, rtol=1e-3)

    run(0)
    with ThreadPoolExecutor(1) as executor:
        executor.submit(run, 10).result()
    assert 'without a CUDA graph' not in caplog.text
    assert torch.cuda.current_stream(device) == torch.cuda.default_stream(device)


@pytest.mark.gpu
def test_a_step_that_cannot_be_captured_leaves_the_gpu_usable(tiny_net, monkeypatch, caplog):
    """Memory that two streams used is given back afterwards, and the next graph is captured."""
    net = tiny_net.cuda()

    class Waits:
        device, dtype, initial_state = net.device, net.dtype, net.initial_state

        def step(self, frames, state):
            assert float(frames.sum()) == float(frames.sum())
            return net.step(frames, state)

    monkeypatch.setattr(
        module, 'load_program', lambda net, digest, size: Waits() if size.batch == 1 else net
    )
    engine, side = CompiledEngine(net), torch.cuda.Stream()
    with torch.inference_mode():
        for batch in (1, 1, 2):
            engine.prepare(Size(batch, 64, 64))
            frames = frames_of(Size(batch, 64, 64)).cuda()
            outputs, _ = engine.step(frames, net.initial_state(batch))
            expected, _ = net.step(frames, net.initial_state(batch))
            torch.testing.assert_close(outputs.mask_logits, expected.mask_logits)
    assert caplog.text.count('without a CUDA graph') == 1
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    before = torch.cuda.memory_stats()['active_bytes.all.current']
    for _ in range(10):
        used = torch.empty(2**20, device='cuda')
        used.record_stream(side)
        del used
        torch.cuda.synchronize()
    torch.empty(2**20, device='cuda')
    after = torch.cuda.memory_stats()['active_bytes.all.current']
    assert after - before < 2 * 2**22  # and not ten times 4 MiB
