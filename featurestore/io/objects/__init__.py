"""Objects of a store (S3, Google Cloud Storage, Azure): listed, fetched one by one, read in ranges.

No function keeps a state between calls: another process or machine opens an object by what a
listing said of it (`featurestore.io.objects.store.StoredObject`) and its own environment.
"""
