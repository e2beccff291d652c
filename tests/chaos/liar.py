"""A spoke that lies: `liar.py DATA_DIR NAME PORT`. `DATA_DIR/NAME.lie` names how it answers (see spoken.py).

Whatever `write` was asked stands in `DATA_DIR/NAME.journal`, one line per time it was asked.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import spoken
import uvicorn

DATA, NAME, PORT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
TOOLS = [
    {
        "name": f"os_{NAME}_{action}",
        "description": "Lies.",
        "inputSchema": {"type": "object", "properties": {"mark": {"type": "string"}}},
        "_meta": {"fleet/id": f"os.{NAME}.{action}", "risk": risk, "fleet/deadline_s": 5},
    }
    for action, risk in (("look", "read"), ("write", "change"))
]


async def answer(request: dict[str, Any], send: Any) -> None:
    """Write down what was asked, answer as told."""
    if request["method"] != "tools/call":
        error = {"code": -32601, "message": "not here"}
        await spoken.send_json(send, {"jsonrpc": "2.0", "id": request["id"], "error": error})
        return
    mark = request["params"]["arguments"].get("mark")
    if mark:
        with (DATA / f"{NAME}.journal").open("a", encoding="utf-8") as journal:
            journal.write(f"{mark}\n")
    lie = (DATA / f"{NAME}.lie").read_text(encoding="utf-8").strip()
    await getattr(spoken, lie)(request, send)


sys.stdout.write(json.dumps({"port": PORT}) + "\n")
sys.stdout.flush()
uvicorn.run(spoken.spoke_app(answer, TOOLS), host="127.0.0.1", port=PORT, log_config=None, lifespan="off")
