"""The sandbox: the real service with stand-ins for LiteLLM and Backstage.

``litellm-plugin sandbox`` starts all three on the loopback. The service checks tokens as in
production; the stand-ins hold made-up data in memory. Tests use
:class:`~litellm_plugin.sandbox.litellm.LiteLLMStandIn` and
:class:`~litellm_plugin.sandbox.backstage.BackstageStandIn` as well.
"""
