"""Language models: how they are built from the file, limited, metered, priced and, if local, served."""

import os

# Both dspy and litellm would fetch a price list from the network when they first need one.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
