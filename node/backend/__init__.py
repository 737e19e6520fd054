"""The backend: switchboard, channel interpreter, store, chain client, wallet, API."""
