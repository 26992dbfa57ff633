"""Teams: who is a member, who manages them, and what they may be given."""
