"""Query parameters that mean nothing: refused, because an answer without the filter that was meant looks right."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute

from app.errors import SpecificationError, did_you_mean


def refuse_unknown_query(request: Request) -> None:
    """Refuse a request with query parameters that its route does not have.

    Raises:
        SpecificationError: it has some; names each, and those there are.
    """
    route = request.scope["route"]
    known = _names(request, route) if isinstance(route, APIRoute) else []
    unknown = [name for name in dict.fromkeys(request.query_params.keys()) if name not in known]
    if unknown:
        told = [f"{name}: unknown query parameter: {did_you_mean(name, known)}" for name in unknown]
        raise SpecificationError("request", told)


def _names(request: Request, route: APIRoute) -> list[str]:
    described = request.app.openapi()["paths"][route.path_format][request.method.lower()]
    return [each["name"] for each in described.get("parameters", []) if each["in"] == "query"]
