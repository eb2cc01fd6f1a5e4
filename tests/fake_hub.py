"""A stand-in for the hub's client, shared by what fetches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

COMMIT = "a" * 40


class FakeHub:
    """Stands in for the client's two calls, with their very signatures (autospec refuses any other argument)."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        import huggingface_hub
        from huggingface_hub import HfApi, hf_hub_download

        self.root, self.commit, self.online = root, COMMIT, True
        self.files: dict[str, bytes] = {}
        self.download = mock.create_autospec(hf_hub_download, side_effect=self._download)
        self.info = mock.create_autospec(HfApi.repo_info, side_effect=self._info)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)
        monkeypatch.setattr(HfApi, "repo_info", self.info)

    def _info(self, api, repo_id, *, revision=None, **_):
        self._need_network()
        return SimpleNamespace(sha=revision or self.commit)

    def _download(self, repo_id, filename, *, revision=None, local_files_only=False, **_):
        from huggingface_hub.errors import LocalEntryNotFoundError

        path = self.root / repo_id / str(revision) / filename
        if not path.exists():
            if local_files_only:
                raise LocalEntryNotFoundError("not cached")
            self._need_network()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.files[filename])
        return str(path)

    def _need_network(self):
        if not self.online:
            from huggingface_hub.errors import HfHubHTTPError

            # What the client really raises without a network: its HTTP library's error, not one of its own.
            http_error = HfHubHTTPError.__bases__[0]
            raise http_error("Name or service not known")
