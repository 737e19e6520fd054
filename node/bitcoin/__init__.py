"""Scripts, transactions and signature hashes over wallycore."""
