"""What users define in a script or a notebook: every kind of class and function, all in `__main__`.

Run by tests/e2e/test_main_module.py in a process of its own, on the mesh of the tests.
"""

import abc
import asyncio
import collections
import enum
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

import mesh as serve

T = TypeVar("T")
RATE = 3


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Point(NamedTuple):
    x: int
    y: int


class Order(BaseModel):
    item: str
    amount: int = 1


@dataclass(frozen=True)
class Receipt:
    order: Order
    total: float


class SoldOutError(Exception):
    def __init__(self, item: str) -> None:
        super().__init__(f"{item} is sold out")
        self.item = item


def price_of(item: str) -> float:
    return RATE * len(item)


class Base(abc.ABC):
    kind = "base"

    def __init__(self, name: str) -> None:
        self.name = name

    @abc.abstractmethod
    def greet(self) -> str: ...

    def describe(self) -> str:
        return f"{self.kind} {self.name}: {self.greet()}"


@serve.deployment
class Child(Base):
    kind = "child"

    def __init__(self, name: str, mark: str) -> None:
        super().__init__(name)
        self.mark = mark

    def greet(self) -> str:
        return f"hello{self.mark}"

    @property
    def size(self) -> int:
        return len(self.name)

    @staticmethod
    def double(n: int) -> int:
        return 2 * n

    @classmethod
    def kinds(cls) -> str:
        return cls.kind


@serve.deployment
@dataclass
class Counter:
    start: int
    step: int = 2
    seen: list[int] = field(default_factory=list)

    def next(self) -> int:
        self.seen.append(self.start + self.step * len(self.seen))
        return self.seen[-1]


class Box(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value

    def get(self) -> T:
        return self.value

    def swap(self, value: T) -> T:
        self.value, value = value, self.value
        return value


@serve.deployment
class Shop:
    async def __init__(self, boxes: dict[str, Any], child: Any, convert: Any) -> None:
        await asyncio.sleep(0)
        self.boxes = boxes
        self.child = child
        self.convert = convert
        self.first = await child.greet.remote()

    async def buy(self, order: Order, colour: Colour = Colour.RED) -> Receipt:
        assert isinstance(order, Order)
        assert colour in Colour
        if order.item == "pear":
            raise SoldOutError(order.item)
        return Receipt(order, self.convert(price_of(order.item)) * order.amount)

    async def all(self) -> dict[str, Any]:
        names = list(self.boxes)
        values = await asyncio.gather(*(self.boxes[name].get.remote() for name in names))
        return {"first": self.first, **dict(zip(names, values, strict=True))}

    async def move(self, point: Point) -> Point:
        return point._replace(x=point.x + 1)

    async def points(self, count: int) -> AsyncIterator[Point]:
        for number in range(count):
            yield Point(number, RATE)

    async def __del__(self) -> None:
        await asyncio.sleep(0)


@serve.deployment
def shout(text: str) -> str:
    return text.upper()


@serve.deployment
async def count(up_to: int) -> AsyncIterator[int]:
    for number in range(up_to):
        yield number


def build() -> serve.Application:
    secret = collections.Counter("abracadabra")

    @serve.deployment
    class Local:
        def often(self, letter: str) -> int:
            return secret[letter]

    return Local.bind()


def end(response: Any) -> Any:
    return response.result(timeout_s=30)


child = Child.bind("ann", mark="!")
boxes = {
    "number": serve.deployment(Box[int]).options(name="NumberBox").bind(7),
    "text": serve.deployment(Box).options(name="TextBox").bind("seven"),
}
convert = functools.partial(round, ndigits=1)
options = {"route_prefix": None}
shop = serve.run(Shop.bind(boxes, child, convert), name="shop", **options)
receipt = end(shop.buy.remote(Order(item="fig", amount=2), Colour.BLUE))
assert isinstance(receipt, Receipt), type(receipt)
assert isinstance(receipt.order, Order)
assert receipt == Receipt(Order(item="fig", amount=2), 18.0), receipt
assert end(shop.all.remote()) == {"first": "hello!", "number": 7, "text": "seven"}
moved = end(shop.move.remote(Point(1, 2)))
assert isinstance(moved, Point)
assert moved == Point(2, 2)
assert list(shop.points.options(stream=True).remote(2)) == [Point(0, 3), Point(1, 3)]
sold_out: Any = None
try:
    end(shop.buy.remote(Order(item="pear")))
except SoldOutError as error:
    sold_out = error.item
assert sold_out == "pear"
there = serve.get_deployment_handle("Child", "shop")
assert end(there.describe.remote()) == "child ann: hello!"
assert end(there.double.remote(4)) == 8
assert end(there.kinds.remote()) == "child"

other = serve.run(Child.bind("bob", mark="?"), name="other", **options)  # the same deployment name in two applications
assert (end(other.greet.remote()), end(there.greet.remote())) == ("hello?", "hello!")

counter = serve.run(Counter.bind(10), name="counter", **options)
assert [end(counter.next.remote()) for _ in range(3)] == [10, 12, 14]
assert end(serve.run(shout.bind(), name="shout", **options).remote("hi")) == "HI"
assert list(serve.run(count.bind(), name="count", **options).options(stream=True).remote(3)) == [0, 1, 2]
assert end(serve.run(build(), name="local", **options).often.remote("a")) == 5

RATE = 10


@serve.deployment  # as when a cell is changed and run again
class Child(Base):  # type: ignore[no-redef]
    def greet(self) -> str:
        return f"goodbye {RATE}"


assert end(serve.run(Child.bind("cy"), name="other", **options).describe.remote()) == "base cy: goodbye 10"
for name in ("shop", "other", "counter", "shout", "count", "local"):
    serve.delete(name)
print("all is well")
