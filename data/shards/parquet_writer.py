"""Writing Parquet files as the Hugging Face hub shows and loads them."""

import json
from collections.abc import Callable
from pathlib import Path

from facelab.data.base import Source
from facelab.data.formats.writing import written_folder
from facelab.data.shards.parquet_file import pyarrow_parquet

ROWS = 128
"""Rows of a row group, one or two megabytes of aligned faces: what a reader takes at once."""
FEATURES = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}


def write_parquet(
    target: Path,
    source: Source,
    encoded: Callable[[int], bytes],
    names: Callable[[int], str],
    per_shard: int,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write a source as Parquet files with the columns ``image`` (``{bytes, path}``) and ``label``, in its order.

    Args:
        target: The new folder; it appears when all of it is written, or not at all.
        source: The labels.
        encoded: Gives image ``index`` as JPEG or PNG.
        names: Gives the path of image ``index`` without its ending.
        per_shard: Images of a file.
        progress: Called with the number of images done.

    Raises:
        ConfigError: If pyarrow is not installed.
        DataError: If the target exists or the disk is full.
        CorruptImage: If an image cannot be read.
    """
    pyarrow, parquet = pyarrow_parquet()
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema(
        [("image", kind), ("label", pyarrow.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    files = -(-len(source) // per_shard)
    with written_folder(target) as folder:
        for number in range(files):
            path = folder / f"train-{number:05d}-of-{files:05d}.parquet"
            rows = range(number * per_shard, min((number + 1) * per_shard, len(source)))
            # Compressed images do not get smaller, and hardly two are equal.
            with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
                for start in range(rows.start, rows.stop, ROWS):
                    some = range(start, min(start + ROWS, rows.stop))
                    images = pyarrow.array([_image(encoded(index), names(index)) for index in some], kind)
                    labels = pyarrow.array(source.labels[some.start : some.stop])
                    writer.write_table(pyarrow.table([images, labels], schema=schema))
                    progress(some.stop)


def _image(data: bytes, name: str) -> dict[str, object]:
    ending = "png" if data.startswith(b"\x89PNG") else "jpg"
    return {"bytes": data, "path": f"{name}.{ending}".encode("utf-8", "replace").decode()}
