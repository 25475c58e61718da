"""What never enters a captured code tree: secrets, version control, environments, caches and stores, by name.

Git's own ignore rules come first where there is a repository; these hold in any case, also for tracked files.
"""

from __future__ import annotations

import os
import re
import tempfile
from fnmatch import translate
from pathlib import Path

SECRET_FILES = (
    *(".env*", "*.env"),
    *("*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "*.gpg"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
    *(".netrc", "_netrc", ".pypirc", ".npmrc", ".pgpass", ".my.cnf", ".htpasswd", ".git-credentials", ".vault-token"),
    *("credentials", "credentials.json", "client_secret*.json", "service_account*.json", "service-account*.json"),
    *("secrets.toml", "secrets.yaml", "secrets.yml", "secrets.json", "*.tfvars", "*.tfstate"),
)
SECRET_FOLDERS = frozenset({".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".kube", ".docker"})
CACHE_FOLDERS = frozenset(
    {".git", ".hg", ".svn", ".jj", ".clew", "__pycache__", ".cache", ".tox", ".nox", ".eggs", "node_modules"}
    | {".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints"}
)
ENVIRONMENT_FOLDERS = frozenset({".venv", "venv", "site-packages", "dist-packages", "conda-meta"})

# A file of this name says what the folder that holds it is.
ENVIRONMENT_MARK = "pyvenv.cfg"
CACHE_MARK = "CACHEDIR.TAG"

_SECRET_FILE = re.compile("|".join(translate(pattern) for pattern in SECRET_FILES), re.IGNORECASE)


def is_secret(name: str) -> bool:
    """True for the name (no folder) of a file that is likely to hold keys or passwords."""
    return _SECRET_FILE.match(name) is not None


def folder_reason(name: str) -> str | None:
    """Why a folder of this name is left out; None if nothing speaks against it."""
    if name in CACHE_FOLDERS:
        return "cache"
    if name in ENVIRONMENT_FOLDERS:
        return "virtual environment"
    if name.lower() in SECRET_FOLDERS or name.startswith(".env"):
        return "may hold secrets"
    return None


def is_gathering_place(folder: Path) -> bool:
    """True for folders that hold many people's or projects' files: the root, a home, the temporary folder.

    What lies in them is no project, even if a repository is there (dotfiles, etckeeper).
    """
    places = {Path(folder.anchor), Path(os.path.realpath(tempfile.gettempdir()))}
    home = os.path.expanduser("~")
    return folder in places or folder in (Path(os.path.realpath(home)), Path("/home"), Path("/root"))
