"""The plumbing of the notebooks. The lessons themselves are in the cells."""

import os

# A ``!command`` in a cell forks, and gRPC's handlers in the child may complain into its
# output: https://github.com/grpc/grpc/issues/13873
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
