"""Who may call: identities of clients, the checks that find them, and limits on how much each may call.

No dialect is known here: a check sees a `ClientRequest`, which every dialect can make.
May import authentication, gateway.requests and logs, and what they may import.
"""
