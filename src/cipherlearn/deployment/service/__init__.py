"""The HTTP service around a server artefact. Needs ``pip install 'cipherlearn[server]'``."""

from cipherlearn.deployment.service._app import create_app
from cipherlearn.deployment.service._settings import ServiceSettings

__all__ = ["ServiceSettings", "create_app"]
