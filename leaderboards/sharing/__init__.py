"""Sharing results: merging the stores of several machines, exporting, importing. No torch, no network.

* `merge`: many stores into one, `entries` reads them without stopping at the first damaged file.
* `bundle`: full records in one JSON file with hashes, and back.
* `model_index`: the form in which a model card on a hub states results.
* `checks`: what makes a record, or a single number, believable; each finding names its field.
"""
