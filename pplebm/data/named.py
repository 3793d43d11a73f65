"""The data sets known by name; nothing here touches the network."""

import gzip
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from pplebm.data.files import read_numpy
from pplebm.data.raw import Raw, first_line
from pplebm.errors import PplebmError

BYTE_LIMITS = (0.0, 255.0)


def read_digits(root: Path) -> Raw:
    """scikit-learn's 1797 images of digits, (1797, 8, 8), values 0..16; embedded, so `root` is not used."""
    found = importlib.util.find_spec("sklearn")  # whose import would take a second
    if found is None or found.origin is None:
        raise PplebmError("'digits' comes with scikit-learn; pip install scikit-learn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        table = np.loadtxt(file, delimiter=",")
    else:
        from sklearn.datasets import load_digits

        table = np.column_stack(load_digits(return_X_y=True))
    return Raw("digits", table[:, :-1].reshape(-1, 8, 8), y=table[:, -1].astype(int), limits=(0.0, 16.0))


def read_mnist(root: Path) -> Raw:
    """MNIST from `root`/MNIST/raw: 60000 + 10000 images (28, 28), bytes."""
    return read_idx_set("mnist", "MNIST", root)


def read_fashion_mnist(root: Path) -> Raw:
    """FashionMNIST from `root`/FashionMNIST/raw: 60000 + 10000 images (28, 28), bytes."""
    return read_idx_set("fashion_mnist", "FashionMNIST", root)


def read_idx_set(name: str, folder: str, root: Path) -> Raw:
    """The four idx files of MNIST or FashionMNIST, plain or .gz, in torchvision's layout.

    They are read here and not through torchvision, which wants them unpacked beside themselves (a folder may allow
    reading only) and which, in its usual CUDA build, does not import next to a CPU build of torch.
    """
    raw = root / folder / "raw"
    parts = []
    for stem in ("train-images-idx3", "t10k-images-idx3", "train-labels-idx1", "t10k-labels-idx1"):
        paths = (raw / f"{stem}-ubyte", raw / f"{stem}-ubyte.gz")
        path = next((p for p in paths if p.is_file()), None)
        if path is None:
            raise PplebmError(missing(name, f"{raw}/{stem}-ubyte or .gz", fetch(folder, root)))
        parts.append(read_idx(path))
    x, held_out, y, y_held_out = parts
    return Raw(name, x, held_out, y, y_held_out, limits=BYTE_LIMITS)


def read_idx(path: Path) -> np.ndarray:
    """One idx file of bytes: two zeros, the type 8, the rank, big-endian sizes, values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read()
        rank = content[3]
        shape = tuple(np.frombuffer(content, ">i4", rank, 4).tolist())
        sound = content[:3] == b"\0\0\x08" and len(content) == 4 + 4 * rank + math.prod(shape)
        reason = "not an idx file of bytes of the size it announces"
    except Exception as error:  # not a gzip file, cut short, too short for a header: several modules' errors
        sound, reason = False, first_line(error)
    if not sound:
        raise PplebmError(f"{path} is damaged ({reason}); remove it and fetch it again")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_cifar10(root: Path) -> Raw:
    """CIFAR-10, images (32, 32, 3), bytes, from an .npz (x_train, x_test) or torchvision's folder under `root`.

    torchvision's files are pickles: torchvision unpickles them itself, and only after their published md5 is confirmed.
    """
    stored = [p for p in (root / "cifar10.npz", *sorted((root / "cifar10").glob("*.npz"))) if p.is_file()]
    if stored:
        raw = read_numpy(stored[0])
        if raw.x.shape[1:] != (32, 32, 3) or raw.x.dtype != np.uint8:
            raise PplebmError(
                f"{stored[0]} holds rows of shape {raw.x.shape[1:]} and dtype {raw.x.dtype} where cifar10 has "
                f"(32, 32, 3) and uint8; store channels last, as bytes"
            )
        note = f"cifar10 was read from {stored[0].name}, {len(raw.x)} training rows"
        return raw._replace(name="cifar10", limits=BYTE_LIMITS, notes=(note,))
    if not (root / "cifar-10-batches-py").is_dir():
        places = f"{root}/cifar-10-batches-py, {root}/cifar10.npz or {root}/cifar10/*.npz"
        raise PplebmError(missing("cifar10", places, fetch("CIFAR10", root)))
    datasets = torchvision_datasets("cifar10")
    try:
        train, test = (datasets.CIFAR10(str(root), train=t, download=False) for t in (True, False))
    except Exception as error:  # torchvision raises RuntimeError, but reading may raise more
        raise PplebmError(damaged("cifar10", root / "cifar-10-batches-py", fetch("CIFAR10", root), error)) from error
    return Raw("cifar10", train.data, test.data, np.array(train.targets), np.array(test.targets), limits=BYTE_LIMITS)


def read_svhn(root: Path) -> Raw:
    """SVHN's cropped digits, images (32, 32, 3), bytes, through torchvision from the two .mat files in `root`."""
    files = [root / f"{split}_32x32.mat" for split in ("train", "test")]
    how = f"python -c \"import torchvision; [torchvision.datasets.SVHN('{root}', s, download=True) for s in " + (
        "('train', 'test')]\""
    )
    for path in files:
        if not path.is_file():
            raise PplebmError(missing("svhn", str(path), how))
    datasets = torchvision_datasets("svhn")
    try:
        train, test = (datasets.SVHN(str(root), split=s, download=False) for s in ("train", "test"))
    except Exception as error:  # torchvision raises RuntimeError, scipy's reader more
        raise PplebmError(damaged("svhn", root, how, error)) from error
    x, held_out = (part.data.transpose(0, 2, 3, 1) for part in (train, test))  # torchvision has channels first
    return Raw("svhn", x, held_out, np.asarray(train.labels), np.asarray(test.labels), limits=BYTE_LIMITS)


def torchvision_datasets(name: str) -> ModuleType:
    """torchvision.datasets, imported only now; PplebmError when it is not installed or does not import."""
    try:
        from torchvision import datasets
    except ImportError as error:
        raise PplebmError(f"{name!r} is read by torchvision; pip install 'pplebm[vision]'") from error
    except Exception as error:  # a torchvision built for another torch fails with RuntimeError
        raise PplebmError(
            f"{name!r} is read by torchvision, which is installed but does not import ({first_line(error)}); "
            f"install the torchvision built for your torch (CPU or CUDA, matching version)"
        ) from error
    return datasets


def fetch(dataset: str, root: Path) -> str:
    """The command that fetches a data set once, with torchvision."""
    return f"python -c \"import torchvision; torchvision.datasets.{dataset}('{root}', download=True)\""


def missing(name: str, places: str, how: str) -> str:
    """The sentence for files that are not there."""
    return (
        f"{name!r} was looked for at {places}, which is not there; pass the data_dir that holds it, or fetch it once "
        f"with {how} (torchvision: pip install 'pplebm[vision]')"
    )


def damaged(name: str, place: Path, how: str, error: Exception) -> str:
    """The sentence for files that torchvision refuses."""
    return f"{name!r} at {place} is incomplete or damaged ({first_line(error)}); fetch it again with {how}"


READERS: dict[str, Callable[[Path], Raw]] = {
    "digits": read_digits,
    "mnist": read_mnist,
    "fashion_mnist": read_fashion_mnist,
    "cifar10": read_cifar10,
    "svhn": read_svhn,
}
