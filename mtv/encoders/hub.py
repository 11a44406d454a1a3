"""Hub files: from the local cache, or fetched when the caller said `--download`. Nothing else touches the network."""

from __future__ import annotations

from pathlib import Path

from mtv.encoders.spec import ModelSpec, local_twin
from mtv.errors import CheckpointError


def hub_file(repo: str, filename: str, *, revision: str | None = None, download: bool = False) -> Path | None:
    """A file of a hub repository: from the local cache, or downloaded if allowed; None when there is none.

    Raises:
        CheckpointError: the download failed; names repository and file.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    cached = try_to_load_from_cache(repo, filename, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    if not download:
        return None
    try:
        return Path(hf_hub_download(repo, filename, revision=revision))
    except EntryNotFoundError:
        return None
    # The hub client raises its own, requests', httpx' and OS errors; all of them mean the same to the user.
    except Exception as e:
        reason = (str(e) or type(e).__name__).splitlines()[0]
        raise CheckpointError(
            f"cannot download {filename} of {repo}: {reason}", "Check the name, the network, and HF_HUB_OFFLINE."
        ) from e


def not_cached(spec: ModelSpec, repo: str) -> CheckpointError:
    """The error for a hub model that is not here, with the two ways out."""
    local = {"hf": "hf:./DIR", "open_clip": f"open_clip:{spec.name}@FILE", "timm": f"timm:{spec.name}@FILE"}
    return CheckpointError(
        f"{spec.text}: {repo} is not in the local hub cache{local_twin(repo)}, and nothing is downloaded by default",
        f"Add --download to fetch it, or name a local copy: {local.get(spec.scheme, 'a local file')}.",
    )
