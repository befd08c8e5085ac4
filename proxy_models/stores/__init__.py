"""S3, GCS or any other file system of fsspec: corpora that are read there, artifacts that are kept there."""
