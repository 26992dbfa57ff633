"""Teams: membership, administration, and the vector stores and MCP servers of teams."""
