"""Files and what names them: URIs, storages, caches, digests, MLflow as a place of artifacts."""
