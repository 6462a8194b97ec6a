"""[--split] SCRIPT: runs it where Accelerate takes the CPU for an accelerator: it knows FSDP for accelerators only.

All else is its own code. Without --split, it runs SCRIPT without DeepSpeed's collectives in shared memory, which take a
minute to compile.
"""

import runpy
import sys

if "--split" in sys.argv:
    sys.argv.remove("--split")
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    PartialState._prepare_backend = lambda self, *_: ("gloo", DistributedType.MULTI_GPU)
else:
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
