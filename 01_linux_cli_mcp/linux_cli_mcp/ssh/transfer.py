"""Copying one file to or from another machine; the copy counts only when its SHA-256 is the original's."""

import asyncio
import hashlib
import posixpath
import secrets
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import cast

import asyncssh

from fleetkit import Conflict, Invalid, NotFound, OverBudget, Refused, Unavailable
from linux_cli_mcp.files import Files
from linux_cli_mcp.jail import Jail, Opened
from linux_cli_mcp.policy import Paths
from linux_cli_mcp.ssh.models import Direction, Transferred

CHUNK = 256 * 1024


class Transfer:
    """Copies between the jail and one host."""

    def __init__(self, host: str, sftp: asyncssh.SFTPClient, limit: int) -> None:
        self._host = host
        self._sftp = sftp
        self._limit = limit

    async def upload(self, paths: Paths, local: str, remote: str, *, overwrite: bool) -> Transferred:
        """Send a local file; the name at the host changes only once the copy there is proved."""
        with Jail(paths).reading(local) as opened, _explained(self._host, remote):
            self._check_size(local, opened.info.st_size)
            exists = await self._check_target(remote, overwrite=overwrite)
            temporary = f"{remote}.fleet-{secrets.token_hex(4)}"
            try:
                digest, size = await self._send(opened, temporary)
                await self._verify(temporary, digest)
                kept = await self._keep(remote) if exists else None
                await self._sftp.posix_rename(temporary, remote)
            finally:
                with suppress(asyncssh.SFTPError):
                    await self._sftp.remove(temporary)
        return self._done("upload", str(opened.real), remote, size, digest, kept)

    async def download(self, files: Files, remote: str, local: str, *, overwrite: bool) -> Transferred:
        """Fetch a remote file; the local name changes only once the copy is proved."""
        with tempfile.TemporaryFile() as spool, _explained(self._host, remote):
            hasher, size = hashlib.sha256(), 0
            async for chunk in self._chunks(remote):
                size += len(chunk)
                self._check_size(remote, size)
                hasher.update(chunk)
                await asyncio.to_thread(spool.write, chunk)
            await self._verify(remote, hasher.hexdigest())
            spool.seek(0)
            real, kept = await asyncio.to_thread(files.receive, local, spool, hasher.hexdigest(), overwrite=overwrite)
        return self._done("download", real, remote, size, hasher.hexdigest(), kept)

    async def _send(self, opened: Opened, target: str) -> tuple[str, int]:
        hasher, size = hashlib.sha256(), 0
        async with self._sftp.open(target, "xb") as sink:
            while chunk := await asyncio.to_thread(opened.file.read, CHUNK):
                size += len(chunk)
                self._check_size(opened.real, size)
                hasher.update(chunk)
                await sink.write(chunk)
        return hasher.hexdigest(), size

    async def _chunks(self, remote: str) -> AsyncGenerator[bytes]:
        async with self._sftp.open(remote, "rb") as source:
            while chunk := cast("bytes", await source.read(CHUNK)):
                yield chunk

    async def _verify(self, remote: str, digest: str) -> None:
        """Read the remote file once more: only its own bytes prove what is there."""
        hasher = hashlib.sha256()
        async for chunk in self._chunks(remote):
            hasher.update(chunk)
        if hasher.hexdigest() != digest:
            raise Conflict(f"{remote} on {self._host} changed while it was copied: nothing was replaced, try again")

    async def _check_target(self, remote: str, *, overwrite: bool) -> bool:
        if await self._sftp.isdir(remote):
            raise Invalid(f"{remote} on {self._host} is a folder: name the file in it")
        exists = await self._sftp.lexists(remote)
        if exists and not overwrite:
            raise Conflict(
                f"{remote} on {self._host} exists: choose another name or set overwrite (the old one is kept)"
            )
        return exists

    async def _keep(self, remote: str) -> str:
        """A second name for what will be replaced, so that there is no moment without it."""
        kept = f"{remote}.BAK_{datetime.now(UTC):%Y%m%d%H%M%S%f}"
        try:
            await self._sftp.link(remote, kept)
        except asyncssh.SFTPError as error:
            raise Refused(f"{remote} on {self._host} cannot be kept before replacing it ({error.reason})") from error
        return kept

    def _check_size(self, path: object, size: int) -> None:
        if size > self._limit:
            raise OverBudget(f"{path} is larger than {self._limit} bytes (option max_transfer_bytes)")

    def _done(
        self, direction: Direction, local: str, remote: str, size: int, digest: str, kept: str | None
    ) -> Transferred:
        return Transferred(
            host=self._host,
            direction=direction,
            local_path=local,
            remote_path=remote,
            size=size,
            sha256=digest,
            replaced=kept,
        )


@contextmanager
def _explained(host: str, remote: str) -> Generator[None]:
    if not posixpath.isabs(remote) or "\0" in remote:
        raise Invalid(f"remote_path must be absolute: {remote!r}")
    try:
        yield
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
        raise NotFound(f"{remote} or its folder does not exist on {host}") from error
    except asyncssh.SFTPPermissionDenied as error:
        raise Refused(f"{host} does not let this login use {remote}") from error
    except (asyncssh.Error, OSError) as error:
        raise Unavailable(f"copying {remote} with {host} failed: {error}") from error
