"""The sandbox: the real service beside stand-ins for LiteLLM and Backstage.

``litellm-plugin sandbox`` starts all three on the loopback. The
service is the one that is deployed, token checks included; only what it talks
to is made up, and held in memory. :class:`~litellm_plugin.sandbox.litellm.LiteLLMStandIn`
and :class:`~litellm_plugin.sandbox.backstage.BackstageStandIn` serve tests as well.
"""
