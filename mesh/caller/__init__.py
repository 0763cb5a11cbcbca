"""One call as its caller sees it: the arguments on their way out, the future of the call, the response objects.

It does not know handles.
May import membership and what it may import.
"""
