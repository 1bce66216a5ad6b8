"""What both sides say: plans, tickets, masks, messages, and the transport that carries them.

Needs numpy and (in `wire.mqtt` only) paho-mqtt; never torch, onnx or executorch.
"""

__version__ = "0.1.0"
