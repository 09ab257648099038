"""The last that the prepared process of `programs` imports: what is there is there to stay.

A copy neither looks through it for garbage, which would copy its memory too, nor finds out again
which package each of its modules is of, as MLflow does for every model.
"""

import gc

from mlflow.utils import requirements_utils

requirements_utils._init_modules_to_packages_map()
gc.collect()
gc.freeze()
