"""FastAPI in front of three services, which it asks at the same time.

`mesh run examples.apps.storefront:app`, then open http://localhost:8000/docs.
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

import mesh

web = FastAPI(title="Storefront")


class Product(BaseModel):
    sku: str
    title: str
    price: float
    in_stock: int


class Order(BaseModel):
    sku: str
    amount: int = Field(gt=0)


class OutOfStockError(Exception):
    def __init__(self, sku: str, left: int) -> None:
        super().__init__(sku, left)
        self.left = left


class Catalog:
    async def title(self, sku: str) -> str:
        return {"p-1": "Pencil", "n-2": "Notebook"}[sku]


class Prices:
    async def price(self, sku: str, amount: int = 1) -> float:
        single = {"p-1": 1.5, "n-2": 4.0}[sku]
        return single * amount * (0.9 if amount >= 10 else 1)


class Stock:
    def __init__(self) -> None:
        self.left = {"p-1": 12, "n-2": 0}

    async def count(self, sku: str) -> int:
        return self.left[sku]

    async def take(self, sku: str, amount: int) -> int:
        if self.left[sku] < amount:
            raise OutOfStockError(sku, self.left[sku])
        self.left[sku] -= amount
        return self.left[sku]


@mesh.ingress(web)
class Storefront:
    def __init__(
        self, catalog: mesh.DeploymentHandle, prices: mesh.DeploymentHandle, stock: mesh.DeploymentHandle
    ) -> None:
        self.catalog = catalog
        self.prices = prices
        self.stock = stock

    @web.get("/products/{sku}")
    async def product(self, sku: str) -> Product:
        try:
            title, price, count = await asyncio.gather(
                self.catalog.title.remote(sku), self.prices.price.remote(sku), self.stock.count.remote(sku)
            )
        except KeyError:
            raise HTTPException(404, f"There is no product {sku}.") from None
        return Product(sku=sku, title=title, price=price, in_stock=count)

    @web.post("/orders", status_code=201)
    async def order(self, order: Order) -> dict[str, float]:
        try:
            left = await self.stock.take.remote(order.sku, order.amount)
        except OutOfStockError as error:
            raise HTTPException(409, f"Only {error.left} are left.") from None
        except KeyError:
            raise HTTPException(404, f"There is no product {order.sku}.") from None
        return {"total": await self.prices.price.remote(order.sku, amount=order.amount), "left": left}


catalog = mesh.deployment(Catalog)
prices = mesh.deployment(Prices)
stock = mesh.deployment(Stock)
storefront = mesh.deployment(Storefront)
app = storefront.bind(catalog.bind(), prices.bind(), stock.bind())
