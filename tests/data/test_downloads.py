"""Data sets through torchvision, from a miniature archive that is served on loopback."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import pickle
import socket
import struct
import tarfile
import tempfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as tv
from painted_folders import Counter

from ablate.data import datasets
from ablate.data.datasets import Cifar10, Cifar100, FashionMnist, Mnist
from ablate.errors import DataError

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class OldPickler(pickle.Pickler):
    """Spells a dtype as the archives do, with numbers for booleans: the first releases of NumPy 2.4 warn about that."""

    def reducer_override(self, thing):
        if isinstance(thing, np.dtype):
            kind, (name, align, copy), *state = thing.__reduce__()
            return (kind, (name, int(align), int(copy)), *state)
        return NotImplemented


def old_pickle(thing) -> bytes:
    out = io.BytesIO()
    OldPickler(out, protocol=2).dump(thing)
    return out.getvalue()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that is served on loopback, and its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def nobody(monkeypatch):
    """An address where nothing listens."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:  # bound, but not listening: refused, and nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


def cifar(
    monkeypatch, address, kind=tv.CIFAR10, *, label_key="labels", meta=CIFAR10_CLASSES, n=20
) -> tuple[bytes, dict]:
    """A CIFAR archive of n images a batch, which torchvision's class is made to expect. → the archive, its batches."""
    generator = np.random.default_rng(0)
    names = [f[0] for f in kind.train_list], [f[0] for f in kind.test_list]
    batches = {
        name: {
            "data": generator.integers(0, 256, (n, 3072), dtype=np.uint8),
            label_key: [int(i) % len(meta) for i in range(n)],
        }
        for name in (*names[0], *names[1])
    }
    files = {name: old_pickle(batch) for name, batch in batches.items()}
    files[kind.meta["filename"]] = old_pickle({kind.meta["key"]: meta})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(kind, "url", address + kind.filename)
    monkeypatch.setattr(kind, "tgz_md5", md5(out.getvalue()))
    monkeypatch.setattr(kind, "train_list", [[name, md5(files[name])] for name in names[0]])
    monkeypatch.setattr(kind, "test_list", [[name, md5(files[name])] for name in names[1]])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(files[kind.meta["filename"]])})
    return out.getvalue(), batches


def test_cifar10_is_downloaded_once_and_read(served, tmp_path, monkeypatch):
    folder, address = served
    archive, batches = cifar(monkeypatch, address)
    (folder / "cifar-10-python.tar.gz").write_bytes(archive)
    counter = Counter()
    data = datasets.prepare(Cifar10(), tmp_path / "cache", counter)
    assert data.classes == tuple(CIFAR10_CLASSES)
    assert data.shape == (3, 32, 32)
    train = np.concatenate([batches[f"data_batch_{i}"]["data"] for i in range(1, 6)])
    assert np.array_equal(data.train_images, train.reshape(-1, 3, 32, 32))
    assert np.array_equal(data.test_images, batches["test_batch"]["data"].reshape(-1, 3, 32, 32))
    assert data.train_labels.tolist() == [i % 10 for i in range(20)] * 5
    downloading = [call for call in counter.calls if call[0] == "downloading cifar-10-python.tar.gz"]
    assert downloading[0][1:] == (0, len(archive))
    assert downloading[-1][1:] == (len(archive), len(archive))
    assert sorted(p.name for p in (tmp_path / "cache" / "downloads").iterdir()) == [
        ".download.lock",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
    ]

    (folder / "cifar-10-python.tar.gz").unlink()
    counter.calls.clear()
    assert datasets.prepare(Cifar10(), tmp_path / "cache", counter).fingerprint == data.fingerprint
    assert counter.calls == []
    assert datasets.prepare(Cifar10(resize=8), tmp_path / "cache").shape == (3, 8, 8)


def test_without_a_network_the_message_says_what_to_do(nobody, tmp_path, monkeypatch):
    cifar(monkeypatch, nobody)
    with pytest.raises(DataError) as caught:
        datasets.prepare(Cifar10(), tmp_path / "cache")
    message = str(caught.value)
    downloads = tmp_path / "cache" / "downloads"
    assert f"cifar10 is missing or incomplete in {downloads} and could not be downloaded" in message
    assert f"{nobody}cifar-10-python.tar.gz" in message
    assert "Connection refused" in message
    assert f"put cifar-10-python.tar.gz into {downloads}" in message
    assert "--set data.name=image_folder --set data.root=FOLDER" in message


@pytest.mark.parametrize("unpacked", [False, True])
def test_an_archive_under_root_needs_no_network(nobody, tmp_path, monkeypatch, unpacked):
    archive, _ = cifar(monkeypatch, nobody)
    root = tmp_path / "mine"
    root.mkdir()
    file = root / "cifar-10-python.tar.gz"
    file.write_bytes(archive)
    if unpacked:
        with tarfile.open(file) as inside:
            inside.extractall(root, filter="data")
        file.unlink()
    data = datasets.prepare(Cifar10(root=str(root)), tmp_path / "cache")
    assert len(data.train_images) == 100


def test_a_damaged_download_is_refused_and_removed(served, tmp_path, monkeypatch):
    folder, address = served
    archive, _ = cifar(monkeypatch, address)
    (folder / "cifar-10-python.tar.gz").write_bytes(archive[:-100])
    with pytest.raises(DataError, match="not the expected one"):
        datasets.prepare(Cifar10(), tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache" / "downloads").iterdir()] == [".download.lock"]


def test_the_message_about_a_missing_page_has_its_status_code(served, tmp_path, monkeypatch):
    cifar(monkeypatch, served[1])
    with pytest.raises(DataError, match="HTTP Error 404"):
        datasets.prepare(Cifar10(), tmp_path / "cache")


def test_a_half_unpacked_archive_is_unpacked_again(nobody, tmp_path, monkeypatch):
    archive, _ = cifar(monkeypatch, nobody)
    root = tmp_path / "mine"
    (root / "cifar-10-batches-py").mkdir(parents=True)
    (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
    (root / "cifar-10-python.tar.gz").write_bytes(archive)
    assert len(datasets.prepare(Cifar10(root=str(root)), tmp_path / "cache").train_images) == 100


def test_a_root_that_is_a_file_is_a_data_error(nobody, tmp_path, monkeypatch):
    cifar(monkeypatch, nobody)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cifar10 cannot be read from .*file"):
        datasets.prepare(Cifar10(root=str(tmp_path / "file")), tmp_path / "cache")


def test_cifar100_has_its_fine_labels(served, tmp_path, monkeypatch):
    folder, address = served
    names = [f"kind {i:02}" for i in range(10)]
    archive, _ = cifar(monkeypatch, address, tv.CIFAR100, label_key="fine_labels", meta=names)
    (folder / "cifar-100-python.tar.gz").write_bytes(archive)
    data = datasets.prepare(Cifar100(), tmp_path / "cache")
    assert data.classes == tuple(names)
    assert data.train_labels.tolist() == [i % 10 for i in range(20)]


def idx_file(array: np.ndarray) -> bytes:
    """The format of the MNIST files: magic number, sizes, bytes."""
    return struct.pack(f">{array.ndim + 1}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def mnist(monkeypatch, mirrors, kind) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    images, labels = (
        generator.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        np.arange(30, dtype=np.uint8) % 10,
    )
    names = [name for name, _ in kind.resources]
    arrays = [images[:20], labels[:20], images[20:], labels[20:]]
    files = {name: gzip.compress(idx_file(array), mtime=0) for name, array in zip(names, arrays, strict=True)}
    monkeypatch.setattr(kind, "mirrors", mirrors)
    monkeypatch.setattr(kind, "resources", [(name, md5(content)) for name, content in files.items()])
    return files, images, labels


@pytest.mark.parametrize(("config", "kind"), [(Mnist(), tv.MNIST), (FashionMnist(), tv.FashionMNIST)])
def test_the_mnist_family_is_downloaded_from_the_first_mirror_that_answers(
    served, nobody, tmp_path, monkeypatch, *, config, kind
):
    folder, address = served
    files, images, labels = mnist(monkeypatch, [nobody, address], kind)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    data = datasets.prepare(config, tmp_path / "cache")
    assert data.shape == (1, 28, 28)
    assert np.array_equal(data.train_images[:, 0], images[:20])
    assert np.array_equal(data.test_images[:, 0], images[20:])
    assert data.train_labels.tolist() == labels[:20].tolist()
    assert data.classes == (tuple("0123456789") if kind is tv.MNIST else tuple(tv.FashionMNIST.classes))


def test_mnist_without_a_network_names_every_mirror(nobody, tmp_path, monkeypatch):
    files, *_ = mnist(monkeypatch, [nobody + "a/", nobody + "b/"], tv.MNIST)
    with pytest.raises(DataError) as caught:
        datasets.prepare(Mnist(), tmp_path / "cache")
    assert f"{nobody}a/train-images-idx3-ubyte.gz" in str(caught.value)
    assert f"{nobody}b/train-images-idx3-ubyte.gz" in str(caught.value)
    assert f"put {' '.join(files)} into {tmp_path / 'cache' / 'downloads' / 'MNIST' / 'raw'}" in str(
        caught.value
    )


def test_a_damaged_mnist_is_fetched_again(served, tmp_path, monkeypatch):
    folder, address = served
    files, images, _ = mnist(monkeypatch, [address], tv.MNIST)
    raw = tmp_path / "mine" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (raw / name.removesuffix(".gz")).write_bytes(gzip.decompress(content)[:-5])
    data = datasets.prepare(Mnist(root=str(tmp_path / "mine")), tmp_path / "cache")
    assert np.array_equal(data.train_images[:, 0], images[:20])
    assert "train-images-idx3-ubyte was cut off" in data.notes[0]


def _counts(raw):
    (raw / "train-labels-idx1-ubyte").write_bytes(idx_file(np.zeros(15, np.uint8)))


def _other_images(raw):
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx_file(np.zeros((12, 28, 28), np.uint8)))


def _longer(raw):
    with (raw / "train-images-idx3-ubyte").open("ab") as file:
        file.write(b"more")


def _other_kind(raw):
    (raw / "train-labels-idx1-ubyte").write_bytes(b"label,image\n" * 9)


def _swapped(raw):
    images, labels = raw / "t10k-images-idx3-ubyte", raw / "t10k-labels-idx1-ubyte"
    content = images.read_bytes()
    images.write_bytes(labels.read_bytes())
    labels.write_bytes(content)


def _label_of_no_class(raw):
    (raw / "train-labels-idx1-ubyte").write_bytes(idx_file(np.arange(20, dtype=np.uint8) % 11))


def _emptied(raw):
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"")


def _none(raw):
    for name, shape in (("images-idx3", (0, 28, 28)), ("labels-idx1", (0,))):
        (raw / f"t10k-{name}-ubyte").write_bytes(idx_file(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_counts, r"20 images in train-images-idx3-ubyte and 15 labels in train-labels-idx1-ubyte"),
        (_other_images, r"12 images in t10k-images-idx3-ubyte and 10 labels"),
        (_longer, r"train-images-idx3-ubyte has 15,700 bytes; its header says 15,696"),
        (_other_kind, r"train-labels-idx1-ubyte is no IDX file of bytes in 1 dimension"),
        (_swapped, r"t10k-images-idx3-ubyte is no IDX file of bytes in 3 dimensions"),
        (_label_of_no_class, r"20 images and 20 labels from 0 to 10, of 10 classes"),
        (_emptied, r"t10k-images-idx3-ubyte was cut off at 0 bytes; mnist is missing or incomplete"),
        (_none, r"t10k-images-idx3-ubyte holds nothing"),
    ],
)
def test_idx_files_that_do_not_fit_together_are_refused_and_named(
    nobody, tmp_path, monkeypatch, spoil, words
):
    files, *_ = mnist(monkeypatch, [nobody], tv.MNIST)
    raw = tmp_path / "mine" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    assert len(datasets.prepare(Mnist(root=str(tmp_path / "mine")), tmp_path / "cache").train_images) == 20
    spoil(raw)
    with pytest.raises(DataError, match=words):
        datasets.prepare(Mnist(root=str(tmp_path / "mine")), tmp_path / "other")


def test_a_pickle_that_is_not_the_published_one_is_named_and_not_opened(nobody, tmp_path, monkeypatch):
    archive, _ = cifar(monkeypatch, nobody)
    root = tmp_path / "mine"
    with tarfile.open(fileobj=io.BytesIO(archive)) as inside:
        inside.extractall(root, filter="data")
    file = root / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(
        DataError, match=r"data_batch_3 is not the published file \(its MD5 differs\); cifar10 is missing"
    ):
        datasets.prepare(Cifar10(root=str(root)), tmp_path / "cache")


def test_another_root_is_another_source(served, tmp_path, monkeypatch):
    folder, address = served
    files, *_ = mnist(monkeypatch, [address], tv.MNIST)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    data = datasets.prepare(Mnist(), tmp_path / "cache")
    assert datasets.fingerprint(Mnist(), tmp_path / "cache") == data.fingerprint
    assert datasets.fingerprint(Mnist(root=str(tmp_path / "mine")), tmp_path / "cache") is None


MEMBERS = {
    "a name with ..": lambda member: setattr(member, "name", "../escaped"),
    "an absolute name": lambda member: setattr(member, "name", f"{tempfile.gettempdir()}/ablate-escaped"),
    "a link that leads out": lambda member: (setattr(member, "type", tarfile.SYMTYPE), setattr(member, "linkname", "../../x")),
    "a hard link that leads out": lambda member: (setattr(member, "type", tarfile.LNKTYPE), setattr(member, "linkname", "../../x")),
    "a device": lambda member: setattr(member, "type", tarfile.CHRTYPE),
    "a pipe": lambda member: setattr(member, "type", tarfile.FIFOTYPE),
}  # fmt: skip


@pytest.mark.parametrize("is_published", [True, False])
@pytest.mark.parametrize("name", MEMBERS)
def test_an_archive_with_members_that_lead_out_writes_nothing_there(
    nobody, tmp_path, monkeypatch, name, is_published
):
    cifar(monkeypatch, nobody)
    member = tarfile.TarInfo(f"{tv.CIFAR10.base_folder}/x")
    MEMBERS[name](member)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.addfile(member, io.BytesIO())
    root = tmp_path / "root"
    root.mkdir()
    (root / tv.CIFAR10.filename).write_bytes(out.getvalue())
    if is_published:
        monkeypatch.setattr(tv.CIFAR10, "tgz_md5", md5(out.getvalue()))
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(DataError) as refused:
        datasets.prepare(Cifar10(root=str(root)), tmp_path / "cache")
    assert "\n" not in refused.value.sentence
    assert {path.name for path in tmp_path.iterdir()} - before <= {"cache"}
    assert not (Path(tempfile.gettempdir()) / "ablate-escaped").exists()
    assert not any(path.is_fifo() or path.is_symlink() or path.is_char_device() for path in root.rglob("*"))
