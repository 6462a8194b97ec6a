"""What Accelerate or Fabric says to FSDP on CPUs, and which of the names in the arguments Fabric does not know."""

import json
import sys

library, *names = sys.argv[1:]
said = {}
if library == "accelerate":
    from accelerate import Accelerator as Start
else:
    from lightning.fabric import Fabric as Start
    from lightning.fabric.strategies import STRATEGY_REGISTRY

    said["unknown"] = [name for name in names if name not in STRATEGY_REGISTRY.available_strategies()]
try:
    Start()
except ValueError as error:
    said["refusal"] = str(error)
print("@" + json.dumps(said))
