"""A process that writes, seals and drops audit rows until it is killed: `python audit_writer.py DATA_DIR`."""

import json
import sys
from itertools import count
from pathlib import Path

from audits import configured, opened

with opened(configured(Path(sys.argv[1]), segment_rows=40, checkpoint_rows=7, keep_rows=60)) as log:
    for round_ in count():
        log.fill(10)
        log.keeper.tick()
        sys.stdout.write(json.dumps({"rounds": round_}) + "\n")
        sys.stdout.flush()
