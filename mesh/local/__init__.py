"""Applications in this process, without Ray: for tests, and for a first look at one.

One replica of each deployment runs in threads of its own. Everything else is what the mesh uses: handles, routers and
links, the executor, and on demand a gateway. It knows nothing of the controller.
May import application, replica and status, and what they may import.
"""
