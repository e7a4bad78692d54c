"""Processes that read: the same batches as from threads, and nothing is left of them, however a run ends."""

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from facelab import distributed
from facelab.data.base import Batch, Source
from facelab.data.formats.conversion import FORMS, Form, encoder
from facelab.data.loading import loader as loading
from facelab.data.loading.loader import Loader
from facelab.data.loading.samplers import Sequential, Shuffle
from facelab.data.loading.shared_slots import shared_memory
from facelab.data.loading.worker import Plan
from facelab.data.sources.concat import Concat
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.image_list import ImageList
from facelab.data.sources.open_source import open_source
from facelab.errors import ConfigError, CorruptImage, DataError
from facelab.own_python import module_command, module_environment

HERE = Path(__file__).parent


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Source]:
    """A source whose class other processes find, too."""
    monkeypatch.syspath_prepend(HERE)
    from sent_sources import Numbered  # type: ignore[import-not-found]

    return Numbered  # type: ignore[no-any-return]


def by_processes(source: Source, **options: Any) -> Loader:
    given = {"batch_size": 20, "workers": 2, "reader": "processes", "sampler": Shuffle(source.labels, seed=1)} | options
    return Loader(source, given.pop("sampler"), **given)


def same(found: list[Batch], expected: list[Batch]) -> bool:
    names = ("image", "label", "index")
    pairs = zip(found, expected, strict=True)
    return all(torch.equal(getattr(one, name), getattr(other, name)) for one, other in pairs for name in names)


def pool_of(loader: Loader) -> Any:
    assert loader._idle_pool is not None
    return loader._idle_pool


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children(pid: int) -> list[int]:
    """The process that watches, and those that read; a tester has others of its own."""
    found = list[int]()
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    reading = [child for child in found if b"facelab.data.loading.worker" in words_of(child)]
    return reading + [one for child in reading for one in children(child)]


def words_of(pid: int) -> list[bytes]:
    """Those of its command; the process that a tester's others are forked from has names of modules in one of them."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def gone(pids: list[int], within: float = 10.0) -> bool:
    end = time.monotonic() + within
    while any(_runs(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_processes_change_nothing_and_leave_nothing(numbered: Callable[..., Source]) -> None:
    """Whatever is corrupt, from any step, for a consumer that keeps every batch, and one that leaves early."""
    source = numbered(bad={13: CorruptImage, 23: OSError, 24: ValueError})
    options: dict[str, Any] = {"on_corrupt": "skip", "rank": 1, "world_size": 2}
    options["quality"] = np.linspace(0, 1, 100, dtype=np.float32)
    before = descriptors()
    threads = by_processes(source, reader="threads", **options)
    processes = by_processes(source, prefetch=1, **options)
    for epoch, step in ((0, 0), (1, 0), (1, 3), (2, 5)):
        expected = list(threads.batches(epoch, step))
        found = list(processes.batches(epoch, step))
        assert same(found, expected)
        assert all(torch.equal(one.quality, other.quality) for one, other in zip(found, expected, strict=True))  # type: ignore[arg-type]
        assert all(batch.image.is_contiguous(memory_format=torch.channels_last) for batch in found)
    assert processes.corrupt.entries == threads.corrupt.entries
    pool = pool_of(processes)
    batches = processes.batches(3)
    kept = next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert pool_of(processes) is pool
    copy = kept.image.clone()
    assert same(list(processes.batches(4)), list(threads.batches(4)))
    assert torch.equal(kept.image, copy), "the place of a batch that is still in use was written to"
    pids = children(os.getpid())
    assert len(pids) >= 3
    assert "/dev/shm" not in Path(f"/proc/{pids[-1]}/maps").read_text(), "containers make it small"
    del processes, pool, batches, found, kept
    gc.collect()
    assert gone(pids)
    assert descriptors() == before


def test_two_iterations_at_a_time_have_processes_of_their_own(numbered: Callable[..., Source]) -> None:
    loader = by_processes(numbered())
    pairs = list(zip(loader.batches(0), loader.batches(1), strict=True))
    threads = by_processes(numbered(), reader="threads")
    assert same([one for one, _ in pairs], list(threads.batches(0)))
    assert same([other for _, other in pairs], list(threads.batches(1)))


def test_errors_come_at_their_batch_as_they_were_raised(numbered: Callable[..., Source]) -> None:
    source = numbered(bad={25: CorruptImage, 45: OSError, 65: ZeroDivisionError}, wide=(85,))

    class Fails(Sequential):
        def rows(self, epoch: int, start: int, stop: int) -> Any:
            if epoch == 1 and start == 20:
                raise ConfigError("no rows there.")
            if epoch == 2 and start == 40:
                raise KeyboardInterrupt
            return super().rows(epoch, start, stop)

    loader = by_processes(source, sampler=Fails(source.labels))
    with pytest.raises(CorruptImage, match=r"^image 25: is broken\.$"):
        list(loader.batches(0))
    with pytest.raises(CorruptImage, match=r"^image 45: cannot be read \(image 45: is broken\.\)\.$"):
        list(loader.batches(0, 2))
    with pytest.raises(ZeroDivisionError, match="image 65") as caught:
        list(loader.batches(0, 3))
    assert "sent_sources.py" in caught.value.__notes__[0], "where in the source is not said"
    with pytest.raises(DataError, match="image 85: the image is 4x7, but others of its batch are 4x6; align"):
        list(loader.batches(0, 4))
    batches = loader.batches(1)
    assert next(batches).index[0] == 0
    with pytest.raises(ConfigError, match=r"^no rows there\.$"):
        next(batches)
    with pytest.raises(KeyboardInterrupt):  # of the user, who waits for no batch
        next(loader.batches(2))
    assert next(loader.batches(0)).size == 20, "the processes go on after all that"


def test_a_process_that_is_killed_is_told_of_and_replaced(numbered: Callable[..., Source]) -> None:
    source = numbered(deadly=(50,))
    loader = by_processes(source, sampler=Sequential(source.labels))
    with pytest.raises(DataError, match=r"^a process that reads images was ended by signal 9, perhaps for lack of mem"):
        list(loader.batches(0))
    assert [batch.index[0].item() for batch in loader.batches(0, 3)] == [60, 80]
    for sent, how in ((signal.SIGKILL, "was ended by signal 9"), (signal.SIGTERM, "ended with status 143")):
        watching = pool_of(loader)._process.pid
        os.kill(watching, sent)
        assert gone([watching])
        with pytest.raises(DataError, match=how):
            list(loader.batches(0, 3))
        assert len(list(loader.batches(0, 3))) == 2


def test_of_a_process_that_is_killed_behind_a_slow_step_it_is_said_how(numbered: Callable[..., Source]) -> None:
    """The others, and the one that watched them, have ended too before anything is asked of them again."""
    source = numbered(deadly=(50,))
    others = children(os.getpid())  # of loaders that nobody has collected yet
    batches = by_processes(source, sampler=Sequential(source.labels), workers=1, prefetch=1).batches(0)
    kept = next(batches)
    assert gone([pid for pid in children(os.getpid()) if pid not in others], within=60.0)
    with pytest.raises(DataError, match=r"^a process that reads images was ended by signal 9, perhaps"):
        list(batches)
    assert kept.index[0] == 0


def test_a_fork_leaves_the_processes_to_whose_they_are(numbered: Callable[..., Source]) -> None:
    loader = by_processes(numbered())
    expected = list(loader.batches(1))
    batches = loader.batches(1)
    found = [next(batches)]

    def in_fork() -> bool:
        with pytest.raises(DataError, match="this process is a fork of the one that began to read this epoch; let it"):
            next(batches)
        return same(list(loader.batches(1)), expected)

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if in_fork() else 1
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    found += batches
    assert same(found, expected)


def test_a_source_that_cannot_be_sent_is_refused_or_read_by_threads_and_that_is_said(
    numbered: Callable[..., Source], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Local(numbered):  # type: ignore[misc, valid-type]
        pass

    reason = r"the source Local cannot be read by other processes \(Can't .*Local"
    with pytest.raises(ConfigError, match=f"^data.reader is 'processes', but {reason}.*; set it to threads"):
        next(by_processes(Local()).batches(0))
    monkeypatch.setattr(loading, "MANY", 100)
    assert len(list(by_processes(Local(), reader="auto").batches(0))) == 5
    assert "; its images are read by threads." in caplog.text
    # Python finds the class here, and not there.
    elsewhere = numbered()
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(HERE)])
    with pytest.raises(ConfigError, match=r"cannot be read by other processes \(No module named 'sent_sources'\)"):
        next(by_processes(elsewhere).batches(0))
    # A notebook's path of imports names the folder where it stands by nothing.
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert next(by_processes(elsewhere).batches(0)).size == 20


def test_a_class_of_the_program_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import sent_sources\n"
        "from facelab.data.loading.batch_reader import BatchReader\n"
        "from facelab.data.loading.worker_pool import WorkerPool\n"
        "class Mine(sent_sources.Numbered): pass\n"
        "WorkerPool(BatchReader(Mine()), workers=1, ahead=1, batch_size=1)\n"
    )
    program = [sys.executable, tmp_path / "program.py"]
    environment = module_environment() | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    said = subprocess.run(program, env=environment, capture_output=True, text=True).stderr
    assert "Can't get attribute 'Mine' on" in said
    assert said.rstrip().endswith("; other processes find a class only in a module that can be imported")


def test_what_the_system_refuses_is_said_and_leaves_nothing(
    numbered: Callable[..., Source], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Addresses, descriptors and processes are counted, on machines of many users above all."""
    gc.collect()  # loaders of other tests
    before, others = descriptors(), children(os.getpid())
    lowest = os.open(os.devnull, os.O_RDONLY)  # number of the next file: the limit is of numbers
    os.close(lowest)
    kinds = (resource.RLIMIT_AS, 3 << 30), (resource.RLIMIT_NOFILE, lowest + 4)
    for (kind, most), why in zip(kinds, ("Cannot allocate memory", "Too many open files"), strict=True):
        limits = resource.getrlimit(kind)
        loader = by_processes(numbered())
        try:
            resource.setrlimit(kind, (most, limits[1]))
            with pytest.raises(ConfigError, match=rf"cannot be read by other processes \({why}; they .* -v\); set"):
                next(loader.batches(0))
        finally:
            resource.setrlimit(kind, limits)
        assert descriptors() == before
    monkeypatch.setattr(loading, "MANY", 100)
    assert len(list(by_processes(numbered(forks=1), workers=3, reader="auto").batches(0))) == 5
    assert "cannot be read by other processes (no more of them); its images are read by threads." in caplog.text
    assert children(os.getpid()) == others
    assert descriptors() == before


def test_which_sets_processes_read_unless_told(numbered: Callable[..., Source], picture: Any) -> None:
    def chosen(source: Source, **options: Any) -> bool:
        return by_processes(source, **({"reader": "auto"} | options))._by_processes

    class Copied(numbered):  # type: ignore[misc, valid-type]
        def read_many(self, indices: Any) -> Any:
            return np.zeros((len(indices), 4, 6, 3), np.uint8)

    many, neighbours = numbered(20_000), numbered(20_000)
    neighbours.keeps_runs = True
    assert chosen(many)
    assert not chosen(many, reader="threads")
    assert not chosen(numbered(19_999))
    assert not chosen(Copied(20_000))
    assert not chosen(neighbours)
    assert not chosen(Concat([many, neighbours], share_labels=True))
    with pytest.raises(ConfigError, match="reader is 'thread'. Did you mean 'threads'"):
        by_processes(many, reader="thread")


@pytest.fixture
def every_kind(tmp_path: Path) -> list[Source]:
    """The same drawn JPEG files in all forms that need no further package."""
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (3, 3, 3), np.uint8)
        (tmp_path / "faces" / f"p{number % 3}").mkdir(parents=True, exist_ok=True)
        jpeg = cv2.imencode(".jpg", cv2.resize(pixels, (16, 16)))[1].tobytes()
        (tmp_path / "faces" / f"p{number % 3}" / f"{number}.jpg").write_bytes(jpeg)
    folder = ImageFolder(tmp_path / "faces")
    for to in ("webdataset", "packed", "recordio"):
        FORMS[to](Form(tmp_path / to, folder, encoder(folder, 95, False), 5, 1, lambda *_: None))
    subprocess.run(["tar", "-cf", "faces.tar", "faces"], cwd=tmp_path, check=True)
    lines = (f"{folder.name(index)} {label}\n" for index, label in enumerate(folder.labels.tolist()))
    (tmp_path / "list.txt").write_text("".join(lines))
    return [
        folder,
        ImageFolder(tmp_path / "faces.tar"),
        ImageList(tmp_path / "faces", tmp_path / "list.txt"),
        *(open_source(tmp_path / to) for to in ("webdataset", "packed", "recordio")),
    ]


def test_every_kind_of_source_is_read_by_processes(every_kind: list[Source]) -> None:
    """Twice, since a JPEG that one process found whole is not looked through again by any."""
    source = Concat(every_kind, share_labels=True)  # type: ignore[arg-type]
    assert len(source) == 72
    loader = by_processes(source, batch_size=8)
    expected = list(by_processes(source, reader="threads", batch_size=8).batches(0))
    for _ in range(2):
        assert same(list(loader.batches(0)), expected)


SCRIPT = """
    import os, signal, time
    import numpy as np
    from sent_sources import Numbered
    from facelab.data.loading.batch_reader import BatchReader, Task
    from facelab.data.loading.worker_pool import WorkerPool

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background program ignores it
    pool = WorkerPool(BatchReader(Numbered(seconds=0.001)), workers=2, ahead=2, batch_size=100)
    if os.fork() == 0:  # it holds the pipes of the program open for a while
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.closerange(0, 3)
        time.sleep(8)
        os._exit(0)
    for batch in pool.batches(range(1000), lambda step: Task(np.arange(100), 0, 100 * step)):
        print("here", flush=True)
"""  # without torch, whose import takes seconds


@pytest.mark.parametrize(("sent", "ended_by"), [(signal.SIGKILL, "only the program"), (signal.SIGINT, "a terminal")])
def test_nothing_outlives_a_program(
    sent: signal.Signals, ended_by: str, numbered: Callable[..., Source], tmp_path: Path
) -> None:
    """It has no guard of ``__main__`` either, which `multiprocessing` would need."""
    (tmp_path / "program.py").write_text(textwrap.dedent(SCRIPT))
    program = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"],
        env=module_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "here\n"
    pids = children(program.pid)
    assert len(pids) == 3
    (os.kill if ended_by == "only the program" else os.killpg)(program.pid, sent)
    _, said = program.communicate(timeout=300)
    assert gone(pids)
    assert program.returncode == -sent
    if sent == signal.SIGINT:
        assert said.count("Traceback") == 1, "only the program itself tells of the interrupt"
        assert said.rstrip().endswith("KeyboardInterrupt")
    else:
        assert said == ""


BARE = """
    import os, signal
    import numpy as np
    from sent_sources import Numbered
    from facelab.data.loading.batch_reader import BatchReader, Task
    from facelab.data.loading.worker_pool import WorkerPool
    from facelab.errors import DataError

    os.close(0)
    os.close(2)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    pool = WorkerPool(BatchReader(Numbered(deadly=(50,))), workers=1, ahead=1, batch_size=10)
    try:
        for batch in pool.batches(range(10), lambda step: Task(np.arange(10) + 10 * step, 0, 10 * step)):
            print(batch.index[0], flush=True)
    except DataError as error:
        print(error)
"""


def test_a_daemon_without_standard_streams_that_leaves_its_children_to_the_system(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(BARE))
    environment = module_environment() | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run([sys.executable, tmp_path / "program.py"], env=environment, stdout=subprocess.PIPE, text=True)
    *firsts, said = done.stdout.splitlines()
    assert firsts == ["0", "10", "20", "30", "40"]
    assert said.startswith("a process that reads images was ended by signal 9, perhaps")


def test_a_program_that_ends_while_processes_start_leaves_no_word_of_them() -> None:
    handle, (read_end, write_end) = shared_memory(), os.pipe()
    os.close(read_end)
    plan = Plan(handle, 1, 1, tasks=0, results=write_end, workers=1, size=99, parent=os.getpid())
    command = module_command("facelab.data.loading.worker", json.dumps(asdict(plan)))
    passed = {"pass_fds": (handle, write_end), "env": module_environment()}
    done = subprocess.run(command, input=b"a part", capture_output=True, **passed)  # type: ignore[call-overload]
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    for descriptor in (handle, write_end):
        os.close(descriptor)


def test_a_process_that_reads_starts_without_torch() -> None:
    code = "import sys, facelab.data.loading.worker, facelab.data.sources.open_source; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=module_environment(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["threads", "processes"])
def test_neither_descriptors_nor_memory_grow(reader: str, numbered: Callable[..., Source]) -> None:
    """20,000 batches in 40 epochs, of which every second one is left early."""
    source = numbered(2000)
    loader = by_processes(source, batch_size=2, prefetch=8, reader=reader)

    def resident() -> int:
        pids = [os.getpid(), *children(os.getpid())]
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)

    seen = []
    for epoch in range(40):
        for number, batch in enumerate(loader.batches(epoch)):
            assert batch.size == 2
            if epoch % 2 and number == 20:
                break
        gc.collect()
        seen.append((descriptors(), resident()))
    assert len({count for count, _ in seen}) == 1
    assert seen[-1][1] < 1.05 * seen[4][1]


def part_of_epoch(folder: str) -> list[list[int]]:
    """What one process of a gloo group reads, while it exchanges something between batches."""
    sys.path.append(folder)
    from sent_sources import Numbered

    source = Numbered(400)
    loader = by_processes(source, rank=distributed.rank(), world_size=distributed.world_size())
    found = []
    for batch in loader.batches(1):
        distributed.all_reduce_sum(batch.image.float().sum())
        found.append(batch.index.tolist())
    return found


@pytest.mark.slow
def test_each_process_of_a_group_has_its_own(numbered: Callable[..., Source]) -> None:
    parts = distributed.run_processes(part_of_epoch, 2, str(HERE))
    whole = [batch.index.tolist() for batch in by_processes(numbered(400), reader="threads").batches(1)]
    assert [left + right for left, right in zip(*parts, strict=True)] == whole


@pytest.mark.cuda
def test_pinned_memory(numbered: Callable[..., Source]) -> None:
    expected = list(by_processes(numbered(), reader="threads").batches(0))
    found = list(by_processes(numbered(), pin_memory=True).batches(0))
    assert all(batch.image.is_pinned() for batch in found)
    moved = [batch.to(torch.device("cuda")) for batch in found]
    assert all(torch.equal(one.image.cpu(), other.image) for one, other in zip(moved, expected, strict=True))
