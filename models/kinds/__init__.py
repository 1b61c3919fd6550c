"""The kinds of model there are. A new one is a module with a class, and a line in the tuple here.

:mod:`models.kinds.base` says what a kind declares.
"""

from __future__ import annotations

from typing import Any

from models.kinds.autoencoders import AutoencoderKind, DeepAutoencoderKind
from models.kinds.base import ModelKind
from models.kinds.classifier import ClassifierKind
from models.kinds.conv_vae import ConvVaeKind
from models.kinds.host_conv_vae import HostConvVaeKind
from models.kinds.prototypes import GuardedKind, PrototypeKind
from models.kinds.vae import VaeKind

_ALL: tuple[ModelKind[Any], ...] = (
    VaeKind(),
    ConvVaeKind(),
    HostConvVaeKind(),
    DeepAutoencoderKind(),
    AutoencoderKind(),
    PrototypeKind(),
    GuardedKind(),
    ClassifierKind(),
)
KINDS: dict[str, ModelKind[Any]] = {kind.name: kind for kind in _ALL}
DEFAULT_KIND = "vae"
