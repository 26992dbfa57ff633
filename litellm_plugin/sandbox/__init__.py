"""The sandbox: the real service beside stand-ins for LiteLLM and Backstage.

``litellm-plugin sandbox`` starts all three on the loopback. The service is the real one, token
checks included; the stand-ins hold made-up data in memory. Tests use
:class:`~litellm_plugin.sandbox.litellm.LiteLLMStandIn` and
:class:`~litellm_plugin.sandbox.backstage.BackstageStandIn` as well.
"""
