"""Files of many images, here or elsewhere, of which single places are read: shards of tar, Parquet and LMDB."""
