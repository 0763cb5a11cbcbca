"""One call as its caller sees it: the arguments on their way out, the future of the call, the response objects.

May import routing, link, wire and the context; it knows neither handles nor the mesh's membership.
"""
