"""What a tool answered, as the result of a step: structured, masked, and by reference when it is large."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any, cast

import orjson
import sqlalchemy as sa

from fleetkit.errors import NotFound
from fleetkit.scrub import scrubber
from fleetkit.shapes import mapping
from fleetkit.store import Store
from master_mcp.store.workflows import artifacts
from master_mcp.workflows.record import Fault

LARGE = 256 * 1024  # bytes of a result that travel in a run
PREVIEW = 400


def result_of(answer: Mapping[str, Any]) -> tuple[Any, Fault | None]:
    """The result of a tool's answer, or what went wrong."""
    if "error" in answer:
        return None, Fault("error", str(mapping(answer["error"]).get("message") or "the tool answered an error"))
    result = mapping(answer.get("result"))
    structured = mapping(result.get("structuredContent"))
    text = "\n".join(_texts(result))
    if result.get("isError"):
        code, message = structured.get("code"), structured.get("message")
        return None, Fault(code if isinstance(code, str) else "error", str(message or text or "the tool failed"))
    if result.get("resultType") == "input_required":
        return None, Fault("refused", "the tool asks a person something, which a workflow cannot answer")
    if not structured:
        return scrubber.data(text), None
    return scrubber.data(structured["result"] if set(structured) == {"result"} else dict(structured)), None


def _texts(result: Mapping[str, Any]) -> list[str]:
    content = result.get("content")
    blocks = cast("list[object]", content) if isinstance(content, list) else []
    return [str(mapping(block)["text"]) for block in blocks if "text" in mapping(block)]


class Artifacts:
    """Large results, kept beside their run."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def kept(self, run_id: str, name: str, result: Any) -> Any:
        """The result itself, or when it is large a reference to it: `{artifact, bytes, preview}`."""
        raw = orjson.dumps(result)
        if len(raw) <= LARGE:
            return result
        row = {
            "run_id": run_id,
            "name": name,
            "content": raw,
            "sha256": hashlib.sha256(raw).hexdigest(),
            "created_at": time.time(),
        }

        def work(db: sa.Connection) -> None:
            db.execute(artifacts.delete().where(artifacts.c.run_id == run_id, artifacts.c.name == name))
            db.execute(artifacts.insert().values(row))

        await self._store.write(work)
        return {"artifact": name, "bytes": len(raw), "preview": raw[:PREVIEW].decode(errors="replace")}

    async def read(self, run_id: str, name: str) -> Any:
        """The JSON that a reference stands for; raises NotFound."""
        query = sa.select(artifacts.c.content).where(artifacts.c.run_id == run_id, artifacts.c.name == name)
        raw = await self._store.read(lambda db: db.execute(query).scalar_one_or_none())
        if raw is None:
            raise NotFound(f"run {run_id} has no artifact {name!r}: its steps name those that it has")
        return orjson.loads(raw)
