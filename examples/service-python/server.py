"""A service behind wxgate that does not rely on its network: it checks who signed what it is told.

`X-WX-OPENID` alone is as trustworthy as the way from the gateway to here. On a route with `assertion = true` the gateway
adds `X-Wxgate-Assertion`, a JWT of 60 seconds for this service alone, which any JWT library checks with the gateway's
published keys.
"""

import os
from datetime import datetime, timezone
from typing import Annotated

import jwt
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field

ISSUER = os.environ.get("WXGATE_ISSUER", "http://127.0.0.1:8080")  # [token] issuer
NAME = "orders"  # [[upstream]] name

# Fetched when the first assertion comes, then kept for five minutes; a key that is not among them is asked for again.
keys = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json", lifespan=300)


def caller(
    openid: Annotated[str | None, Header(alias="X-WX-OPENID")] = None,
    assertion: Annotated[str | None, Header(alias="X-Wxgate-Assertion")] = None,
) -> str:
    """The openid of the caller, as the gateway has signed it."""
    if not assertion:
        raise HTTPException(401, "no assertion: has this request come through the gateway?")
    try:
        checked = jwt.decode_complete(
            assertion,
            keys.get_signing_key_from_jwt(assertion),
            algorithms=["ES256"],
            issuer=ISSUER,
            audience=NAME,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
    except jwt.PyJWTError as error:
        raise HTTPException(401, f"the assertion does not hold: {error}") from error
    # An access token is signed by the same key; it is none of these.
    if checked["header"].get("typ") != "wxgate-assertion+jwt":
        raise HTTPException(401, "this is not an assertion")
    if checked["payload"]["openid"] != openid:
        raise HTTPException(401, "the header names somebody else")
    return openid


class NewOrder(BaseModel):
    item: str = Field(min_length=1)


app = FastAPI()
orders: dict[str, list[dict[str, str]]] = {}


@app.get("/orders")
def list_orders(openid: Annotated[str, Depends(caller)]):
    return {"orders": orders.get(openid, [])}


@app.post("/orders", status_code=201)
def place_order(new: NewOrder, openid: Annotated[str, Depends(caller)]):
    order = {"item": new.item, "at": datetime.now(timezone.utc).isoformat()}
    orders.setdefault(openid, []).append(order)
    return order


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "3001")))
