"""Data: TFDS sets in array_record format, and the Grain pipelines that turn them into batches."""
