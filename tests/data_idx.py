"""Files of the sets that are read beside torchvision."""

import gzip

import numpy as np


def write_idx(path, x, zipped):
    """An idx file of bytes, compressed or not; its path."""
    content = b"\0\0\x08" + bytes([x.ndim]) + np.array(x.shape, ">i4").tobytes() + x.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.with_name(path.name + ".gz") if zipped else path
    path.write_bytes(gzip.compress(content) if zipped else content)
    return path


def write_mnist(root, folder, zipped):
    """The four files of a small set of random images; images and labels by part."""
    rng = np.random.default_rng(1)
    parts = {}
    for stem, n in (("train", 30), ("t10k", 10)):
        parts[stem] = rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)
        write_idx(root / folder / "raw" / f"{stem}-images-idx3-ubyte", parts[stem][0], zipped)
        write_idx(root / folder / "raw" / f"{stem}-labels-idx1-ubyte", parts[stem][1], zipped)
    return parts


def unpack(source, root, folder):
    """The files of a real set, unpacked as torchvision wants them."""
    (root / folder / "raw").mkdir(parents=True)
    for path in (source / folder / "raw").glob("*.gz"):
        (root / folder / "raw" / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
